"""Starts a task at once: its coroutine runs up to its first wait before `start` returns.

A task's first step otherwise comes with the loop's next turn, behind all that has arrived
meanwhile. Python 3.12 can do it of its own; this is for 3.11.
"""

import asyncio
import contextvars
from collections.abc import Coroutine, Generator
from types import TracebackType
from typing import Any


class Begun(Coroutine[Any, Any, None]):
    """A coroutine whose first step is over: tells the loop what it waits for when it is asked."""

    __slots__ = ("_coroutine", "_error", "_first", "_is_told")

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine
        self._first: object = None
        self._error: BaseException | None = None
        self._is_told = False

    def begin(self) -> None:
        """Runs the first step; what it raises, the task raises."""
        try:
            self._first = self._coroutine.send(None)
        except BaseException as exc:  # noqa: BLE001, also StopIteration: it is over
            self._error = exc

    def send(self, value: Any) -> Any:
        """The next step; the first is told only."""
        if self._is_told:
            return self._coroutine.send(value)
        self._is_told = True
        if self._error is not None:
            raise self._error
        first, self._first = self._first, None
        return first

    def throw(
        self,
        kind: Any,
        error: BaseException | object = None,
        trace: TracebackType | None = None,
    ) -> Any:
        """An error in place of the next step; one that is over stays as it is."""
        if not self._is_told:
            self._is_told = True
            if self._error is not None:
                raise self._error
        if error is None and trace is None:
            return self._coroutine.throw(kind)
        return self._coroutine.throw(kind, error, trace)

    def close(self) -> None:
        """Gives it up."""
        self._coroutine.close()

    def __await__(self) -> Generator[Any, Any, None]:
        """Not for a task, which drives it by `send`."""
        return self._coroutine.__await__()


def start(
    loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, None]
) -> asyncio.Task[None]:
    """A task whose first step has been made; to be called from a callback, not from a task."""
    begun = Begun(coroutine)
    context = contextvars.copy_context()
    task = loop.create_task(begun, context=context)
    asyncio.tasks._enter_task(loop, task)
    try:
        context.run(begun.begin)
    finally:
        asyncio.tasks._leave_task(loop, task)
    return task
