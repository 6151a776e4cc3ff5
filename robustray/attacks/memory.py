"""How freed memory is kept on CPUs."""

from __future__ import annotations

import contextlib
import ctypes
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h of the GNU C library
_KEPT = 512 * 1024**2
_FROM_HEAP = 32 * 1024**2


@cache
def keep_freed_memory() -> None:
    """Let the process keep up to 512 MB of freed memory instead of returning it at once.

    An attack's step frees and asks for the same few megabytes again and again. By default the GNU
    C library gives them back to the system in between, and each step pays for getting them
    cleared and mapped anew: up to half of the time of small networks. Nothing but memory use and
    time changes; where there is no such library nothing happens.
    """
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(_M_TRIM_THRESHOLD, _KEPT)
        library.mallopt(_M_MMAP_THRESHOLD, _FROM_HEAP)
