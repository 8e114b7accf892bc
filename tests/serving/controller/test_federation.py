"""Engines' metrics under the controller's own."""

import httpx
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from serving.controller.federation import (
    FAMILIES,
    HISTOGRAM_ENGINES_MAX,
    Federation,
    Origin,
    merge,
)
from tests.serving.controller.world import World

TEXT = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a, \\"odd\\" name"} 3.0
vllm:prompt_tokens_total{engine="0",model_name="m"} 120.0
vllm:prompt_tokens_created{engine="0",model_name="m"} 1.7e+09
vllm:time_to_first_token_seconds_bucket{engine="0",le="0.5",model_name="m"} 2.0
vllm:time_to_first_token_seconds_bucket{engine="0",le="+Inf",model_name="m"} 2.0
vllm:time_to_first_token_seconds_sum{engine="0",model_name="m"} 0.1
vllm:time_to_first_token_seconds_count{engine="0",model_name="m"} 2.0
vllm:something_new{engine="0"} 1.0
python_gc_collections_total 7.0
"""


async def awake(world: World) -> None:
    host = world.host("h1")
    await world.deploy()
    world.ask(queued=1)
    world.run()
    host.start()
    world.run()


def samples(text: bytes) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(dict(sample.labels))
    return found


def test_samples_bear_our_labels_instead_of_vllms() -> None:
    seen = samples(merge([(Origin("guide", 3, "guide-e1"), TEXT)]))
    ours = {"model": "guide", "revision": "3", "replica": "guide-e1"}
    assert seen["vllm:num_requests_running"] == [ours]
    assert seen["vllm:prompt_tokens_total"] == [ours]
    assert [s["le"] for s in seen["vllm:time_to_first_token_seconds_bucket"]] == ["0.5", "+Inf"]


def test_only_listed_families_pass() -> None:
    seen = samples(merge([(Origin("guide", 1, "e"), TEXT)]))
    assert {name for name in seen if not name.startswith("vllm:time_to")} == {
        "vllm:num_requests_running", "vllm:prompt_tokens_total",
    }  # fmt: skip


def test_each_family_is_declared_once_for_many_engines() -> None:
    text = merge([(Origin("guide", 1, f"e{n}"), TEXT) for n in range(3)]).decode()
    assert text.count("# TYPE vllm:num_requests_running gauge") == 1
    assert text.count("\nvllm:num_requests_running{") == 3


def test_no_metric_has_more_than_two_thousand_series() -> None:
    buckets = "".join(
        f'vllm:time_to_first_token_seconds_bucket{{engine="0",le="{n}",model_name="m"}} 1\n'
        for n in range(22)
    )
    seen = samples(merge([(Origin("guide", 1, f"e{n}"), buckets + TEXT) for n in range(1000)]))
    assert max(len(series) for series in seen.values()) <= 2000
    assert len(seen["vllm:num_requests_running"]) == 1000
    assert len(seen["vllm:time_to_first_token_seconds_sum"]) == HISTOGRAM_ENGINES_MAX


def test_every_family_is_one_of_vllms() -> None:
    assert all(family.startswith("vllm:") for family in FAMILIES)


async def test_ready_engines_are_asked_with_their_token(world: World) -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(f"{request.url} {request.headers['authorization']}")
        return httpx.Response(200, text=TEXT)

    await awake(world)
    registry = CollectorRegistry()
    text = await Federation(registry, httpx.MockTransport(answer)).collect(world.loop.fleet)
    assert asked == ["http://127.0.0.1:9/metrics Bearer t"]
    assert b'vllm:num_requests_running{model="guide",revision="1",replica="' in text
    assert registry.get_sample_value("penstock_engine_scrapes_total", {"outcome": "ok"}) == 1


async def test_an_engine_that_does_not_answer_is_counted_and_left_out(world: World) -> None:
    def answer(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(503)

    await awake(world)
    registry = CollectorRegistry()
    text = await Federation(registry, httpx.MockTransport(answer)).collect(world.loop.fleet)
    assert text == b""
    assert registry.get_sample_value("penstock_engine_scrapes_total", {"outcome": "failed"}) == 1
