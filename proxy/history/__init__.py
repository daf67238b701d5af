"""The memory of queries: what was asked before, by whom, and what follows from it."""
