"""Follows a deploy to its end: bars for weights that are fetched and for engines that start, a line
for each new state."""

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from types import TracebackType
from typing import NoReturn, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from models.errors import (
    ConflictError,
    DeadlineError,
    ModelFailedError,
    UnavailableError,
    UnreachableError,
)
from serving.cli.client import AdminClient
from serving.protocol import EnginePhase, ModelState, StartPhase
from serving.views import Applied, EngineView, FetchView, ModelView

POLL_S = 0.25
NO_FETCH_S = 3.0
"""A model without any host that fetches for it after this long is not waited for."""
EVENTS = 20
"""Of a model that are looked through for why its revision went."""
AWAY_S = 15.0
"""For so long the platform may give no answer while one is waited for: its controller restarts."""
LINE_STEP = 0.1
"""Where there is no terminal, a line is printed for each further share of a fetch."""
STEPS = (
    StartPhase.BOUND, StartPhase.FORKED, StartPhase.WEIGHTS, StartPhase.ENGINE_READY,
    StartPhase.PROBED,
)  # fmt: skip
"""The phases that every start has, as the parts of its bar."""


class _Amount(ProgressColumn):
    """Of a fetch the bytes, their rate and the time that is left; of a start its phase."""

    def __init__(self) -> None:
        super().__init__()
        self._of_fetch = (
            DownloadColumn(binary_units=True),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )

    def render(self, task: Task) -> Text:
        if phase := task.fields.get("phase"):
            return Text(str(phase))
        return Text(" ").join(column.render(task) for column in self._of_fetch)


