"""Clients that ask for too much, in every way there is, beside ordinary ones."""
