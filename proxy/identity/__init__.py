"""Who is at the other end: certificates, and what a caller is called."""
