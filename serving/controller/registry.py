"""What shall be: the deployed models and their revisions, in memory and in the store.

Knows nothing of hosts and engines. Reads are synchronous, from memory; writes go to the store
first.
"""

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from models.errors import ConflictError, ManifestError, ModelNotFoundError
from models.manifest import Manifest
from models.sources import check_local
from models.tasks import Task
from serving.controller.store import Note, Store, StoredModel, StoredRevision

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Limits:
    """What this platform can give at most."""

    pools: Mapping[str, int]
    """Hosts of each pool."""
    memory_gib: float
    """Memory of the machine that has the cpu pool."""


@dataclass(frozen=True, slots=True)
class DeployedModel:
    """A model with all its revisions."""

    stored: StoredModel
    alike: Mapping[int, frozenset[int]]
    """For each revision those that differ from it in scaling or rollout only, or not at all."""

    @property
    def name(self) -> str:
        """The name that tenants call."""
        return self.stored.name

    @property
    def revision(self) -> int:
        """The current revision."""
        return self.stored.revision

    @property
    def manifest(self) -> Manifest:
        """The current manifest."""
        return self.stored.revisions[-1].manifest

    @property
    def same_engine(self) -> frozenset[int]:
        """Revisions whose engine is the current one's."""
        return self.same_as(self.revision)

    def has_engine_of(self, revision: int) -> bool:
        """Whether an engine of that revision is one of the current revision."""
        return revision in self.same_engine

    def same_as(self, revision: int) -> frozenset[int]:
        """All revisions that give the same engine as that one."""
        return self.alike.get(revision, frozenset())

    def manifest_of(self, revision: int) -> Manifest | None:
        """The manifest of a revision, None if there is no such revision."""
        for stored in self.stored.revisions:
            if stored.revision == revision:
                return stored.manifest
        return None

    def hosts_of(self, revision: int) -> int:
        """Hosts that one engine of a revision needs."""
        manifest = self.manifest_of(revision) or self.manifest
        return manifest.resources.hosts

    @classmethod
    def of(cls, stored: StoredModel) -> Self:
        """Compares the revisions' engines once, and not at each plan."""
        groups: defaultdict[str, set[int]] = defaultdict(set)
        for one in stored.revisions:
            groups[engine_digest(one.manifest)].add(one.revision)
        return cls(stored, {r: frozenset(same) for same in groups.values() for r in same})


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """What a deploy did."""

    revision: int
    changed: bool
    is_new: bool
    """The model was not deployed before."""


def engine_digest(manifest: Manifest) -> str:
    """Equal for manifests that give the same engine; scaling is not part of it."""
    parts = {"name", "source", "weights", "profile", "engine", "resources"}
    text = manifest.model_dump_json(include=parts)
    if manifest.task in (Task.EMBED, Task.CLASSIFY) and "runner" not in manifest.engine.args:
        text += "pooling"  # what else it is for takes no argument
    return hashlib.sha256(text.encode()).hexdigest()


def check(manifest: Manifest, limits: Limits) -> None:
    """Refuses what this platform can never run.

    Raises:
        SourceError: If a built-in model is unknown.
        ManifestError: Naming the field that asks for too much.
    """
    check_local(manifest.source)
    pool = manifest.resources.pool
    hosts = limits.pools.get(pool)
    if hosts is None:
        shapes = ", ".join(sorted(limits.pools)) or "none"
        raise ManifestError(
            f"resources.accelerator: there is no pool {pool}; this platform has: {shapes}",
            param="resources.accelerator",
            hint="PENSTOCK_POOLS names the pools and their hosts",
        )
    for field, engines in (("min", manifest.scaling.min), ("max", manifest.scaling.most)):
        size = manifest.resources.hosts
        needed = "as many" if size == 1 else f"{engines * size}"
        if engines * size > hosts:
            raise ManifestError(
                f"scaling.{field}: {engines} engines need {needed} hosts, "
                f"but pool {pool} has {hosts}",
                param=f"scaling.{field}",
            )
    if pool == "cpu":
        asked = (
            ("resources.memory_gib", manifest.resources.memory_gib),
            ("engine.kv_cache_gib", manifest.engine.kv_cache_gib),
        )
        for name, gib in asked:
            if gib is not None and gib > limits.memory_gib:
                raise ManifestError(
                    f"{name}: {gib:g} GiB are more than the {limits.memory_gib:.1f} GiB "
                    "that the machine has",
                    param=name,
                )


class Registry:
    """The deployed models; one writer at a time."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        self._models: dict[str, DeployedModel] = {}
        self._writing = asyncio.Lock()

    @property
    def memory_gib(self) -> float:
        """Memory of the machine that has the cpu pool."""
        return self._limits.memory_gib

    async def load(self) -> None:
        """Reads everything from the store, once, at the start."""
        self._models = {m.name: DeployedModel.of(m) for m in await self._store.models()}

    def models(self) -> list[DeployedModel]:
        """All deployed models, by name."""
        return [self._models[name] for name in sorted(self._models)]

    def find(self, name: str) -> DeployedModel | None:
        """A deployed model, or None."""
        return self._models.get(name)

    def get(self, name: str) -> DeployedModel:
        """A deployed model.

        Raises:
            ModelNotFoundError: If it is not deployed.
        """
        try:
            return self._models[name]
        except KeyError:
            raise ModelNotFoundError(f"the model {name!r} is not deployed", param="model") from None

    def check(self, manifest: Manifest) -> None:
        """Refuses what this platform can never run; see the function of that name."""
        check(manifest, self._limits)

    async def apply(
        self,
        manifest: Manifest,
        at: float,
        if_revision: int | None = None,
        author: str = "",
        note: Note | None = None,
    ) -> ApplyResult:
        """Makes the manifest the model's current revision, unless it is that already.

        Args:
            manifest: The model.
            at: Now, in Unix seconds.
            if_revision: The revision that the caller has seen; 0 for none.
            author: Who wants it, as the history shows it.
            note: Written in the same transaction, where there is a change.

        Raises:
            SourceError, ManifestError: As `check` does.
            ConflictError: If another revision was deployed since the caller looked.
            DatabaseError: If the registry cannot be written; nothing has changed then.
        """
        check(manifest, self._limits)
        async with self._writing:
            known = self._models.get(manifest.name)
            current = 0 if known is None else known.revision
            if if_revision is not None and if_revision != current:
                raise ConflictError(
                    f"{manifest.name} was deployed by somebody else meanwhile: revision {current}",
                    param="if_revision",
                    hint=f"`penstock describe {manifest.name}` shows what; then deploy again",
                )
            if known is not None and known.manifest == manifest:
                return ApplyResult(known.revision, changed=False, is_new=False)
            number = await self._store.add_revision(manifest, at, author, note)
            created_at = at if known is None else known.stored.created_at
            earlier = () if known is None else known.stored.revisions
            added = StoredRevision(manifest.name, number, at, manifest, author)
            self._models[manifest.name] = DeployedModel.of(
                StoredModel(manifest.name, created_at, number, (*earlier, added))
            )
            return ApplyResult(number, changed=True, is_new=known is None)

    async def delete(self, name: str, note: Note | None = None) -> None:
        """Takes the model out of service; its revisions stay in the store.

        Args:
            name: The model.
            note: Written in the same transaction.

        Raises:
            ModelNotFoundError: If it is not deployed.
            DatabaseError: If the registry cannot be written; nothing has changed then.
        """
        async with self._writing:
            self.get(name)
            await self._store.delete_model(name, note)
            del self._models[name]
