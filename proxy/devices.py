"""Where detectors compute: the device, the threads, and their share of a GPU's memory."""

from __future__ import annotations

import os
from typing import Literal

import torch

from proxy.cpu_quota import thread_count
from proxy.errors import ConfigError

CPU = torch.device("cpu")


def use_device(
    wanted: str,
    *,
    threads: int | Literal["auto"] = "auto",
    memory_fraction: float = 1.0,
) -> torch.device:
    """Set torch up for `auto`, `cpu` or `cuda`, and return the device.

    Args:
        wanted: the device.
        threads: see `cpu_quota.thread_count`.
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
        return CPU
    if memory_fraction < 1:
        torch.cuda.set_per_process_memory_fraction(memory_fraction)
    return torch.device("cuda")
