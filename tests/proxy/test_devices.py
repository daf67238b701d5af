"""The device, and how many threads compute on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import pytest
import torch

from proxy.devices import thread_count, use_device
from proxy.errors import ConfigError

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_the_device() -> None:
    assert use_device("cpu") == CPU
    if not torch.cuda.is_available():
        assert use_device("auto") == CPU
        with pytest.raises(ConfigError, match="sees no CUDA device"):
            use_device("cuda")


def test_threads_are_set() -> None:
    use_device("cpu", threads=2)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize(
    ("wanted", "environment", "count"),
    [
        ("auto", {}, 1),
        ("auto", {"OMP_NUM_THREADS": "3"}, 3),
        ("auto", {"OMP_NUM_THREADS": "4,2"}, 4),
        ("auto", {"MKL_NUM_THREADS": "2"}, 2),
        ("auto", {"OMP_NUM_THREADS": "3", "MKL_NUM_THREADS": "2"}, 3),
        ("auto", {"OMP_NUM_THREADS": "many"}, 1),
        ("auto", {"OMP_NUM_THREADS": "0"}, 1),
        (5, {"OMP_NUM_THREADS": "3"}, 5),
    ],
)
def test_how_many(
    wanted: int | Literal["auto"], environment: Mapping[str, str], count: int
) -> None:
    assert thread_count(wanted, environment) == count
