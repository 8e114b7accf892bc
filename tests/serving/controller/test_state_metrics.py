"""How things stand, as Prometheus sees it."""

import time

from prometheus_client import CollectorRegistry

from serving.controller.state_metrics import StateMetrics
from serving.identities import KeyRecord, Role
from serving.protocol import GpuReport, ModelState
from tests.serving.controller.world import World


def key(key_id: str, role: Role, expires_at: float | None) -> KeyRecord:
    return KeyRecord(
        key_id=key_id, name=key_id, role=role, prefix="p", salt="s", digest="d",
        expires_at=expires_at,
    )  # fmt: skip


async def test_a_model_without_a_host_is_unschedulable(world: World) -> None:
    await world.deploy()
    world.ask(queued=1)
    world.run()
    registry = CollectorRegistry()
    states = StateMetrics(registry)
    standing = world.loop.standing("guide").state
    states.read_models(world.loop.fleet, {"guide": standing}, world.loop.targets.lasts())
    value = registry.get_sample_value
    assert value("penstock_engines_unschedulable", {"model": "guide"}) == 1
    assert value("penstock_model_state", {"model": "guide", "state": "waking"}) == 1


async def test_only_the_present_state_and_reason_stand(world: World) -> None:
    registry = CollectorRegistry()
    states = StateMetrics(registry)
    states.read_models(world.loop.fleet, {"guide": ModelState.READY}, {})
    states.read_models(world.loop.fleet, {"guide": ModelState.FAILED}, {})
    value = registry.get_sample_value
    assert value("penstock_model_state", {"model": "guide", "state": "ready"}) is None
    assert value("penstock_model_state", {"model": "guide", "state": "failed"}) == 1


async def test_accelerators_are_free_or_bound(world: World) -> None:
    world.host("h1")
    world.host("h2")
    await world.deploy()
    world.ask(queued=1)
    world.run()
    registry = CollectorRegistry()
    StateMetrics(registry).read_hosts(world.loop.fleet, ["cpu", "h200x1"])
    value = registry.get_sample_value
    assert value("penstock_accelerators", {"pool": "cpu", "state": "bound"}) == 1
    assert value("penstock_accelerators", {"pool": "cpu", "state": "free"}) == 1
    assert value("penstock_accelerators", {"pool": "h200x1", "state": "free"}) == 0


async def test_gpus_are_told_by_host_as_far_as_their_driver_tells(world: World) -> None:
    world.host("h1")
    world.host("h2")
    hosts = {host.host_id: host for host in world.loop.fleet}
    telling = GpuReport(
        gpu="3", memory_used_bytes=5, memory_total_bytes=9, utilisation=0.5, power_w=700.0
    )
    hosts["h1"].gpus = (telling, GpuReport(gpu="4", memory_used_bytes=1, memory_total_bytes=9))
    registry = CollectorRegistry()
    states = StateMetrics(registry)
    states.read_gpus(world.loop.fleet)
    value, first = registry.get_sample_value, {"pool": "cpu", "host": "h1", "gpu": "3"}
    assert value("penstock_gpu_utilization_ratio", first) == 0.5
    assert value("penstock_gpu_memory_used_bytes", first) == 5
    assert value("penstock_gpu_memory_total_bytes", first) == 9
    assert value("penstock_gpu_power_watts", first) == 700.0
    assert value("penstock_gpu_power_watts", first | {"gpu": "4"}) is None
    assert value("penstock_gpu_memory_used_bytes", first | {"gpu": "4"}) == 1
    hosts["h1"].gpus = ()
    states.read_gpus(world.loop.fleet)
    assert value("penstock_gpu_memory_used_bytes", first) is None


def test_the_next_end_of_a_key_is_told_for_each_role() -> None:
    registry = CollectorRegistry()
    now = time.time()
    keys = [
        key("a", Role.INFERENCE, now + 1000),
        key("b", Role.INFERENCE, now + 500),
        key("c", Role.INFERENCE, now - 500),
        key("d", Role.ADMIN, None),
    ]
    StateMetrics(registry).read_keys(keys)
    value = registry.get_sample_value
    assert value("penstock_key_expiry_timestamp_seconds", {"role": "inference"}) == now + 500
    assert value("penstock_key_expiry_timestamp_seconds", {"role": "admin"}) is None
