"""A table whose every change makes a new version, and what changed in it after one."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from serving.controller.changes import Changes

ThingT = TypeVar("ThingT")


@dataclass(frozen=True, slots=True)
class Replaced:
    """What a new content of the table changed: keys."""

    changed: frozenset[str]
    """New ones too."""
    removed: frozenset[str]


@dataclass(frozen=True, slots=True)
class Delta(Generic[ThingT]):
    """What leads from an earlier version to this one."""

    version: int
    full: bool
    """All that there is: the earlier version is unknown, or too old."""
    things: tuple[ThingT, ...]
    removed: tuple[str, ...] = ()


class VersionedTable(Generic[ThingT]):
    """Things by their keys; for one event loop.

    Args:
        removals_kept: How many removed keys are remembered; who missed more of them gets all.
        version: The first one; by default above all that an earlier process gave out.
    """

    def __init__(self, removals_kept: int, version: int | None = None) -> None:
        self.changes = Changes(version)
        self._floor = self.changes.version
        self._removals_kept = removals_kept
        self._things: Mapping[str, ThingT] = {}
        self._changed: dict[str, int] = {}  # key -> version of its last change
        self._removed: dict[str, int] = {}  # oldest first

    def __contains__(self, key: str) -> bool:
        return key in self._things

    def __iter__(self) -> Iterator[ThingT]:
        return iter(self._things.values())

    def replace(self, new: Mapping[str, ThingT]) -> Replaced:
        """Takes a whole new content; where it is as before, the version stays."""
        changed = frozenset(key for key, thing in new.items() if self._things.get(key) != thing)
        removed = frozenset(self._things.keys() - new.keys())
        if not changed and not removed:
            return Replaced(changed, removed)
        self._things = new
        version = self.changes.version + 1
        for key in changed:
            self._changed[key] = version
            self._removed.pop(key, None)
        for key in removed:
            self._removed[key] = version
            del self._changed[key]
        while len(self._removed) > self._removals_kept:
            self._floor = self._removed.pop(next(iter(self._removed)))
        self.changes.bump()
        return Replaced(changed, removed)

    def since(self, after: int) -> Delta[ThingT]:
        """What changed after a version; everything where that version is unknown."""
        version = self.changes.version
        if not self._floor <= after <= version:
            return Delta(version, full=True, things=tuple(self))
        return Delta(
            version,
            full=False,
            things=tuple(t for key, t in self._things.items() if self._changed[key] > after),
            removed=tuple(key for key, at in self._removed.items() if at > after),
        )
