"""One release of the chart, its pods run as processes: see `tests.cluster.pods`."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

from tests.cluster.pods import Network, Pod, path_of, ray_environment
from tests.docs.versions import NOW, Version
from tests.helm.chart import Resource, render, resources
from tests.metering import postgres

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
    "gateway": {"longestStreamS": 10, "preStopS": 2},
    "checks": {"testModel": "guide"},
}  # fmt: skip


RAY_SERVICE = "demo-ray-head-svc"


class Cluster:
    """All pods of one release.

    Args:
        folder: For what pods keep and say.
        database_port: Of a PostgreSQL that listens on the caller's loopback.
        database: Its name there.
        version: Whose chart and code the pods are of.
    """

    def __init__(
        self, folder: Path, database_port: int, database: str = "postgres", version: Version = NOW
    ) -> None:
        self.network = Network(folder)
        place = f"{self.network.gateway}:{database_port}/{database}"
        self._secrets = {
            "penstock-internal": {"token": "internal-token-0123456789"},
            "penstock-keys": {"admin-key": ADMIN_KEY, "api-key": API_KEY},
            "penstock-ray": {"auth_token": RAY_TOKEN},
            "penstock-database": {"url": f"postgresql+asyncpg://{postgres.USER}@{place}"},
        }
        self.pods: dict[str, Pod] = {}
        self.ended: list[Pod] = []
        self.use(version)

    def use(self, version: Version) -> None:
        """Pods that are made from now on are of this version, as after `helm upgrade`."""
        self.rendered = resources(render(VALUES, version.chart))
        maps = {r["metadata"]["name"]: r["data"] for r in self.rendered if r["kind"] == "ConfigMap"}
        self.given = self._secrets | maps
        self._path = path_of(version.python)

    def one(self, kind: str, ending: str = "") -> Resource:
        """The resource of a kind whose name ends so."""
        (found,) = [
            r for r in self.rendered
            if r["kind"] == kind and r["metadata"]["name"].endswith(ending)
        ]  # fmt: skip
        return found

    def add(self, name: str, spec: Resource, service: str = "", **more: str) -> Pod:
        """A pod, and the Service that finds it; one of the same name before it has ended."""
        address = self.network.names.get(name) or self.network.add(name)
        if service:
            self.network.names[service] = address
        more["PATH"] = self._path
        pod = self.pods[name] = Pod(name, spec, self.network, self.given, more)
        return pod

    def head(self) -> Pod:
        """Ray's head."""
        head = self.one("RayCluster")["spec"]["headGroupSpec"]
        more = ray_environment(head["rayStartParams"], RAY_TOKEN, None)
        return self.add("head", head["template"]["spec"], RAY_SERVICE, **more)

    def worker(self, name: str) -> Pod:
        """A node of the only group."""
        (group,) = self.one("RayCluster")["spec"]["workerGroupSpecs"]
        more = ray_environment(group["rayStartParams"], RAY_TOKEN, RAY_SERVICE)
        return self.add(name, group["template"]["spec"], **more)

    def controller(self) -> Pod:
        """The controller, which is one."""
        spec = self.one("Deployment")["spec"]["template"]["spec"]
        return self.add("controller", spec, "demo-controller")

    def gateway(self, name: str = "gateway") -> Pod:
        """A gateway, which keeps its volume from pod to pod."""
        spec = self.one("StatefulSet", "-gateway")["spec"]["template"]["spec"]
        return self.add(name, spec, "demo-gateway")

    def check(self) -> None:
        """The chart's check of an installation or upgrade to come."""
        preflight = self.one("Job")["spec"]["template"]["spec"]
        check = self.add("preflight", preflight)
        assert "preflight: ok" in check.run_to_end(preflight["containers"][0])

    def start(self, *gateways: str) -> None:
        """Starts everything in the order in which a cluster might: two nodes, one controller."""
        made = [self.head(), self.worker("worker-0"), self.worker("worker-1"), self.controller()]
        made += [self.gateway(name) for name in gateways or ("gateway",)]
        self.check()
        for pod in made:
            pod.start()

    def end(self, name: str, within_s: float = 90) -> None:
        """Ends a pod as the kubelet does, and waits for it."""
        pod = self.pods[name]
        assert pod.process is not None
        pod.ask_to_end()
        pod.process.wait(within_s)
        self.ended.append(self.pods.pop(name))

    def kill(self) -> None:
        """Ends everything; leaves nothing behind."""
        for pod in self.pods.values():
            pod.kill()
        self.network.remove()

    def logs(self) -> str:
        """The ends of all logs."""
        found = {pod.log for pod in (*self.ended, *self.pods.values()) if pod.log.exists()}
        return "\n".join(
            f"== {p.parent.name}\n{p.read_text(errors='replace')[-2500:]}" for p in sorted(found)
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
