"""Generated from proto/breakwater by `make proto`; not edited by hand."""
