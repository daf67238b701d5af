"""What was scored lately: notable samples, a sample of all scores, and the labels people gave."""
