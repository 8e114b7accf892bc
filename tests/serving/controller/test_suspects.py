"""What gateways tell of trouble: engines that hang, and requests that engines died of."""

from serving.controller.demand import KILLED_TOLD_S, QUARANTINE_TOLD_S, Gateways
from serving.protocol import (
    DemandReport,
    EngineLoadReport,
    EnginePhase,
    QuarantinedRequest,
)
from tests.serving.controller.world import World

POISON = QuarantinedRequest(
    model="guide", fingerprint="f00d", request_id="req-1", engine_ids=("eng-1", "eng-2")
)


async def test_engine_that_hangs_is_taken_away_without_a_drain_and_replaced(world: World) -> None:
    first, second = world.host("host-1"), world.host("host-2")
    await world.deploy(scaling={"min": 1})
    world.run()
    host, other = (first, second) if first.assigned else (second, first)
    host.start()
    world.run()
    assert host.assigned is not None
    engine_id = host.assigned.engine_id
    world.loop.hear(DemandReport(gateway_id="gw-2", suspect=(engine_id,)))
    world.run()
    assert "engine_failed" in world.told
    seen = world.loop.fleet.find(host.host_id)
    assert seen is not None
    assert seen.engine is None or seen.engine.engine_id != engine_id
    assert seen.assignment.drain is False
    assert engine_id not in [one.engine_id for one in world.route().endpoints]
    world.run(30.0)
    assert other.assigned is not None


async def test_suspicion_of_an_engine_that_starts_or_is_unknown_means_nothing(
    world: World,
) -> None:
    host = world.host("host-1")
    await world.deploy(scaling={"min": 1})
    world.run()
    assert host.assigned is not None
    host.report(EnginePhase.STARTING)
    suspects = (host.assigned.engine_id, "eng-unknown")
    world.loop.hear(DemandReport(gateway_id="gw-2", suspect=suspects))
    world.run()
    assert host.assigned is not None
    assert host.assigned.engine_id == suspects[0]


async def test_quarantined_request_is_named_in_the_events(world: World) -> None:
    world.loop.hear(DemandReport(gateway_id="gw-1", quarantined=(POISON,)))
    assert "request_quarantined" in world.told
    assert world.loop.hear(DemandReport(gateway_id="gw-2")).quarantined == ("f00d",)


def test_other_gateways_are_told_of_a_quarantined_request_for_a_while() -> None:
    gateways = Gateways()
    gateways.hear(DemandReport(gateway_id="gw-1", quarantined=(POISON,)), 100.0)
    assert gateways.quarantined("gw-1") == ()
    assert gateways.quarantined("gw-2") == ("f00d",)
    gateways.hear(DemandReport(gateway_id="gw-2"), 100.0 + QUARANTINE_TOLD_S + 1)
    assert gateways.quarantined("gw-2") == ()


async def test_routes_tell_the_size_of_the_kv_cache_once_the_engine_does(world: World) -> None:
    host = world.host("host-1")
    await world.deploy(scaling={"min": 1})
    world.run()
    host.start()
    world.run()
    assert world.route().endpoints[0].kv_tokens == 0
    host.report(EnginePhase.READY, load=EngineLoadReport(kv_tokens=4096))
    world.run()
    assert world.route().endpoints[0].kv_tokens == 4096


async def test_gateways_are_told_of_an_engine_that_somebody_killed(world: World) -> None:
    host = world.host("host-1")
    await world.deploy(scaling={"min": 1})
    world.run()
    assert host.assigned is not None
    engine_id = host.assigned.engine_id
    host.start()
    assert world.loop.hear(DemandReport(gateway_id="gw-1")).killed == ()
    host.report(EnginePhase.FAILED, error="it was killed", killed=True)
    for gateway in ("gw-1", "gw-2"):
        assert world.loop.hear(DemandReport(gateway_id=gateway)).killed == (engine_id,)


def test_gateways_are_told_of_a_killed_engine_for_a_while() -> None:
    gateways = Gateways()
    gateways.note_killed("eng-1", 100.0)
    gateways.note_killed("eng-1", 100.0 + KILLED_TOLD_S)  # the host says it again
    assert gateways.killed(100.0 + KILLED_TOLD_S) == ("eng-1",)
    assert gateways.killed(101.0 + KILLED_TOLD_S) == ()
