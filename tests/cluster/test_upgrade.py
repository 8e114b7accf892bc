"""An upgrade of a release with real Ray and vLLM, and the way back, while tenants ask.

In the order of docs/operations/upgrade.md, from an older version that is really installed to this
one: each version's own chart, its own processes, as in `tests.cluster.test_two_nodes`. Of both,
Ray's and vLLM's packages are those of this environment.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import httpx
import orjson
import psutil
import pytest

from serving.usage_views import ReconcileView
from tests.cluster import pods
from tests.cluster.release import (
    ADMIN_KEY,
    API_KEY,
    READY_S,
    Cluster,
    forwarded,
    until,
)
from tests.docs import versions
from tests.docs.versions import NOW, Version
from tests.metering import postgres
from tests.metering.postgres import Postgres

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(1200),
    pytest.mark.skipif(os.environ.get("LONG_TESTS") != "1", reason="of `make test-long`"),
]

GATEWAYS = ("gateway-0", "gateway-1")
DATABASE = "penstock"
TENANTS = 3
BOOKED_S = 60.0


@dataclass
class Tenants:
    """Ask all the time, each request over a connection of its own, as a Service spreads them."""

    cluster: Cluster
    serving: list[str] = field(default_factory=lambda: list(GATEWAYS))
    """Gateways that the Service has; replaced as a whole, as it is read by many."""
    answered: list[tuple[int, int]] = field(default_factory=list)
    """Tokens of each whole answer: of the prompt, of the completion."""
    failed: list[str] = field(default_factory=list)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Asks meanwhile; all have got their answers at the end."""
        stop = threading.Event()

        def ask(number: int) -> None:
            for turn in count(number):
                if stop.is_set():
                    return
                try:
                    self.answered.append(self._ask(self.serving[turn % len(self.serving)], turn))
                except (httpx.HTTPError, LookupError, ValueError) as exc:
                    self.failed.append(f"{time.strftime('%X')} {exc!r}")

        threads = [threading.Thread(target=ask, args=(n,)) for n in range(TENANTS)]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def _ask(self, gateway: str, turn: int) -> tuple[int, int]:
        body = {
            "model": "guide", "max_tokens": 40 + turn % 40,
            "messages": [{"role": "user", "content": f"{turn}: How do I deploy a model?"}],
        }  # fmt: skip
        streams = turn % 2 == 0
        if streams:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        answer = httpx.post(
            f"http://{self.cluster.network.names[gateway]}:8000/v1/chat/completions", json=body,
            headers={"Authorization": f"Bearer {API_KEY}"}, timeout=180, trust_env=False,
        )  # fmt: skip
        if answer.is_error:
            raise ValueError(f"{gateway}: {answer.status_code} {answer.text[-300:]}")
        last = answer.text
        if streams:
            *_, last, done = (part for part in answer.text.split("\n\n") if part)
            if done != "data: [DONE]":
                raise ValueError(f"{gateway}: cut off: {answer.text[-300:]}")
            last = last.removeprefix("data: ")
        usage = orjson.loads(last)["usage"]
        return usage["prompt_tokens"], usage["completion_tokens"]


def admin(cluster: Cluster, path: str) -> httpx.Response:
    """A call of the controller's admin API."""
    return httpx.get(
        f"http://{cluster.network.names['demo-controller']}:8100/admin/v1/{path}",
        headers={"Authorization": f"Bearer {ADMIN_KEY}"}, timeout=30, trust_env=False,
    ).raise_for_status()  # fmt: skip


def booked(cluster: Cluster) -> tuple[int, int, int]:
    """Requests, tokens of prompts, and tokens of completions in the books."""
    items = admin(cluster, "usage").json()["items"]
    requests, prompts, completions = (
        sum(item[key] for item in items)
        for key in ("requests", "prompt_tokens", "completion_tokens")
    )
    return requests, prompts, completions


def booked_requests(cluster: Cluster) -> int:
    return booked(cluster)[0]


def has_model(cluster: Cluster) -> bool:
    return len(admin(cluster, "models").json()["items"]) == 1


def engines(cluster: Cluster) -> set[tuple[str, int]]:
    """Nodes and processes of the engines that are ready."""
    items = admin(cluster, "engines").json()["items"]
    return {(item["node"], item["pid"]) for item in items if item["phase"] == "ready"}


def schema(server: Postgres) -> str:
    """Number of the last migration."""
    asked = server.client("psql", "-At", "-c", "select version_num from alembic_version", DATABASE)
    return asked.decode().strip()


def rows(server: Postgres) -> int:
    """Requests in the database, whoever runs."""
    return int(server.client("psql", "-At", "-c", "select count(*) from usage", DATABASE))


def launcher_of(cluster: Cluster, worker: str) -> Path:
    """The Python that runs a node's launcher."""
    process = cluster.pods[worker].process
    assert process is not None
    found = [child.cmdline() for child in psutil.Process(process.pid).children(recursive=True)]
    return Path(next(line[0] for line in found if "serving.engine.launcher" in line))


def replace_gateways(cluster: Cluster, tenants: Tenants) -> None:
    """One after the other, as a StatefulSet does: from the last one down."""
    for name in reversed(GATEWAYS):
        tenants.serving = [other for other in GATEWAYS if other != name]
        (container,) = cluster.pods[name].spec["containers"]
        time.sleep(float(container["lifecycle"]["preStop"]["exec"]["command"][1]))
        cluster.end(name)
        cluster.gateway(name).start()
        url = f"http://{cluster.network.names[name]}:8000/ready"
        until(
            lambda url=url: httpx.get(url, trust_env=False).is_success,
            READY_S, f"{name} is ready", cluster,
        )  # fmt: skip
        tenants.serving = list(GATEWAYS)


