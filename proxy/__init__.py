"""The sidecar: data plane, policy, metrics and admin."""

__version__ = "0.1.0"
