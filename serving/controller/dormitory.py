"""Engines that sleep on their hosts: which may, how deep, and which have to go. Pure.

A sleeper keeps its accelerators and costs them, though its host counts as free for the binder: it
gives way to any model that needs a host, and wakes for its own.
"""

from models.manifest import Manifest

LEVELS = {"stop": 0, "sleep-host": 1, "sleep-discard": 2}


def level_of(manifest: Manifest | None) -> int:
    """vLLM's level of sleep for an engine that is not needed; 0: it is stopped instead."""
    return 0 if manifest is None else LEVELS[manifest.scaling.idle]


def may_stay(
    manifest: Manifest | None, revision: int, current: int | None, same_engine: frozenset[int]
) -> bool:
    """Whether an engine of a revision may sleep on.

    Args:
        manifest: Of the model as it is deployed now.
        revision: The engine's.
        current: The model's; None of one that is not deployed any more.
        same_engine: Older revisions whose engine is the current one's.
    """
    return level_of(manifest) > 0 and (revision == current or revision in same_engine)
