"""Which memory is put onto huge pages."""

from serving.gateway.pages import PAGE_BYTES, collapse_heap, whole_pages

MAPS = """\
55d5a0200000-55d5a0400000 r-xp 00001000 fe:00 123                        /usr/bin/python3.11
55d5a1000000-55d5a1800000 rw-p 00000000 00:00 0                          [heap]
7f0000100000-7f0000500000 rw-p 00000000 00:00 0
7f0001000000-7f0001100000 rw-p 00000000 00:00 0
7f0002000000-7f0002400000 rw-p 00000000 fe:00 99                         /usr/lib/some.so
7f0003000000-7f0003400000 ---p 00000000 00:00 0
7ffd00000000-7ffd00400000 rw-p 00000000 00:00 0                          [stack]
"""


def test_only_whole_pages_of_the_processes_own_data_are_joined() -> None:
    heap = [0x55D5A1000000 + at * PAGE_BYTES for at in range(4)]
    assert list(whole_pages(MAPS)) == [*heap, 0x7F0000200000]


def test_data_stays_what_it_is() -> None:
    much = [bytes([number % 256]) * 4096 for number in range(2000)]
    joined = collapse_heap()
    assert joined % PAGE_BYTES == 0
    assert all(part == bytes([number % 256]) * 4096 for number, part in enumerate(much))
