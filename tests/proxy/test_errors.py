"""Every error has its own kind (a metric label) and says whose fault it is."""

from __future__ import annotations

import re

from proxy.errors import DetectorFailed, InvalidTensor, ProxyError, Source, UpstreamError


def kinds() -> list[type[ProxyError]]:
    found, todo = [], [ProxyError]
    while todo:
        kind = todo.pop()
        found.append(kind)
        todo += kind.__subclasses__()
    return found


def test_kinds_are_distinct_labels() -> None:
    names = [kind.kind for kind in kinds()]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-z_]+", name) for name in names)


def test_every_error_has_a_source() -> None:
    assert {kind.source for kind in kinds()} == set(Source)


def test_the_text_is_for_the_client() -> None:
    assert str(InvalidTensor("input x: 3 bytes for shape [1]")) == "input x: 3 bytes for shape [1]"


def test_detector_failures_carry_a_reason_for_the_metric() -> None:
    assert (DetectorFailed("budget").reason, str(DetectorFailed("budget"))) == ("budget", "budget")
    assert str(DetectorFailed("error", "grid raised")) == "grid raised"


def test_upstream_errors_keep_what_the_server_said() -> None:
    error = UpstreamError(14, "model is loading", [("retry-after", "3")])
    assert (error.code, error.details) == (14, "model is loading")
    assert error.trailing_metadata == (("retry-after", "3"),)
    assert str(error) == "model is loading"
