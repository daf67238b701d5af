"""Chaos: each neighbour, file and limit of the proxy breaks under load, and every answer counts."""
