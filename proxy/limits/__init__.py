"""What each principal may use, and how much of it."""
