"""In processes of their own: the settings are the process's, and cannot be taken back."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from proxy.allocator import SETTINGS

# mallinfo2(3): `hblkhd`, its fifth field, is the bytes in blocks that were mapped one by one.
PROGRAM = """
import ctypes
from proxy.allocator import keep_large_buffers
print(keep_large_buffers())
class Info(ctypes.Structure):
    _fields_ = [(f"field{i}", ctypes.c_size_t) for i in range(10)]
mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Info
before = mallinfo2().field4
buffer = bytearray(4_000_000)
print(mallinfo2().field4 > before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
@pytest.mark.parametrize("is_set", [False, True])
def test_large_buffers_come_from_the_heap_unless_the_environment_says_otherwise(
    is_set: bool,
) -> None:
    variables = {name: "131072" for name, _ in SETTINGS.values() if is_set}
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **variables},
        check=True,
        capture_output=True,
        text=True,
    )
    assert run.stdout.split() == ["True", str(is_set)]
