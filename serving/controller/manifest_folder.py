"""Deploys the manifests of a folder, and again when they change: how a chart's models come in.

A manifest that is taken out of the folder stays deployed: taking a model out of service is done on
purpose, with `penstock delete`, and never by a volume that is not mounted.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from models.errors import PenstockError
from models.manifest import load_manifest
from serving.controller.events import EventLog
from serving.controller.registry import Registry

INTERVAL_S = 5.0
"""Kubernetes itself takes about a minute to show a changed ConfigMap in a volume."""


class ManifestFolder:
    """Follows a folder of YAML files, one manifest each."""

    def __init__(
        self,
        folder: Path,
        registry: Registry,
        events: EventLog,
        changed: Callable[[str], None],
    ) -> None:
        """`changed` is told the name of a model that was deployed."""
        self._folder = folder
        self._registry = registry
        self._events = events
        self._changed = changed
        self._seen: dict[Path, bytes] = {}

    async def run(self) -> None:
        """Looks at the folder until it is cancelled."""
        while True:
            await self.check()
            await asyncio.sleep(INTERVAL_S)

    async def check(self) -> None:
        """Deploys what is new or has changed since the last look; what is refused is an event."""
        for path, content in await asyncio.to_thread(lambda: list(self._news())):
            try:
                await self._deploy(path)
            except PenstockError as exc:
                self._events.record("deploy_refused", f"{path.name}: {exc}")
                if exc.status >= 500:
                    continue  # the database is away: tried again at the next look
            self._seen[path] = content

    def _news(self) -> Iterator[tuple[Path, bytes]]:
        for path in sorted(self._folder.glob("*.yaml")):
            try:
                content = path.read_bytes()
            except OSError:  # replaced at this moment
                continue
            if self._seen.get(path) != content:
                yield path, content

    async def _deploy(self, path: Path) -> None:
        manifest = await asyncio.to_thread(load_manifest, path)
        result = await self._registry.apply(manifest, time.time(), author="the manifests' folder")
        if result.changed:
            message = f"revision {result.revision}: {manifest.source} (from {path.name})"
            self._events.record("deployed", message, model=manifest.name)
        self._changed(manifest.name)
