"""When an engine's steps cut long prompts, with a scheduler that only notes its threshold."""

from dataclasses import dataclass
from typing import Any

import pytest

from serving.engine.shared_steps import CHUNK_TOKENS, are_shared, hook


@dataclass
class Request:
    cache_salt: str | None = None


@dataclass
class Config:
    long_prefill_token_threshold: int = 0
    enable_chunked_prefill: bool = True


def scheduler_of(running: list[Request], waiting: list[Request], config: Config) -> Any:
    """A new hooked class each time, as one process has one."""

    @dataclass
    class Scheduler:
        scheduler_config: Config
        running: list[Request]
        waiting: list[Request]
        has_mamba_layers: bool = False

        def schedule(self, throttle: bool = False) -> int:
            if throttle:
                raise RuntimeError("a step failed")
            return self.scheduler_config.long_prefill_token_threshold

    hook(Scheduler)
    return Scheduler(config, running, waiting)


A, B = Request("org-a"), Request("org-b")


@pytest.mark.parametrize(
    ("requests", "shared"),
    [([], False), ([A], False), ([A, A], False), ([A, B], True), ([A, Request()], True)],
)
def test_tenants_are_told_apart_by_their_salts(requests: list[Request], shared: bool) -> None:
    assert are_shared(requests) is shared


def test_prompts_are_cut_in_shared_steps_alone() -> None:
    config = Config()
    scheduler = scheduler_of([A], [A], config)
    assert scheduler.schedule() == 0
    scheduler.waiting.append(B)
    assert scheduler.schedule() == CHUNK_TOKENS
    scheduler.waiting.clear()
    assert scheduler.schedule() == 0


def test_threshold_is_as_before_where_a_step_fails() -> None:
    config = Config()
    scheduler = scheduler_of([A], [B], config)
    with pytest.raises(RuntimeError):
        scheduler.schedule(throttle=True)
    assert config.long_prefill_token_threshold == 0


def test_operators_own_threshold_stays() -> None:
    scheduler = scheduler_of([A], [B], Config(long_prefill_token_threshold=4096))
    assert scheduler.schedule() == 4096


def test_prompts_that_may_not_be_cut_are_left_whole() -> None:
    scheduler = scheduler_of([A], [B], Config(enable_chunked_prefill=False))
    assert scheduler.schedule() == 0
    scheduler = scheduler_of([A], [B], Config())
    scheduler.has_mamba_layers = True
    assert scheduler.schedule() == 0
