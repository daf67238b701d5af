"""The bounds' defaults follow the other settings, and none leaves room for less than a message."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from proxy.config import Config


def test_the_defaults_follow_the_other_settings() -> None:
    config = Config(max_message_bytes=1000, max_in_flight=9)
    assert (config.most_bytes_in_flight, config.most_streams) == (4000, 5)


def test_what_is_said_counts() -> None:
    inflow = {"max_bytes_in_flight": 2000, "max_streams": 3}
    config = Config.model_validate({"max_message_bytes": 1000, "inflow": inflow})
    assert (config.most_bytes_in_flight, config.most_streams) == (2000, 3)


def test_room_for_less_than_one_message_is_refused() -> None:
    with pytest.raises(ValidationError, match="lower max_message_bytes"):
        Config.model_validate({"inflow": {"max_bytes_in_flight": 1000}})
