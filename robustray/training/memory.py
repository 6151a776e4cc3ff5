"""Keeping freed memory in the process, so that no step pays for the same pages again."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


@cache
def keep_freed_memory() -> bool:
    """Tell the C library to hand no freed memory back to the system; once per process.

    Activations of megabytes are freed and taken again hundreds of times in each training step.
    By default glibc returns many of them to the kernel, which must then zero and map every page
    anew: about a fifth of a float32 step of a small network. The process keeps its peak size
    until it ends.

    Returns
    -------
    bool
        Whether it took effect; it does nothing where the C library isn't glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(_M_MMAP_MAX, 0)) and bool(mallopt(_M_TRIM_THRESHOLD, -1))
