"""The control API: policy, verdicts as they come, labels, drain; for gRPC and for the console."""
