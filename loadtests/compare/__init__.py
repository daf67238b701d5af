"""Breakwater beside what a user would run instead, doing the same work for each request."""
