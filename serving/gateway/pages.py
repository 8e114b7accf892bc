"""Puts what was loaded onto huge pages: a request meets cold caches, and then what costs most is to
find its memory, page by page, on a virtual machine through two tables.
"""

import ctypes
from collections.abc import Iterator
from pathlib import Path

PAGE_BYTES = 2 * 2**20

MADV_COLLAPSE = 25
"""Linux 6.1 and later: joins small pages at once, also where `transparent_hugepage` only says
`madvise`."""


def whole_pages(maps: str) -> Iterator[int]:
    """Addresses of the huge pages that fit into a process's own data.

    Args:
        maps: As in /proc/PID/maps.
    """
    for line in maps.splitlines():
        place, rights, _, _, inode, *name = line.split(maxsplit=5)
        if not rights.startswith("rw") or inode != "0" or name not in ([], ["[heap]"]):
            continue
        start, end = (int(bound, 16) for bound in place.split("-"))
        first = -(-start // PAGE_BYTES) * PAGE_BYTES
        yield from range(first, end - PAGE_BYTES + 1, PAGE_BYTES)


def collapse_heap() -> int:
    """Joins what can be joined, some milliseconds long; returns how many bytes it is.

    Nothing depends on it: 0 where the kernel is older, or has no such memory to give.
    """
    try:
        maps = Path("/proc/self/maps").read_text()
        madvise = ctypes.CDLL(None).madvise
    except (OSError, AttributeError):
        return 0
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    joined = [at for at in whole_pages(maps) if madvise(at, PAGE_BYTES, MADV_COLLAPSE) == 0]
    return len(joined) * PAGE_BYTES
