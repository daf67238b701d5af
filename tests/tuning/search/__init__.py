"""Tests of the search for a policy."""
