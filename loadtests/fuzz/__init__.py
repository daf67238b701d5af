"""Differential fuzzing of everything that reads or edits what clients send."""