def replace_workers(cluster: Cluster, names: dict[str, str]) -> None:
    """Old ones by new ones, one after the other, as docs/operations/upgrade.md has it."""
    for old, new in names.items():
        cluster.end(old)
        cluster.worker(new).start()
        until(
            lambda new=new: {new} < {node for node, _ in engines(cluster)},
            READY_S, f"an engine on {new} beside another", cluster,
        )  # fmt: skip


@pytest.fixture
def before() -> Iterator[Version]:
    """The version before this one, at a place that pods can see, which have a /tmp of their own."""
    if why := versions.obstacle() or pods.obstacle() or postgres.obstacle():
        pytest.skip(why)
    folder = Path(tempfile.mkdtemp(prefix="penstock-", dir="/var/tmp"))
    try:
        made = versions.older(folder)
        ray = made.python.with_name("ray")  # of dependencies only the modules are there
        ray.write_text(
            f"#!{made.python}\nimport sys\nfrom ray.scripts.scripts import main\nsys.exit(main())\n"
        )
        ray.chmod(0o755)
        # Pods cannot write there; without it each process compiles everything that it imports.
        packages = str(made.python.parents[1] / "lib")
        subprocess.run([sys.executable, "-m", "compileall", "-q", packages], check=True)
        yield made
    finally:
        shutil.rmtree(folder)


@pytest.fixture
def server() -> Iterator[Postgres]:
    with postgres.running() as made:
        made.client("createdb", DATABASE)
        yield made


@pytest.fixture
def cluster(before: Version, server: Postgres, tmp_path: Path) -> Iterator[Cluster]:
    """A release of the version before; nothing of it runs yet."""
    made = Cluster(tmp_path, server.port, DATABASE, before)
    try:
        with forwarded(made.network.gateway, server.port):
            yield made
    finally:
        made.kill()


def test_upgrade_costs_no_request(cluster: Cluster, server: Postgres, before: Version) -> None:
    cluster.start(*GATEWAYS)
    until(lambda: len(engines(cluster)) == 2, READY_S, "two engines", cluster)
    ran, old_schema = engines(cluster), schema(server)
    assert launcher_of(cluster, "worker-0") == before.python
    tenants = Tenants(cluster)
    with tenants.asking():
        until(lambda: len(tenants.answered) > 20, BOOKED_S, "tenants are served", cluster)
        cluster.use(NOW)
        cluster.check()
        cluster.end("controller")
        cluster.controller().start()
        until(lambda: engines(cluster) == ran, READY_S, "the engines are adopted", cluster)
        assert schema(server) > old_schema
        replace_gateways(cluster, tenants)
        assert engines(cluster) == ran
        replace_workers(cluster, {"worker-0": "worker-2", "worker-1": "worker-3"})
        assert launcher_of(cluster, "worker-2") == NOW.python
    assert tenants.failed == [], cluster.logs()
    # All that was served stands in the books, to the token, and all counts agree.
    requests = len(tenants.answered)
    prompts, completions = (sum(tokens) for tokens in zip(*tenants.answered, strict=True))
    until(
        lambda: booked(cluster) == (requests, prompts, completions), BOOKED_S,
        f"{requests} requests are in the books, {prompts} and {completions} tokens", cluster,
    )  # fmt: skip
    found = ReconcileView.model_validate_json(admin(cluster, "usage/reconcile").content)
    assert found.clean, found


def test_way_back_costs_no_request(cluster: Cluster, server: Postgres, before: Version) -> None:
    cluster.controller().start()
    until(lambda: has_model(cluster), READY_S, "the older controller has its model", cluster)
    dump = server.client("pg_dump", "--format=custom", DATABASE)
    cluster.end("controller")
    cluster.use(NOW)
    cluster.start(*GATEWAYS)
    until(lambda: len(engines(cluster)) == 2, READY_S, "two engines", cluster)
    ran = engines(cluster)
    tenants = Tenants(cluster)
    with tenants.asking():
        until(lambda: booked_requests(cluster) > 20, BOOKED_S, "tenants are served", cluster)
        cluster.use(before)
        cluster.end("controller")
        older = cluster.controller()
        with pytest.raises(AssertionError, match="newer version of Penstock"):
            older.start()  # and gateways serve on
        unsaved = rows(server)
        server.client("dropdb", "--force", DATABASE)
        server.client("createdb", DATABASE)
        server.client("pg_restore", "--clean", "--if-exists", f"--dbname={DATABASE}", text=dump)
        older.start()
        until(lambda: engines(cluster) == ran, READY_S, "the engines are adopted", cluster)
        replace_gateways(cluster, tenants)
        replace_workers(cluster, {"worker-0": "worker-2", "worker-1": "worker-3"})
        assert launcher_of(cluster, "worker-2") == before.python
    assert tenants.failed == [], cluster.logs()
    # What had been stored since the backup is not in the books; what came later all is.
    assert unsaved > 20
    expected = len(tenants.answered) - unsaved
    until(
        lambda: booked_requests(cluster) == expected, BOOKED_S,
        f"{expected} requests are in the books", cluster,
    )  # fmt: skip
