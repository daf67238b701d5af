"""CPU time and memory of a tree of processes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tuning.processes import cpu_s, resident_bytes


def test_the_memory_of_children_counts() -> None:
    code = "import sys; held = b'x' * (64 << 20); print(flush=True); sys.stdin.read()"
    alone = resident_bytes(os.getpid())
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        child.stdout.readline()
        assert resident_bytes(child.pid) > 64 << 20
        assert resident_bytes(os.getpid()) > alone + (48 << 20)
        child.communicate()


def test_the_work_of_children_counts_even_when_they_have_ended() -> None:
    before = cpu_s(os.getpid())
    code = "import time\nwhile time.process_time() < 0.3: pass"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert cpu_s(os.getpid()) - before >= 0.28


def test_a_process_that_has_gone_is_an_error() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        child.wait()
    with pytest.raises(FileNotFoundError):
        cpu_s(child.pid)
