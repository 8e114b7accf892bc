"""A table whose every change makes a version."""

from serving.controller.versioned import Delta, Replaced, VersionedTable


def test_table_tells_what_was_replaced() -> None:
    table: VersionedTable[int] = VersionedTable(10, version=1)
    assert table.replace({"a": 1, "b": 1}) == Replaced(frozenset("ab"), frozenset())
    assert table.replace({"b": 2, "c": 1}) == Replaced(frozenset("bc"), frozenset("a"))
    assert (list(table), "a" in table, "c" in table) == ([2, 1], False, True)
    assert table.since(2) == Delta(3, full=False, things=(2, 1), removed=("a",))


def test_table_forgets_the_oldest_removals_first() -> None:
    table: VersionedTable[int] = VersionedTable(2, version=0)
    for left in ("abc", "bc", "c", ""):  # versions 1 to 4
        table.replace(dict.fromkeys(left, 0))
    assert table.since(1) == Delta(4, full=True, things=()), "that a was removed is forgotten"
    assert table.since(2).removed == ("b", "c")


def test_table_forgets_the_removal_of_what_came_back() -> None:
    table: VersionedTable[int] = VersionedTable(2, version=0)
    for left in ("ab", "b", "ab", "b", "ab"):
        table.replace(dict.fromkeys(left, 0))
    assert table.since(1) == Delta(5, full=False, things=(0,))