class Bars(AbstractContextManager["Bars"]):
    """One bar for each fetch and start; lines where the console is no terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            _Amount(),
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

    def start(self, engine: EngineView) -> None:
        """Which phase the start of an engine has reached."""
        marks = [mark for mark in engine.marks if mark.phase in STEPS]
        if not marks:
            return
        key, what = engine.engine_id, f"{engine.model} on {engine.host_id}"
        if not self._live:
            for step, mark in enumerate(marks, 1):
                if step > self._told.get(key, 0):
                    self._told[key] = step
                    self._console.print(f"{what}: {mark.phase} after {mark.at_s:.1f} s")
            return
        if key not in self._tasks:
            self._tasks[key] = self._progress.add_task(what, total=len(STEPS))
        phase = marks[-1].phase.value.replace("_", " ")
        self._progress.update(self._tasks[key], completed=len(marks), phase=phase)


@dataclass(slots=True)
class Follower:
    """Waits for models, all at once; every sentence goes to `console` once.

    Args:
        admin: The platform.
        console: For progress.
        timeout_s: For all models together.
        away_s: For so long the platform may give no answer.
    """

    admin: AdminClient
    console: Console
    timeout_s: float
    sleep: Callable[[float], None] = time.sleep
    away_s: float = AWAY_S
    _told: dict[str, str] = field(default_factory=dict)
    _heard_s: float = field(default_factory=time.monotonic)

    def wait(self, wanted: Sequence[Applied]) -> list[ModelView]:
        """Follows revisions to a good end: ready, or asleep with their weights at hand, or as a
        canary on its first share of the requests.

        Raises:
            ModelFailedError: If engines do not start, or weights cannot be fetched.
            ConflictError: If another revision was deployed meanwhile.
            DeadlineError: If it takes too long.
            UnavailableError: If the platform gives no answer for `away_s`.
        """
        began_s = time.monotonic()
        done: dict[str, ModelView] = {}
        with Bars(self.console) as bars:
            while True:
                for one in wanted:
                    if one.model not in done and (found := self._try(one, began_s, bars)):
                        done[one.model] = found
                if len(done) == len({one.model for one in wanted}):
                    return [done[one.model] for one in wanted]
                if time.monotonic() - began_s >= self.timeout_s:
                    late = next(one.model for one in wanted if one.model not in done)
                    raise DeadlineError(
                        f"{self._told.get(late, late)} after {self.timeout_s:.0f} s",
                        hint="it goes on; follow it with `penstock status`",
                    )
                self.sleep(POLL_S)

    def _try(self, wanted: Applied, began_s: float, bars: Bars) -> ModelView | None:
        """As `_look`, where the platform answers."""
        try:
            found = self._look(wanted, began_s, bars)
        except UnavailableError as exc:
            away = type(exc) in (UnavailableError, UnreachableError)  # and not a model's failure
            if not away or time.monotonic() - self._heard_s >= self.away_s:
                raise
            self._tell(wanted.model, str(exc))
            return None
        self._heard_s = time.monotonic()
        return found

    def _look(self, wanted: Applied, began_s: float, bars: Bars) -> ModelView | None:
        """The model where it is at its good end."""
        model = self.admin.model(wanted.model)
        for fetch in model.fetches:
            bars.show(f"{model.name} on {fetch.node}", fetch.done_bytes, fetch.total_bytes)
        if model.revision != wanted.revision:
            self._raise_replaced(model, wanted.revision)
        if model.state is ModelState.FAILED:
            _raise_failed(f"model {model.name} failed: {model.reason}", model.name)
        if model.state in (ModelState.READY, ModelState.DEGRADED) and self._is_rolled_out(model):
            return model
        if model.manifest.scaling.min == 0 and model.state is ModelState.ASLEEP:
            alone = not model.fetches and time.monotonic() - began_s >= NO_FETCH_S
            if not model.manifest.is_fetched or alone or _is_fetched(model.fetches):
                return model
            _raise_not_fetched(model)
        for engine in self.admin.engines():
            mine = (engine.model, engine.revision) == (model.name, model.revision)
            if mine and engine.phase is EnginePhase.STARTING:
                bars.start(engine)
        now = f"model {model.name} is {model.state}"
        now += f": {model.reason}" if model.reason else ""
        self._tell(model.name, now)
        return None

    def _is_rolled_out(self, model: ModelView) -> bool:
        """Whether what serves is the revision that was deployed, and not only one before it."""
        rollout = self.admin.rollout(model.name)
        if rollout.revision != model.revision:
            return False  # deployed anew since then: the next look tells
        if rollout.failed and not rollout.ready:
            _raise_failed(
                f"revision {rollout.revision} of {model.name} does not start, and the one before "
                f"it serves on: {rollout.reason}",
                model.name,
            )
        canary = rollout.canary
        if canary is not None and rollout.ready and canary.share:  # none while it gives way
            self._tell(
                model.name,
                f"model {model.name}: revision {rollout.revision} gets {canary.share:.0%} of the "
                f"requests, revision {canary.stable} the rest; `penstock rollout status "
                f"{model.name}` follows it",
            )
            return True
        return model.state is ModelState.READY and rollout.done

    def _tell(self, model: str, now: str) -> None:
        if now != self._told.get(model):
            self.console.print(now)
            self._told[model] = now

    def _raise_replaced(self, model: ModelView, wanted: int) -> None:
        """Another revision is the current one: the canary's gate, or somebody else, deployed it."""
        events = self.admin.events(EVENTS, model.name)
        mine = f"revision {wanted} gives way to "
        for event in reversed(events):
            if event.kind == "rollout_rolled_back" and event.message.startswith(mine):
                _raise_failed(f"model {model.name}: {event.message}", model.name)
        raise ConflictError(
            f"revision {model.revision} of {model.name} was deployed meanwhile, in place of "
            f"revision {wanted}",
            hint=f"`penstock rollout history {model.name}` says by whom",
        )


def _is_fetched(fetches: Sequence[FetchView]) -> bool:
    return bool(fetches) and all(fetch.done for fetch in fetches)


def _raise_failed(message: str, name: str) -> NoReturn:
    raise ModelFailedError(message, hint=f"`penstock logs {name}` shows its engine's log")


def _raise_not_fetched(model: ModelView) -> None:
    for fetch in model.fetches:
        if fetch.error is not None:
            raise ModelFailedError(
                f"the weights of {model.name} could not be fetched on {fetch.node}: {fetch.error}",
                hint="it is tried again by itself; `penstock describe` shows how far it is",
            )
