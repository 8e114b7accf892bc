"""What of canaries outlives the controller."""

from serving.controller.canary import Canary, Figures
from serving.controller.rollout_keeper import read_canaries, stored_form, write_canaries
from serving.controller.store import Store


async def test_canaries_are_kept_in_the_store(store: Store) -> None:
    canaries = [Canary("a", 1, 2, 1, 5.0, paused=True), Canary("b", 3, 4)]
    await write_canaries(store, canaries)
    assert await read_canaries(store) == canaries
    await write_canaries(store, [])
    assert await read_canaries(store) == []


def test_canary_that_waits_for_its_engine_is_not_stored_at_each_look() -> None:
    waiting = [Canary("a", 1, 2, step_at=at, new=Figures(3, 1), new_deaths=1) for at in (21, 27)]
    assert [stored_form(one) for one in waiting] == [Canary("a", 1, 2, step_at=20.0)] * 2
