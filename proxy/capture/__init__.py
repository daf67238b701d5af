"""Suspicious requests kept in a folder, for forensics and replay."""
