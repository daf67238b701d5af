"""Attacks by queries on a live sidecar, and what its memory of queries costs."""
