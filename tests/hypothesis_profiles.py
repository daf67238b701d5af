"""Hypothesis profiles, chosen by HYPOTHESIS_PROFILE: `fast` (default) and `deep`."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# No deadline: on a shared machine a slow example says nothing about the code.
settings.register_profile("fast", max_examples=50, deadline=None, derandomize=True)
settings.register_profile(
    "deep", max_examples=20_000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))
