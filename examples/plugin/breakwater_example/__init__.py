"""A detector and a purifier of one's own, as an example of Breakwater's plug-ins."""
