"""The chart's processes, started by hand as they are rendered, serve a chat over two nodes."""

import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.cluster import pods
from tests.cluster.pods import Pod
from tests.cluster.release import (
    API_KEY,
    RAY_TOKEN,
    READY_S,
    Cluster,
    chat,
    forwarded,
    ready_engines,
    until,
)
from tests.metering import postgres

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Head, two workers, controller and gateway, on PostgreSQL."""
    if why := pods.obstacle() or postgres.obstacle():
        pytest.skip(why)
    folder = tmp_path_factory.mktemp("cluster")
    with postgres.running() as database:
        made = Cluster(folder, database.port)
        try:
            with forwarded(made.network.gateway, database.port):
                made.start()
                yield made
                made.kill()
        finally:
            made.kill()


def test_rendered_processes_serve_a_chat_over_two_nodes(cluster: Cluster) -> None:
    until(lambda: len(ready_engines(cluster)) == 2, READY_S, "two engines are ready", cluster)
    assert {engine["node"] for engine in ready_engines(cluster)} == {"worker-0", "worker-1"}
    assert "Penstock" in chat(cluster)
    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(lambda _: chat(cluster), range(32)))
    # The controller's federated metrics say that both engines had work.
    url = f"http://{cluster.network.names['demo-controller']}:8100/metrics"
    text = httpx.get(url, timeout=30, trust_env=False).text
    tokens = re.findall(
        r'^vllm:generation_tokens_total\{.*replica="([^"]+)".*\} (\S+)$', text, re.M
    )
    assert len([replica for replica, value in tokens if float(value) > 0]) == 2, tokens


def test_engines_listen_at_their_pods_address_and_ask_for_a_token(cluster: Cluster) -> None:
    controller = f"http://{cluster.network.names['demo-controller']}:8100"
    token = {"Authorization": f"Bearer {cluster.given['penstock-internal']['token']}"}
    told = httpx.get(f"{controller}/internal/v1/routes", headers=token, timeout=30, trust_env=False)
    (route,) = told.json()["models"]
    urls = [httpx.URL(endpoint["url"]) for endpoint in route["endpoints"]]
    names = cluster.network.names
    assert {url.host for url in urls} == {names["worker-0"], names["worker-1"]}
    for url in urls:
        assert url.port is not None
        assert 32768 <= url.port <= 60999 and url.port != 52365  # as the network policies say
        assert httpx.get(f"{url}/v1/models", timeout=30, trust_env=False).status_code == 401


def test_rays_ports_are_the_rendered_ones_and_ask_for_the_token(cluster: Cluster) -> None:
    head = cluster.network.names["demo-ray-head-svc"]
    url = f"http://{head}:8265/api/serve/applications/"
    assert httpx.get(url, timeout=30, trust_env=False).status_code in (401, 403)
    headers = {"Authorization": f"Bearer {RAY_TOKEN}"}
    told = httpx.get(url, headers=headers, timeout=30, trust_env=False)
    assert told.json()["applications"]["penstock-cpu"]["status"] == "RUNNING"
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((head, 10001))  # Ray Client's server, which nobody needs


def test_helm_test_passes(cluster: Cluster) -> None:
    spec = cluster.one("Pod")["spec"]
    (container,) = spec["containers"]
    (url,) = (entry for entry in container["env"] if entry["name"] == "SMOKE_URL")
    assert url["value"] == "http://demo-gateway:80"
    url["value"] = "http://demo-gateway:8000"  # the Service would map the port
    smoke = Pod("gateway", spec, cluster.network, cluster.given)
    assert "smoke: ok" in smoke.run_to_end(container)


def stream(cluster: Cluster) -> str:
    """How a streamed answer ended: `whole`, or what went wrong."""
    body = {
        "model": "guide", "stream": True, "max_tokens": 200,
        "messages": [{"role": "user", "content": "How do I deploy a model?"}],
    }  # fmt: skip
    url = f"http://{cluster.network.names['demo-gateway']}:8000/v1/chat/completions"
    headers = {"Authorization": f"Bearer {API_KEY}"}
    answer = httpx.post(url, headers=headers, json=body, timeout=60, trust_env=False)
    if answer.is_success and answer.text.rstrip().endswith("data: [DONE]"):
        return "whole"
    return answer.text[-300:]


def test_a_node_that_is_asked_to_end_costs_no_request(cluster: Cluster) -> None:
    leaving = cluster.pods["worker-0"]
    assert leaving.process is not None
    ends: list[str] = []
    with ThreadPoolExecutor(6) as pool:
        waiting = [pool.submit(stream, cluster) for _ in range(12)]
        leaving.ask_to_end()
        while leaving.process.poll() is None:
            ends += [future.result() for future in waiting]
            waiting = [pool.submit(stream, cluster) for _ in range(12)]
        ends += [future.result() for future in waiting]
    assert [end for end in ends if end != "whole"] == [], leaving.log.read_text()[-2000:]
    assert len(ends) >= 24
    assert '"whole": true' in leaving.log.read_text()
    until(lambda: len(ready_engines(cluster)) == 1, 60, "one engine is left", cluster)
