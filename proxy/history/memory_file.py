"""The file in which all workers of one supervisor keep their history: memory, never on a disk.

The supervisor makes it and looks at nothing in it; it is gone with the last process that has it.
"""

from __future__ import annotations

import os

SECRET_BYTES = 32
SIZE = 1 << 36
"""More than the largest history takes. Pages that nothing was written to take no memory."""


def create() -> int:
    """Return a descriptor of a new file that begins with a random secret and is else all zeros.

    Workers get the descriptor; the secret is never in an argument or the environment.
    """
    file = os.memfd_create("breakwater-history", os.MFD_CLOEXEC)
    os.ftruncate(file, SIZE)
    os.pwrite(file, os.urandom(SECRET_BYTES), 0)
    return file
