"""Where detectors compute: the device, the threads, and their share of a GPU's memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

import torch

from proxy.errors import ConfigError

_ENVIRONMENT = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
"""What an operator sets for any program that computes, OpenMP's own name first."""


def use_device(
    wanted: str,
    *,
    threads: int | Literal["auto"] = "auto",
    memory_fraction: float = 1.0,
) -> torch.device:
    """Set torch up for `auto`, `cpu` or `cuda`, and return the device.

    Args:
        wanted: the device.
        threads: see `thread_count`.
        memory_fraction: most of the GPU's memory that this process may take, (0, 1]; past it
            torch raises OutOfMemoryError although there may be memory left.

    Raises:
        ConfigError: CUDA is wanted in vain.
    """
    available = torch.cuda.is_available()
    if wanted == "cuda" and not available:
        raise ConfigError("device: cuda, but PyTorch sees no CUDA device; use auto or cpu")
    torch.set_num_threads(thread_count(threads, os.environ))
    if not available or wanted == "cpu":
        return torch.device("cpu")
    if memory_fraction < 1:
        torch.cuda.set_per_process_memory_fraction(memory_fraction)
    return torch.device("cuda")


def thread_count(wanted: int | Literal["auto"], environment: Mapping[str, str]) -> int:
    """Threads that one operation of torch computes with.

    `auto` is what OMP_NUM_THREADS or MKL_NUM_THREADS say, and 1 where neither is set. Batches this
    small are done before a second thread has woken up, and the event loop needs that core: with
    two threads on two cores enforce was 1.7 to 10 times slower (`python -m loadtests.overhead`,
    with OMP_NUM_THREADS=1 and without, before it was set to 1). More pays only where a pass takes
    milliseconds and processors are idle: large images, few workers.
    """
    if wanted != "auto":
        return wanted
    # OMP_NUM_THREADS may be a list, one for each level of nesting; the first is the outermost.
    given = (environment.get(name, "").partition(",")[0].strip() for name in _ENVIRONMENT)
    return next((int(text) for text in given if text.isdecimal() and int(text) > 0), 1)
