"""Desired state: what is accepted, what counts as a change, what a restart finds again."""

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection

from models.errors import ManifestError, ModelNotFoundError, SourceError
from models.profile import with_profile
from serving.controller.database import DatabaseError
from serving.controller.registry import Limits, Registry, check
from serving.controller.store import Store
from tests.serving.controller.world import manifest

LIMITS = Limits({"cpu": 2, "h200x8": 1}, memory_gib=24.0)


async def test_registry_makes_a_revision_for_a_change_only(store: Store) -> None:
    registry = Registry(store, LIMITS)
    first = await registry.apply(manifest(), 1.0)
    assert (first.revision, first.changed, first.is_new) == (1, True, True)
    again = await registry.apply(manifest(), 2.0)
    assert (again.revision, again.changed, again.is_new) == (1, False, False)
    changed = await registry.apply(manifest(scaling={"max": 2}), 3.0)
    assert (changed.revision, changed.changed, changed.is_new) == (2, True, False)


async def test_registry_knows_which_revisions_have_the_same_engine(store: Store) -> None:
    registry = Registry(store, LIMITS)
    await registry.apply(manifest(), 1.0)
    await registry.apply(manifest(scaling={"max": 2}), 2.0)
    assert registry.get("guide").same_engine == {1, 2}
    await registry.apply(manifest(engine={"max_num_seqs": 8}), 3.0)
    assert registry.get("guide").same_engine == {3}
    await registry.apply(manifest(), 4.0)  # rolled back: the first engines will do
    assert registry.get("guide").same_engine == {1, 2, 4}


async def test_registry_finds_everything_again_after_a_restart(store: Store) -> None:
    registry = Registry(store, LIMITS)
    await registry.apply(manifest(), 1.0)
    await registry.apply(manifest("other"), 2.0)
    await registry.apply(manifest(engine={"dtype": "float32"}), 3.0)
    await registry.delete("other")
    again = Registry(store, LIMITS)
    await again.load()
    assert again.models() == registry.models()
    assert again.get("guide").manifest_of(1) == manifest()
    assert again.get("guide").manifest_of(9) is None


async def test_registry_changes_nothing_where_what_belongs_to_it_cannot_be_written(
    store: Store,
) -> None:
    async def fails(db: AsyncConnection) -> None:
        raise DatabaseError("gone amid the transaction")

    registry = Registry(store, LIMITS)
    with pytest.raises(DatabaseError):
        await registry.apply(manifest(), 1.0, note=fails)
    assert registry.models() == []
    assert await store.models() == []
    await registry.apply(manifest(), 2.0)
    with pytest.raises(DatabaseError):
        await registry.delete("guide", fails)
    assert [model.name for model in registry.models()] == ["guide"]
    assert [model.revision for model in await store.models()] == [1]


async def test_registry_deploys_a_deleted_model_as_new(store: Store) -> None:
    registry = Registry(store, LIMITS)
    await registry.apply(manifest(), 1.0)
    await registry.delete("guide")
    with pytest.raises(ModelNotFoundError):
        registry.get("guide")
    with pytest.raises(ModelNotFoundError):
        await registry.delete("guide")
    result = await registry.apply(manifest(), 5.0)
    assert (result.revision, result.changed, result.is_new) == (2, True, True)
    again = Registry(store, LIMITS)
    await again.load()
    assert again.get("guide").revision == 2
    assert again.get("guide").stored.created_at == 5.0


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"scaling": {"max": 3}}, "scaling.max"),
        ({"scaling": {"min": 3, "max": 3}}, "scaling.min"),
        ({"resources": {"memory_gib": 25}}, "resources.memory_gib"),
        ({"engine": {"kv_cache_gib": 25}}, "engine.kv_cache_gib"),
        ({"resources": {"accelerator": "h200", "gpus": 1}}, "resources.accelerator"),
    ],
)
def test_check_names_the_field_that_asks_for_too_much(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(ManifestError) as caught:
        check(manifest(**fields), LIMITS)
    assert caught.value.param == param


def test_check_refuses_an_unknown_built_in_model() -> None:
    with pytest.raises(SourceError):
        check(manifest(source="builtin://nothing"), LIMITS)


def test_check_leaves_a_gpu_hosts_memory_to_its_own_machine() -> None:
    resources = {"accelerator": "h200", "gpus": 8, "memory_gib": 1000}
    check(manifest(resources=resources), LIMITS)


async def test_registry_keeps_what_a_profile_may_set_unset(store: Store) -> None:
    """Else the field's default would win over the profile after a restart."""
    registry = Registry(store, LIMITS)
    tuned = manifest(profile="latency")
    await registry.apply(tuned, 1.0)
    assert not (await registry.apply(tuned, 2.0)).changed
    again = Registry(store, LIMITS)
    await again.load()
    for one in (registry, again):
        slots = with_profile(one.get("guide").manifest).engine.max_num_seqs
        assert slots == with_profile(tuned).engine.max_num_seqs != tuned.engine.max_num_seqs
    await again.apply(manifest(profile="throughput"), 3.0)
    assert again.get("guide").same_engine == {2}
