"""The soak: half an hour of checked traffic while everything around the proxy breaks."""
