"""How many files and sockets a process may have open: many systems begin with 1,024, raised here.

A gateway has two sockets for each stream. Containers and systemd units commonly start with a soft
limit of 1,024 below a hard one of 500,000, and it is left to each program to go up to that.
"""

import resource

WANTED = 65_536
"""Enough, and few enough for programs that go through all of them when they start a child."""


def wanted_limit(soft: int, hard: int) -> int:
    """The soft limit to have: `WANTED` where the hard one allows it; never less than there is."""
    if soft == resource.RLIM_INFINITY:
        return soft
    most = WANTED if hard == resource.RLIM_INFINITY else min(WANTED, hard)
    return max(soft, most)


def allow_many() -> None:
    """Raises this process's limit, and with it that of the children it starts from now on."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if (wanted := wanted_limit(soft, hard)) != soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
