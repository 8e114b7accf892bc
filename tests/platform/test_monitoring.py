"""A real Prometheus scrapes the real platform: what dashboards, rules and pages name is there."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from openai import APIStatusError, OpenAI

from serving.cli.ports import pick
from serving.controller.federation import FAMILIES
from serving.metrics import ALL
from tests.helm.chart import CHART
from tests.helm.metric_names import dashboard_queries, names_in, prose, rules
from tests.platform import prometheus
from tests.platform.platform import Platform, eventually
from tests.platform.prometheus import Prometheus

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(prometheus.PROGRAM is None, reason="prometheus is not installed"),
]

QUESTION = [{"role": "user", "content": "What is a host, and what is an engine?"}]
SERIES_MAX = 2000
TRAFFIC_S = 20.0
SCRAPED_S = 3.0
"""What has just been counted is in Prometheus after this time: it looks each second."""
UNEVENTFUL = {"penstock_usage_unresolved", "penstock_metering_drift_tokens"}
"""Series that begin with an event which a healthy minute has not."""
NO_DRIVER = {metric.name for metric in ALL if metric.name.startswith("penstock_gpu_")}
"""Series of accelerators: only where NVIDIA's driver tells of them."""
UNEVENTFUL |= NO_DRIVER
WINDOW = {"$__rate_interval": "15s", "$__range_s": "60", "$__range": "60s"}


@contextmanager
def traffic(url: str, key: str) -> Iterator[None]:
    """Chats, one after the other, in the background."""
    stop = threading.Event()

    def talk() -> None:
        with OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
            while not stop.wait(0.2):
                list(
                    client.chat.completions.create(
                        model="guide",
                        messages=QUESTION,
                        stream=True,
                        max_tokens=40,
                        stream_options={"include_usage": True},
                    )
                )

    thread = threading.Thread(target=talk)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(timeout=60)


def tenant_key(admin: httpx.Client) -> str:
    """A key that ends in a day, of an organisation of its own."""
    org = admin.post("/organizations", json={"name": "watched"}).raise_for_status().json()
    project = {"org_id": org["org_id"], "name": "watched"}
    made = admin.post("/projects", json=project).raise_for_status().json()
    ends = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 86_400))
    key = {"project_id": made["project_id"], "name": "watched", "expires_at": ends}
    return str(admin.post("/keys", json=key).raise_for_status().json()["secret"])


def lists(client: OpenAI, model: str) -> bool:
    """Whether the gateway lists a model."""
    return model in [one.id for one in client.models.list()]


def knows(url: str, key: str) -> bool:
    """Whether the gateway lets a key in."""
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.get(f"{url}/v1/models", headers=headers, timeout=30).is_success


def filled_in(query: str) -> str:
    """A dashboard's query, as Grafana would ask it for all models."""
    for name, value in WINDOW.items():
        query = query.replace(name, value)
    return re.sub(r"\$(model|organisation)\b", ".*", query)


@pytest.fixture(scope="module")
def watched(
    platform: Platform, admin: httpx.Client, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Prometheus]:
    """Prometheus after a scripted while: chats, refusals, a model that is woken."""
    ports, chosen = platform.state["ports"], pick("prometheus")
    targets = {name: f"127.0.0.1:{ports[name]}" for name in ("gateway", "controller")}
    folder = tmp_path_factory.mktemp("prometheus")
    key = tenant_key(admin)
    eventually(lambda: knows(platform.url, key), 10, "the gateway knows the new key")
    records = CHART / "files" / "rules" / "penstock.yaml"
    sleeper = {
        "name": "sleeper",
        "source": "builtin://guide",
        "engine": {"max_num_seqs": 8, "kv_cache_gib": 0.03},
    }
    with (
        prometheus.running(folder, chosen["prometheus"], targets, records) as asked,
        traffic(platform.url, key),
        OpenAI(base_url=f"{platform.url}/v1", api_key=key) as client,
    ):
        began_s = time.monotonic()
        for _ in range(2):  # a rate needs a second event
            admin.post("/models", json=sleeper).raise_for_status()
            eventually(lambda: lists(client, "sleeper"), 10, "the gateway knows the model")
            client.chat.completions.create(model="sleeper", messages=QUESTION, max_tokens=4)
            time.sleep(2.0)  # the metrics of its engine are seen
            admin.delete("/models/sleeper").raise_for_status()
            time.sleep(1.0)
        admin.post("/models", json=sleeper).raise_for_status()
        with pytest.raises(APIStatusError):
            client.chat.completions.create(model="nobody", messages=QUESTION)
        time.sleep(max(SCRAPED_S, TRAFFIC_S - (time.monotonic() - began_s)))
        started = "sum(penstock_cold_start_whole_seconds_count) > 1"
        eventually(lambda: asked.query(started), 10, "a start")
        yield asked
    admin.delete("/models/sleeper")


def test_every_metric_that_is_named_exists(watched: Prometheus) -> None:
    named = {name for _, query in dashboard_queries() for name in names_in(query)}
    named |= {name for rule in rules() for name in names_in(rule["expr"])}
    there = watched.names()
    assert named - there - UNEVENTFUL == set()
    # Pages name metrics as they are declared: of a histogram that is the name without an ending.
    bases = there | {re.sub(r"_(bucket|sum|count)$", "", name) for name in there}
    for path, names in prose():
        assert names - bases - UNEVENTFUL == set(), path


def test_every_declared_metric_exists(watched: Prometheus) -> None:
    there = {re.sub(r"_(bucket|sum|count)$", "", name) for name in watched.names()}
    assert {metric.name for metric in ALL} - there - UNEVENTFUL == set()
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in FAMILIES}
    assert families - there == set()


def test_no_metric_has_too_many_series(watched: Prometheus) -> None:
    most = watched.query("topk(1, count by (__name__) ({__name__=~'penstock.+|vllm.+'}))")
    assert float(most[0]["value"][1]) <= SERIES_MAX, most


@pytest.mark.parametrize(("name", "query"), list(dashboard_queries()), ids=lambda v: v[:60])
def test_query_of_a_dashboard_returns_data(watched: Prometheus, name: str, query: str) -> None:
    if names_in(query) <= NO_DRIVER:
        pytest.skip("needs an NVIDIA GPU: no driver tells of it here")
    result = watched.query(filled_in(query))
    assert result, f"{name}: {query}"
    # A model that nobody asked within the window has no quantile.
    assert any(series["value"][1] != "NaN" for series in result), result


def test_no_alert_fires_on_a_healthy_platform(watched: Prometheus) -> None:
    firing = [a for a in watched.get("alerts")["alerts"] if a["state"] == "firing"]
    names = {alert["labels"]["alertname"] for alert in firing}
    assert names == {"PenstockKeyExpires"}  # a key of this test ends in a day


def test_recorded_series_exist(watched: Prometheus) -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    assert recorded <= watched.names()
