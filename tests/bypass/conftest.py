"""The fixtures of the data plane's tests, for the attacks on it."""

from tests.proxy.conftest import direct, front, open_front, opened, recorder

__all__ = ["direct", "front", "open_front", "opened", "recorder"]
