"""Manifests from a folder."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from serving.controller.events import EventLog
from serving.controller.manifest_folder import ManifestFolder
from serving.controller.registry import Limits, Registry
from serving.controller.store import Store

MANIFEST = "name: {name}\nsource: builtin://guide\nscaling: {{max: {max}}}\n"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await Store.open(f"sqlite+aiosqlite:///{tmp_path / 'registry.db'}")
    yield opened
    await opened.close()


@pytest.fixture
async def registry(store: Store) -> Registry:
    return Registry(store, Limits({"cpu": 2}, memory_gib=8))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "models"
    made.mkdir()
    return made


def write(folder: Path, name: str, most: int = 1) -> None:
    (folder / f"{name}.yaml").write_text(MANIFEST.format(name=name, max=most))


async def test_folder_deploys_each_manifest(store: Store, registry: Registry, folder: Path) -> None:
    told: list[str] = []
    watcher = ManifestFolder(folder, registry, EventLog(store), told.append)
    write(folder, "a")
    write(folder, "b")
    await watcher.check()
    await watcher.check()
    assert [model.name for model in registry.models()] == ["a", "b"] == told


async def test_folder_deploys_a_changed_manifest_anew(
    store: Store, registry: Registry, folder: Path
) -> None:
    watcher = ManifestFolder(folder, registry, EventLog(store), lambda _name: None)
    write(folder, "a")
    await watcher.check()
    write(folder, "a", most=2)
    await watcher.check()
    assert registry.get("a").revision == 2
    assert registry.get("a").manifest.scaling.max == 2


async def test_folder_refuses_a_bad_manifest_once_and_goes_on(
    store: Store, registry: Registry, folder: Path
) -> None:
    events = EventLog(store)
    watcher = ManifestFolder(folder, registry, events, lambda _name: None)
    (folder / "a.yaml").write_text("name: a\nsorce: builtin://guide\n")
    write(folder, "b", most=99)
    write(folder, "c")
    await watcher.check()
    await watcher.check()
    await events.flush()
    assert [model.name for model in registry.models()] == ["c"]
    refused = [e.message for e in await store.events(100) if e.kind == "deploy_refused"]
    assert sorted(text.partition(":")[0] for text in refused) == ["a.yaml", "b.yaml"]


async def test_folder_leaves_a_model_whose_manifest_is_gone(
    store: Store, registry: Registry, folder: Path
) -> None:
    watcher = ManifestFolder(folder, registry, EventLog(store), lambda _name: None)
    write(folder, "a")
    await watcher.check()
    (folder / "a.yaml").unlink()
    await watcher.check()
    assert registry.find("a") is not None
