"""The device that is used, and the threads."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from proxy.devices import use_device
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
