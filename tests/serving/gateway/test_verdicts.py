"""What the controller says that engines died of, and how long it is waited for."""

import asyncio

from serving.gateway.verdicts import KEPT, Verdicts


async def test_death_that_nobody_explains_counts() -> None:
    assert await Verdicts(patience_s=0.01).without_killed(["a", "b"]) == ["a", "b"]


async def test_engine_that_is_known_to_be_killed_is_not_waited_for() -> None:
    verdicts = Verdicts(patience_s=3600.0)
    verdicts.note(["a"])
    assert await verdicts.without_killed(["a", "b"]) == ["b"]
    assert verdicts.known(["a", "c"]) == ["c"]


async def test_word_that_comes_later_is_waited_for_by_all_who_want_it() -> None:
    verdicts = Verdicts(patience_s=3600.0)
    waiting = [asyncio.create_task(verdicts.without_killed(died)) for died in (["a"], ["a", "b"])]
    await asyncio.sleep(0)
    verdicts.note(["other"])
    await asyncio.sleep(0)
    verdicts.note(["a"])
    assert await asyncio.gather(*waiting) == [[], ["b"]]


def test_old_words_are_forgotten() -> None:
    verdicts = Verdicts()
    verdicts.note(f"engine-{number}" for number in range(KEPT + 1))
    assert verdicts.known(["engine-0", "engine-1"]) == ["engine-0"]
