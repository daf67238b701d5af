"""Benchmarks: cost, memory and quality, side by side with peers. Never part of the tests."""
