"""What the control loop traces: starts that fail, hosts that came for a start, adopted starts."""

import pytest

from serving.protocol import EnginePhase, PhaseMark, StartPhase
from tests.serving.controller.world import World, engine_report, registration


async def test_loop_traces_a_start_that_failed_with_its_cause(world: World) -> None:
    host = world.host("h1")
    await world.deploy()
    world.ask(queued=1)
    world.run()
    forked = PhaseMark(phase=StartPhase.FORKED, at=world.moment.at + 0.1)
    world.turn(0.2)
    host.report(EnginePhase.FAILED, marks=(forked,), error="no weights", hint="look there")
    world.run()
    (trace,) = world.loop.traces.of("guide")
    assert trace.start_id == "req-guide"
    assert (trace.error, trace.hint) == ("no weights", "look there")
    assert [p for p, _ in trace.ordered()] == ["demand_seen", "decided", "bound", "forked"]
    assert trace.failed_at == pytest.approx(trace.marks[StartPhase.FORKED] + 0.1)


async def test_loop_traces_a_start_that_went_with_its_host(world: World) -> None:
    host = world.host("h1")
    await world.deploy()
    world.ask(queued=1)
    world.run()
    world.kill(host)
    world.run(seconds=6.0)
    (trace,) = world.loop.traces.of("guide")
    assert trace.error == "its host died while it started"


async def test_loop_marks_a_host_that_came_after_the_decision(world: World) -> None:
    await world.deploy()
    world.ask(queued=1)
    world.run(seconds=1.0)
    host = world.host("h1")
    world.run()
    host.start()
    world.run()
    (trace,) = world.loop.traces.of("guide")
    phases = [phase for phase, _ in trace.ordered()]
    assert phases[:4] == ["demand_seen", "decided", "host_started", "bound"]
    assert trace.marks[StartPhase.HOST_STARTED] >= trace.marks[StartPhase.DECIDED] + 1.0


@pytest.mark.parametrize(
    ("age_s", "phases"),
    [
        (0.4, ["demand_seen", "decided", "node_started", "host_started", "bound"]),
        (3600.0, ["demand_seen", "decided", "host_started", "bound"]),
        (None, ["demand_seen", "decided", "host_started", "bound"]),
    ],
)
async def test_loop_marks_a_node_that_ray_added_for_the_start(
    world: World, age_s: float | None, phases: list[str]
) -> None:
    await world.deploy()
    world.ask(queued=1)
    world.run(seconds=1.0)
    asked_at = world.moment.at - 1.0
    host = world.host("h1", node_age_s=age_s)
    world.run()
    host.start()
    world.run()
    (trace,) = world.loop.traces.of("guide")
    told = trace.ordered()
    assert [phase for phase, _ in told[: len(phases)]] == phases
    ends = [at for _, at in told]
    assert ends == sorted(ends)
    if age_s == 0.4:
        assert trace.marks[StartPhase.NODE_STARTED] == pytest.approx(asked_at + 0.6, abs=0.05)


async def test_loop_marks_no_node_where_the_host_was_there(world: World) -> None:
    host = world.host("h1", node_age_s=0.0)
    await world.deploy()
    world.ask(queued=1)
    world.run()
    host.start()
    world.run()
    (trace,) = world.loop.traces.of("guide")
    assert not {StartPhase.NODE_STARTED, StartPhase.HOST_STARTED} & trace.marks.keys()


async def test_loop_adopts_a_start_under_its_own_id(world: World) -> None:
    host = world.host("h1")
    await world.deploy()
    world.ask(queued=1)
    world.run()
    assigned = host.assigned
    assert assigned is not None
    running = engine_report(assigned, EnginePhase.STARTING, start_id=assigned.start_id)
    world.restart()
    world.loop.register(registration("h1", engine=running))
    world.run()
    assert [e.start_id for e in world.loop.fleet.bound()] == ["req-guide"]
