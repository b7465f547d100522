"""What glibc keeps of freed memory, and when it gives it back.

uvloop has a buffer of 256 KB for each TLS connection and uses some KB of it. Mapped by itself, a buffer costs
what is used; out of memory that something else has used and freed, it costs all of it. With 1,000 workers
connected that makes 100 MB. glibc without these calls (musl) is left alone.
"""

from __future__ import annotations

import ctypes

# M_MMAP_THRESHOLD (malloc.h) and its default, which stays where it is once it is set.
_M_MMAP_THRESHOLD, _LARGE_BYTES = -3, 128 * 1024
_libc = ctypes.CDLL(None)


def map_large_blocks() -> None:
    """Have each large block mapped by itself, and given back when it is freed.

    A node password's scrypt takes 32 MB. Once such a block was freed, glibc would take its size for the new
    limit, and keep all that is smaller.
    """
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def give_back() -> None:
    """Give the pages back that were freed between blocks in use. Takes some ms."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)
