"""Pieces of pages that open anywhere and fetch nothing: plots, tables, pictures, style."""
