"""Builds an engine's app in a thread while the engine's core, in its own process, gets ready."""

import threading
from collections.abc import Callable, Coroutine
from typing import Generic, TypeVar

EngineT = TypeVar("EngineT")
AppT = TypeVar("AppT")


class Facade(Generic[EngineT, AppT]):
    """An app that is being built.

    To be begun after the core is forked, for a fork must not meet a second thread. The thread runs
    no event loop, so that nothing it builds can be tied to a loop that nobody runs.

    Args:
        build: Builds the app for an engine and its tasks; must not have to wait for anything.
    """

    def __init__(
        self, build: Callable[[EngineT, tuple[str, ...]], Coroutine[None, None, AppT]]
    ) -> None:
        self._build = build
        self._thread: threading.Thread | None = None
        self._apps: list[AppT] = []
        self._error: Exception | None = None

    @property
    def begun(self) -> bool:
        """Whether `begin` was called."""
        return self._thread is not None

    def begin(self, engine: EngineT, tasks: tuple[str, ...]) -> None:
        """Starts to build."""
        self._thread = threading.Thread(target=self._run, args=(engine, tasks), name="facade")
        self._thread.start()

    def app(self) -> AppT:
        """The app, as soon as it is built.

        Raises:
            RuntimeError: If it was not begun, or its building waits for something.
            Exception: Whatever it was that building raised.
        """
        if self._thread is not None:
            self._thread.join()
        if self._error is not None:
            raise self._error
        if not self._apps:
            raise RuntimeError("the app was not built: its building waits for something")
        return self._apps[0]

    def _run(self, engine: EngineT, tasks: tuple[str, ...]) -> None:
        building = self._build(engine, tasks)
        try:
            building.send(None)
        except StopIteration as done:
            self._apps.append(done.value)
        except Exception as exc:  # noqa: BLE001, it is raised where the app is asked for
            self._error = exc
        finally:
            building.close()
