"""What is caught, and what is flagged wrongly: the defence library measured on CIFAR-10."""
