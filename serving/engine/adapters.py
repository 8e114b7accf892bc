"""Keeps an engine's LoRA adapters as they are wanted: fetches, checks, loads and unloads them.

An adapter that cannot be served costs the engine nothing: the fault is reported, and tried again.
Requests are kept from an adapter before it is unloaded or takes another source's weights: what is
reported as loaded here is what gateways send requests for.
"""

import asyncio
import contextlib
import time
from pathlib import Path
from typing import Protocol

from models.adapters import check_adapter
from models.adapters_spec import LoraSpec, served_name
from models.errors import PenstockError
from models.manifest import AdapterSpec, Manifest
from models.sources import Have
from serving import logs
from serving.background import cancel
from serving.engine.weights import Weights
from serving.protocol import AdapterReport

RETRY_S = 30.0
"""Between two tries with an adapter that could not be loaded."""

WITHDRAW_S = 1.0
"""From the report that an adapter goes until it does: gateways know it by then."""

_log = logs.get_logger("penstock.host")


class AdapterPort(Protocol):
    """What loads adapters into a running engine."""

    async def load_adapter(self, name: str, folder: Path) -> None:
        """Has the engine serve an adapter under a name.

        Raises:
            UpstreamError: If it does not.
        """
        ...

    async def unload_adapter(self, name: str) -> None:
        """Has the engine forget an adapter.

        Raises:
            UpstreamError: If it does not.
        """
        ...


