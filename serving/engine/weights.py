"""A host's weights: its node's cache, what it fetches for a start, and what it fetches beforehand.

Fetches block, so they run in threads; this module is the event loop's side of `models.sources`.
"""

import asyncio
import contextlib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from models import sources
from models.adapters_spec import served_name
from models.cache import NodeCache
from models.cache_progress import Progress
from models.errors import PenstockError
from models.manifest import AdapterSpec, Manifest
from models.pins import is_pinned
from models.secrets import Secrets
from models.sources import Access, Have
from serving import logs
from serving.background import cancel, set_within
from serving.protocol import FetchReport

PREFETCH_RETRY_S = 30.0
"""Between two tries to fetch beforehand what could not be fetched."""

_log = logs.get_logger("penstock.host")


class Weights(Protocol):
    """What makes a model's weights a folder of this node."""

    async def have(self, manifest: Manifest) -> Have:
        """The model's folder, fetched where it has to be; in use until it is released.

        Raises:
            PenstockError: If it cannot be had; in a sentence for the operator.
        """
        ...

    async def have_adapter(self, manifest: Manifest, adapter: AdapterSpec) -> Have:
        """A LoRA adapter's folder of the node cache; in use until it is released.

        Raises:
            PenstockError: If it cannot be had; in a sentence for the operator.
        """
        ...

    def want(self, manifests: tuple[Manifest, ...]) -> None:
        """Has these models' weights fetched in the background, and no others."""
        ...

    def fetches(self) -> tuple[FetchReport, ...]:
        """How far each fetch is."""
        ...

    async def close(self) -> None:
        """Gives all fetches up; what came in is kept."""
        ...


@dataclass(slots=True)
class _Fetch:
    model: str
    source: str
    progress: Progress = field(default_factory=Progress)
    done: bool = False
    error: str | None = None


class NodeWeights:
    """The weights of one node, as one of its hosts uses them.

    Args:
        cache: The node's cache, shared with the other hosts.
        secrets: Of this host.
    """

    def __init__(self, cache: NodeCache, secrets: Secrets) -> None:
        self._cache = cache
        self._secrets = secrets
        self._wanted: tuple[Manifest, ...] = ()
        self._starting: dict[str, _Fetch] = {}
        self._prefetched: dict[str, _Fetch] = {}
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def have(self, manifest: Manifest) -> Have:
        """See Weights."""
        access = self._access(manifest)
        if not sources.is_fetched(manifest.source, access):
            have = await asyncio.to_thread(sources.have, manifest.source, access, self._cache)
        else:
            fetch = _Fetch(manifest.name, manifest.source)
            self._starting[manifest.name] = fetch
            try:
                have = await self._in_thread(fetch, access)
            finally:
                del self._starting[manifest.name]
        # Nobody waits for it: the engine's own reading only finds less left to do.
        asyncio.get_running_loop().run_in_executor(None, _try_to_read_ahead, have.folder)
        return have

    async def have_adapter(self, manifest: Manifest, adapter: AdapterSpec) -> Have:
        """See Weights. Local folders are copied too: vLLM may read an adapter again at any time,
        and an engine dies where its files are gone or changed by then."""
        access = replace(self._access(manifest), adapter=True, copy=True, sha256=None)
        name = served_name(manifest.name, adapter.name)
        fetch = _Fetch(name, adapter.source)
        self._starting[name] = fetch
        try:
            return await self._in_thread(fetch, access)
        finally:
            self._starting.pop(name, None)

    def want(self, manifests: tuple[Manifest, ...]) -> None:
        """See Weights."""
        fetched = tuple(manifest for manifest in manifests if manifest.is_fetched)
        if fetched == self._wanted:
            return
        self._wanted = fetched
        sources_now = {manifest.source for manifest in fetched}
        for name, fetch in list(self._prefetched.items()):
            if fetch.source not in sources_now:
                fetch.progress.stop.set()
                del self._prefetched[name]
        self._news.set()
        if self._task is None:
            self._task = asyncio.create_task(self._prefetch_forever(), name="prefetch")

    def fetches(self) -> tuple[FetchReport, ...]:
        """See Weights; one for each model, that of a start before one beforehand."""
        return tuple(
            FetchReport(
                model=fetch.model,
                source=fetch.source,
                done_bytes=fetch.progress.done,
                total_bytes=fetch.progress.total,
                done=fetch.done,
                error=fetch.error,
            )
            for fetch in (self._prefetched | self._starting).values()
        )

    async def close(self) -> None:
        """See Weights."""
        for fetch in (*self._starting.values(), *self._prefetched.values()):
            fetch.progress.stop.set()
        task, self._task = self._task, None
        await cancel(task)

    async def _prefetch_forever(self) -> None:
        while True:
            self._news.clear()
            for manifest in self._wanted:  # one after the other: a start may need the network too
                if manifest in self._wanted and not self._is_done(manifest):
                    await self._prefetch(manifest)
            left = not all(self._is_done(manifest) for manifest in self._wanted)
            await set_within(self._news, PREFETCH_RETRY_S if left else None)

    def _is_done(self, manifest: Manifest) -> bool:
        fetch = self._prefetched.get(manifest.name)
        return fetch is not None and fetch.source == manifest.source and fetch.done

    async def _prefetch(self, manifest: Manifest) -> None:
        fetch = _Fetch(manifest.name, manifest.source)
        self._prefetched[manifest.name] = fetch
        try:
            have = await self._in_thread(fetch, self._access(manifest), keep=self._keys())
        except PenstockError as exc:
            fetch.error = str(exc)
            _log.warning("prefetch_failed", model=manifest.name, error=str(exc), hint=exc.hint)
        except OSError as exc:
            fetch.error = "the node's cache cannot be written"
            _log.error("prefetch_failed", model=manifest.name, exc_info=exc)
        else:
            have.release()
            fetch.done = True
            _log.info("prefetched", model=manifest.name, bytes=fetch.progress.fetched)

    async def _in_thread(
        self, fetch: _Fetch, access: Access, keep: frozenset[str] = frozenset()
    ) -> Have:
        """Fetches in a thread; one whose caller goes away gives up, and keeps no lease."""
        work = asyncio.get_running_loop().run_in_executor(
            None, sources.have, fetch.source, access, self._cache, fetch.progress, keep
        )
        try:
            return await asyncio.shield(work)
        except asyncio.CancelledError:
            fetch.progress.stop.set()
            work.add_done_callback(_release)
            raise

    def _keys(self) -> frozenset[str]:
        """Of all models that are fetched beforehand: one must not push another out."""
        return frozenset(
            m.weights.key(m.source, code=m.engine.trust_remote_code)
            for m in self._wanted
            if is_pinned(m.source)
        )

    def _access(self, manifest: Manifest) -> Access:
        return manifest.weights.access(self._secrets, code=manifest.engine.trust_remote_code)


def read_ahead(folder: Path) -> int:
    """Has the kernel read weights into the page cache while the engine starts; returns their bytes.

    Costs next to nothing where they are there already (docs/concepts/weights.md has the figures).
    """
    total = 0
    for path in folder.glob("*.safetensors"):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            total += os.fstat(descriptor).st_size
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_WILLNEED)
        finally:
            os.close(descriptor)
    return total


def _try_to_read_ahead(folder: Path) -> None:
    with contextlib.suppress(OSError):
        read_ahead(folder)


def _release(work: "asyncio.Future[Have]") -> None:
    if not work.cancelled() and work.exception() is None:
        work.result().release()
