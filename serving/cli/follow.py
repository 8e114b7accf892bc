"""Follows a deploy to its end: bars for weights that are fetched, a line for each new state."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from models.errors import DeadlineError, ModelFailedError
from models.manifest import Manifest
from serving.cli.client import AdminClient
from serving.protocol import ModelState
from serving.views import FetchView, ModelView

POLL_S = 0.25
NO_FETCH_S = 3.0
"""A model without any host that fetches for it after this long is not waited for."""
LINE_STEP = 0.1
"""Where there is no terminal, a line is printed for each further share of a fetch."""


class Bars(AbstractContextManager["Bars"]):
    """One bar for each thing that is fetched; lines where the console is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._told: dict[str, float] = {}

    def __enter__(self) -> Self:
        if self._live:
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._live:
            self._progress.stop()

    def show(self, what: str, done: int, total: int) -> None:
        """How far one thing is, in bytes; nothing is shown while its total is not known."""
        if total <= 0:
            return
        if not self._live:
            share = done / total
            if share - self._told.get(what, -1.0) >= LINE_STEP or (
                done == total and self._told.get(what) != 1.0
            ):
                self._told[what] = share
                self._console.print(
                    f"{what}: {done / 2**20:.1f} of {total / 2**20:.1f} MiB, {share:.0%}"
                )
            return
        if what not in self._tasks:
            self._tasks[what] = self._progress.add_task(what, total=total)
        self._progress.update(self._tasks[what], completed=done, total=total)


@dataclass(slots=True)
class Follower:
    """Waits for models; every sentence goes to `console` once.

    Args:
        admin: The platform.
        console: For progress.
        timeout_s: For all models together.
    """

    admin: AdminClient
    console: Console
    timeout_s: float
    sleep: Callable[[float], None] = time.sleep
    _told: dict[str, str] = field(default_factory=dict)

    def wait(self, manifests: Sequence[Manifest]) -> list[ModelView]:
        """Follows models to a good end: ready, or asleep with their weights at hand.

        Raises:
            ModelFailedError: If engines do not start, or weights cannot be fetched.
            DeadlineError: If it takes too long.
        """
        deadline_s = time.monotonic() + self.timeout_s
        with Bars(self.console) as bars:
            return [self._wait(manifest, deadline_s, bars) for manifest in manifests]

    def _wait(self, manifest: Manifest, deadline_s: float, bars: Bars) -> ModelView:
        began_s = time.monotonic()
        while True:
            model = self.admin.model(manifest.name)
            for fetch in model.fetches:
                bars.show(f"{model.name} on {fetch.node}", fetch.done_bytes, fetch.total_bytes)
            if model.state is ModelState.FAILED:
                raise ModelFailedError(
                    f"model {model.name} failed: {model.reason}",
                    hint=f"`penstock logs {model.name}` shows its engine's log",
                )
            if model.state is ModelState.READY:
                return model
            if manifest.scaling.min == 0 and model.state is ModelState.ASLEEP:
                alone = not model.fetches and time.monotonic() - began_s >= NO_FETCH_S
                if not model.manifest.is_fetched or alone or _is_fetched(model.fetches):
                    return model
                _raise_failed(model)
            now = f"model {model.name} is {model.state}"
            now += f": {model.reason}" if model.reason else ""
            if now != self._told.get(model.name):
                self.console.print(now)
                self._told[model.name] = now
            if time.monotonic() >= deadline_s:
                raise DeadlineError(
                    f"{now} after {self.timeout_s:.0f} s",
                    hint="it goes on; follow it with `penstock status`",
                )
            self.sleep(POLL_S)


def _is_fetched(fetches: Sequence[FetchView]) -> bool:
    return bool(fetches) and all(fetch.done for fetch in fetches)


def _raise_failed(model: ModelView) -> None:
    for fetch in model.fetches:
        if fetch.error is not None:
            raise ModelFailedError(
                f"the weights of {model.name} could not be fetched on {fetch.node}: {fetch.error}",
                hint="it is tried again by itself; `penstock describe` shows how far it is",
            )
