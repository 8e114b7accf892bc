"""The chart's processes, started by hand as they are rendered, serve a chat over two nodes."""

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.cluster import pods
from tests.cluster.pods import Network, Pod, ray_environment
from tests.helm.chart import Resource, render, resources
from tests.metering import postgres

pytestmark = [pytest.mark.engine, pytest.mark.timeout(400)]

READY_S = 200.0
ADMIN_KEY, API_KEY, RAY_TOKEN = "pa-cluster-0123456789", "pk-cluster-0123456789", "ray-" + "0" * 40
VALUES: dict[str, Any] = {
    "database": {"external": {"secretName": "penstock-database"}},
    "ray": {"workerGroups": [{
        "name": "cpu", "pool": "cpu", "image": "engineCpu", "pods": 2,
        "resources": {"cpu": "1", "memory": "4Gi"}, "sharedMemory": "1Gi", "drainTimeoutS": 5,
    }]},
    "models": [{
        "name": "guide", "source": "builtin://guide", "scaling": {"min": 2, "max": 2},
        "engine": {"max_num_seqs": 8, "kv_cache_gib": 0.03},
    }],
    "gateway": {"longestStreamS": 10},
    "checks": {"testModel": "guide"},
}  # fmt: skip


class Cluster:
    """All pods of one release."""

    def __init__(self, folder: Path, database_port: int) -> None:
        self.network = Network(folder)
        url = (
            f"postgresql+asyncpg://{postgres.USER}@{self.network.gateway}:{database_port}/postgres"
        )
        self.rendered = resources(render(VALUES))
        secrets = {
            "penstock-internal": {"token": "internal-token-0123456789"},
            "penstock-keys": {"admin-key": ADMIN_KEY, "api-key": API_KEY},
            "penstock-ray": {"auth_token": RAY_TOKEN},
            "penstock-database": {"url": url},
        }
        maps = {r["metadata"]["name"]: r["data"] for r in self.rendered if r["kind"] == "ConfigMap"}
        self.given = secrets | maps
        self.pods: dict[str, Pod] = {}

    def one(self, kind: str, ending: str = "") -> Resource:
        """The resource of a kind whose name ends so."""
        (found,) = [
            r for r in self.rendered
            if r["kind"] == kind and r["metadata"]["name"].endswith(ending)
        ]  # fmt: skip
        return found

    def add(self, name: str, spec: Resource, service: str = "", **more: str) -> Pod:
        """A pod, and the Service that finds it."""
        address = self.network.add(name)
        if service:
            self.network.names[service] = address
        pod = self.pods[name] = Pod(name, spec, self.network, self.given, more)
        return pod

    def start(self) -> None:
        """Starts everything in the order in which a cluster might."""
        ray = self.one("RayCluster")["spec"]
        head, (group,) = ray["headGroupSpec"], ray["workerGroupSpecs"]
        service = "demo-ray-head-svc"
        pod = self.add("head", head["template"]["spec"], service,
                       **ray_environment(head["rayStartParams"], RAY_TOKEN, None))  # fmt: skip
        for number in range(group["replicas"]):
            more = ray_environment(group["rayStartParams"], RAY_TOKEN, service)
            self.add(f"worker-{number}", group["template"]["spec"], **more)
        controller = self.one("Deployment")["spec"]["template"]["spec"]
        self.add("controller", controller, "demo-controller")
        gateway = self.one("StatefulSet", "-gateway")["spec"]["template"]["spec"]
        self.add("gateway", gateway, "demo-gateway")
        preflight = self.one("Job")["spec"]["template"]["spec"]
        check = self.add("preflight", preflight)
        assert "preflight: ok" in check.run_to_end(preflight["containers"][0])
        pod.start()
        for name in ("worker-0", "worker-1", "controller", "gateway"):
            self.pods[name].start()

    def kill(self) -> None:
        """Ends everything; leaves nothing behind."""
        for pod in self.pods.values():
            pod.kill()
        self.network.remove()

    def logs(self) -> str:
        """The ends of all logs."""
        found = [pod.log for pod in self.pods.values() if pod.log.exists()]
        return "\n".join(
            f"== {p.parent.name}\n{p.read_text(errors='replace')[-2500:]}" for p in found
        )

    def get(self, path: str) -> httpx.Response:
        """A call of the admin API through the gateway."""
        return httpx.get(
            f"http://{self.network.names['demo-gateway']}:8000{path}",
            headers={"Authorization": f"Bearer {ADMIN_KEY}"}, timeout=30, trust_env=False,
        )  # fmt: skip


def until(check: Callable[[], bool], within_s: float, what: str, cluster: Cluster) -> None:
    deadline = time.monotonic() + within_s
    while True:
        try:
            if check():
                return
        except (httpx.HTTPError, KeyError):
            pass
        for pod in cluster.pods.values():
            dead = pod.process is not None and pod.process.poll() not in (None, 0)
            assert not dead, f"{pod.name} ended while waiting: {what}\n{cluster.logs()}"
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}\n{cluster.logs()}"
        time.sleep(0.5)


@contextmanager
def forwarded(address: str, port: int) -> Iterator[None]:
    """Passes connections at the bridge on to the same port of loopback, where PostgreSQL is."""

    def pump(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def accept() -> None:
        with suppress(OSError):
            while True:
                outside, _ = listener.accept()
                inside = socket.create_connection(("127.0.0.1", port))
                sockets.extend((outside, inside))
                for pair in ((outside, inside), (inside, outside)):
                    threading.Thread(target=pump, args=pair, daemon=True).start()

    sockets: list[socket.socket] = []
    listener = socket.create_server((address, port))
    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()
        for one in (listener, *sockets):
            one.close()


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


def chat(cluster: Cluster) -> str:
    """One answer through the gateway."""
    answer = httpx.post(
        f"http://{cluster.network.names['demo-gateway']}:8000/v1/chat/completions",
        headers={"Authorization": f"Bearer {API_KEY}"},
        json={"model": "guide", "messages": [{"role": "user", "content": "What is Penstock?"}]},
        timeout=60, trust_env=False,
    )  # fmt: skip
    answer.raise_for_status()
    return str(answer.json()["choices"][0]["message"]["content"])


def ready_engines(cluster: Cluster) -> list[dict[str, Any]]:
    items = cluster.get("/admin/v1/engines").raise_for_status().json()["items"]
    return [engine for engine in items if engine["phase"] == "ready"]


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
