"""glibc's allocator set up for megabyte messages that come and go.

By default every buffer above 128 KiB is mapped and unmapped anew, and its pages are faulted in
again for each message. Compare `python -m loadtests.overhead --cases direct nginx bytes-only` with
and without these variables at 131072, the default, in the environment: MALLOC_MMAP_THRESHOLD_,
MALLOC_TRIM_THRESHOLD_ and MALLOC_TOP_PAD_.
"""

from __future__ import annotations

import ctypes
import os

# The parameter numbers of mallopt(3), from <malloc.h>.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3

SETTINGS = {
    _M_MMAP_THRESHOLD: ("MALLOC_MMAP_THRESHOLD_", 256 * 1024 * 1024),
    _M_TRIM_THRESHOLD: ("MALLOC_TRIM_THRESHOLD_", 1024 * 1024 * 1024),
    _M_TOP_PAD: ("MALLOC_TOP_PAD_", 64 * 1024 * 1024),
}


def keep_large_buffers() -> bool:
    """Keep freed buffers for the next message; settings from the environment win.

    Returns:
        False where the C library is not glibc (nothing was changed).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False
    for number, (variable, value) in SETTINGS.items():
        if variable not in os.environ:
            mallopt(number, value)
    return True