class AdapterKeeper:
    """The adapters of one engine, from its assignment to its end.

    Args:
        manifest: The engine's.
        weights: Has adapters on this node.
        withdraw_s: See WITHDRAW_S.
        retry_s: See RETRY_S.
    """

    def __init__(
        self,
        manifest: Manifest,
        weights: Weights,
        withdraw_s: float = WITHDRAW_S,
        retry_s: float = RETRY_S,
    ) -> None:
        self._manifest = manifest
        self._weights = weights
        self._withdraw_s, self._retry_s = withdraw_s, retry_s
        self._wanted: dict[str, AdapterSpec] = {}
        self._fetches: dict[AdapterSpec, asyncio.Task[Have]] = {}
        self._loaded: dict[str, AdapterSpec] = {}
        self._faults: dict[AdapterSpec, PenstockError] = {}
        self._retry_at_s: dict[AdapterSpec, float] = {}
        self._turn = asyncio.Event()
        self.changed = asyncio.Event()
        """Set whenever `reports` has changed; for the caller to clear."""
        self.settled = asyncio.Event()
        """Each adapter that was wanted at first is loaded, or cannot be."""

    @property
    def reports(self) -> tuple[AdapterReport, ...]:
        """What is loaded, and what could not be; those that are on their way are missing."""
        told = []
        for name, spec in sorted(self._wanted.items()):
            here, fault = self._loaded.get(name), self._faults.get(spec)
            if here is not None or fault is not None:
                told.append(
                    AdapterReport(
                        name=name,
                        source="" if here is None else here.source,
                        error=None if fault is None else str(fault),
                        hint=None if fault is None else fault.hint,
                    )
                )
        return tuple(told)

    def want(self, specs: tuple[AdapterSpec, ...]) -> None:
        """Has these adapters loaded, and no others; their files are fetched from now on."""
        wanted = {spec.name: spec for spec in specs}
        if wanted == self._wanted:
            return
        self._wanted = wanted
        for spec in self._fetches.keys() - set(specs):
            self._drop(spec)
        for spec in specs:
            self._fetch(spec)
        self._turn.set()

    async def run(self, port: AdapterPort, base: Path) -> None:
        """Keeps the engine's adapters in step until it is cancelled.

        Args:
            port: The engine.
            base: Its model's folder.
        """
        loading: dict[AdapterSpec, asyncio.Task[None]] = {}
        try:
            while True:
                self._turn.clear()
                await self._unload(port, loading)
                for spec in self._due(loading):
                    loading[spec] = asyncio.create_task(self._load(port, base, spec))
                if not loading:
                    self.settled.set()
                await self._wait(loading)
                for spec in [spec for spec, task in loading.items() if task.done()]:
                    loading.pop(spec).result()
        finally:
            await cancel(*loading.values())

    async def close(self) -> None:
        """Gives all files back: the engine is gone."""
        tasks = list(self._fetches.values())
        for spec in list(self._fetches):
            self._drop(spec)
        await asyncio.gather(*tasks, return_exceptions=True)

    def _due(self, loading: dict[AdapterSpec, asyncio.Task[None]]) -> list[AdapterSpec]:
        now_s = time.monotonic()
        return [
            spec
            for name, spec in self._wanted.items()
            if self._loaded.get(name) != spec
            and spec not in loading
            and self._retry_at_s.get(spec, 0.0) <= now_s
        ]

    async def _wait(self, loading: dict[AdapterSpec, asyncio.Task[None]]) -> None:
        """Until something else is wanted, an adapter is loaded, or one may be tried again."""
        coming = [at_s for spec, at_s in self._retry_at_s.items() if spec in self._wanted.values()]
        timeout_s = max(0.01, min(coming) - time.monotonic()) if coming else None
        turn = asyncio.create_task(self._turn.wait())
        try:
            await asyncio.wait(
                {turn, *loading.values()}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            turn.cancel()

    async def _unload(
        self, port: AdapterPort, loading: dict[AdapterSpec, asyncio.Task[None]]
    ) -> None:
        """What is not wanted any more goes, once gateways know that."""
        for spec in [spec for spec in loading if self._wanted.get(spec.name) != spec]:
            await cancel(loading.pop(spec))
        for memory in (self._faults, self._retry_at_s):
            for spec in [spec for spec in memory if self._wanted.get(spec.name) != spec]:
                del memory[spec]
        gone = [name for name in self._loaded if name not in self._wanted]
        if gone:
            self.changed.set()
            await asyncio.sleep(self._withdraw_s)
        for name in gone:
            if name not in self._wanted:
                await self._forget(port, name)

    async def _load(self, port: AdapterPort, base: Path, spec: AdapterSpec) -> None:
        lora = self._manifest.engine.lora or LoraSpec()
        self._retry_at_s.pop(spec, None)
        try:
            have = await asyncio.shield(self._fetch(spec))
            await asyncio.to_thread(check_adapter, have.folder, base, lora.max_rank)
            if spec.name in self._loaded:  # of another source: it makes room first
                before = self._loaded.pop(spec.name)
                self.changed.set()
                await asyncio.sleep(self._withdraw_s)
                await self._forget(port, spec.name)
                self._drop(before)
            await port.load_adapter(served_name(self._manifest.name, spec.name), have.folder)
        except PenstockError as exc:
            self._failed(spec, exc)
        except OSError as exc:
            _log.error("adapter_failed", adapter=spec.name, exc_info=exc)
            self._failed(spec, PenstockError("the adapter's files cannot be read"))
        else:
            self._loaded[spec.name] = spec
            self._faults.pop(spec, None)
            _log.info("adapter_loaded", model=self._manifest.name, adapter=spec.name)
        self.changed.set()

    def _failed(self, spec: AdapterSpec, exc: PenstockError) -> None:
        if str(self._faults.get(spec)) != str(exc):
            _log.warning("adapter_failed", adapter=spec.name, error=str(exc), hint=exc.hint)
        self._faults[spec] = exc
        self._retry_at_s[spec] = time.monotonic() + self._retry_s
        self._drop(spec)

    async def _forget(self, port: AdapterPort, name: str) -> None:
        before = self._loaded.pop(name, None)
        with contextlib.suppress(PenstockError):  # the engine never had it, or is gone
            await port.unload_adapter(served_name(self._manifest.name, name))
        if before is not None and before not in self._wanted.values():
            self._drop(before)

    def _fetch(self, spec: AdapterSpec) -> "asyncio.Task[Have]":
        if (known := self._fetches.get(spec)) is not None:
            return known
        fetch = asyncio.create_task(self._weights.have_adapter(self._manifest, spec))
        fetch.add_done_callback(_heard)
        self._fetches[spec] = fetch
        return fetch

    def _drop(self, spec: AdapterSpec) -> None:
        """Gives an adapter's files back, or up."""
        task = self._fetches.pop(spec, None)
        if task is None:
            return
        if task.done():
            _release(task)
        else:
            task.cancel()
            task.add_done_callback(_release)


def _heard(task: "asyncio.Task[Have]") -> None:
    """Its failure is told by whoever waits for it; nobody need be warned where nobody does."""
    if not task.cancelled():
        task.exception()


def _release(task: "asyncio.Task[Have]") -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().release()
