"""What the chart starts is what the code has: modules, settings, ports, Pod Security."""

import importlib
import importlib.util
import json
from types import SimpleNamespace
from typing import Any

import pytest

from serving import settings
from serving.controller.pools import pool_args
from serving.settings import PREFIX, Settings
from tests.helm.chart import (
    SCENARIOS,
    containers,
    environment,
    of_kind,
    pod_specs,
    render,
    resources,
)

ALL_SETTINGS = {
    f"{PREFIX}{field}".upper() for part in Settings.__subclasses__() for field in part.model_fields
}
READS = {
    "serving.gateway.app": settings.GatewaySettings,
    "serving.controller.app": settings.ControllerSettings,
    "serving.cli.node": settings.HostSettings,
}
EXCEPTIONS = {("h200", "worker/h200-whole"), ("h200", "worker/h200-single")}
"""Pods that go beyond the restricted standard, and whose values say so."""


def module_of(container: dict[str, Any]) -> str | None:
    command = container.get("command", [])
    return command[2] if command[:2] == ["python", "-m"] else None


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_variable_is_a_setting(scenario: str) -> None:
    for pod in pod_specs(scenario).values():
        for container in containers(pod):
            ours = {name for name in environment(container) if name.startswith(PREFIX)}
            assert ours <= ALL_SETTINGS


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_command_is_a_module_that_exists(scenario: str) -> None:
    modules = [module_of(c) for pod in pod_specs(scenario).values() for c in containers(pod)]
    started = {module for module in modules if module}
    assert started >= {"serving.gateway.app", "serving.controller.app", "serving.cli.node"}
    for module in started:
        assert importlib.util.find_spec(module), module


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_each_process_can_read_its_settings(scenario: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for pod in pod_specs(scenario).values():
        for container in containers(pod):
            reader = READS.get(module_of(container) or "")
            if reader is None:
                continue
            with monkeypatch.context() as patch:
                for name, value in environment(container).items():
                    patch.setenv(name, value if isinstance(value, str) else "from-elsewhere")
                reader.load()


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_pools_are_those_of_the_worker_groups(scenario: str) -> None:
    (controller,) = of_kind(scenario, "Deployment")
    env = environment(controller["spec"]["template"]["spec"]["containers"][0])
    pools = json.loads(env["PENSTOCK_POOLS"])
    (cluster,) = of_kind(scenario, "RayCluster")
    gpus_by_pool = {}
    for group in cluster["spec"]["workerGroupSpecs"]:
        pool = group["template"]["metadata"]["labels"]["penstock/pool"]
        gpus_by_pool[pool] = group["maxReplicas"] * int(group["rayStartParams"]["num-gpus"])
    assert pools.keys() == gpus_by_pool.keys()
    for pool, hosts in pools.items():
        assert hosts * pool_args(pool)["gpus"] == gpus_by_pool[pool]


def test_a_pool_that_scales_has_its_bounds_in_ray_and_in_the_controller() -> None:
    (controller,) = of_kind("h200", "Deployment")
    env = environment(controller["spec"]["template"]["spec"]["containers"][0])
    assert json.loads(env["PENSTOCK_POOLS"])["h200x1"] == 8
    assert json.loads(env["PENSTOCK_POOLS_MIN"]) == {"h200x1": 1}
    (cluster,) = of_kind("h200", "RayCluster")
    assert cluster["spec"]["enableInTreeAutoscaling"] is True
    whole, single = cluster["spec"]["workerGroupSpecs"]
    assert (single["minReplicas"], single["maxReplicas"]) == (1, 8)
    assert (whole["minReplicas"], whole["maxReplicas"]) == (2, 2)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_pods_meet_the_restricted_standard(scenario: str) -> None:
    for name, pod in pod_specs(scenario).items():
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        needs_account = (scenario, name) == ("h200", "head")  # Ray's autoscaler
        assert pod["automountServiceAccountToken"] is needs_account
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        host_paths = [v for v in pod.get("volumes", []) if "hostPath" in v]
        for container in containers(pod):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"]["drop"] == ["ALL"]
            added = security["capabilities"].get("add", [])
            if (scenario, name) in EXCEPTIONS:
                assert host_paths and set(added) <= {"IPC_LOCK"}
            else:
                assert host_paths == [] and added == []


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_no_secret_stands_in_the_render(scenario: str) -> None:
    assert of_kind(scenario, "Secret") == []
    for pod in pod_specs(scenario).values():
        for container in containers(pod):
            for name, value in environment(container).items():
                if name.endswith(("_TOKEN", "_KEY", "PASSWORD")) and not name.startswith("NAME_"):
                    assert isinstance(value, dict), name


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_a_gateway_may_drain_its_longest_stream(scenario: str) -> None:
    (gateway,) = (pod for name, pod in pod_specs(scenario).items() if name.endswith("-gateway"))
    container = gateway["containers"][0]
    pause_s = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    drain_s = int(environment(container)["PENSTOCK_DRAIN_TIMEOUT_S"])
    assert gateway["terminationGracePeriodSeconds"] > pause_s + drain_s


def test_gateways_reach_engines_but_none_of_rays_ports() -> None:
    (policy,) = (
        p for p in of_kind("h200", "NetworkPolicy") if p["metadata"]["name"].endswith("-engines")
    )
    _, from_gateways, from_prometheus = policy["spec"]["ingress"]
    assert from_prometheus["ports"] == [{"port": 8080}]  # what Ray itself tells
    allowed = [range(p["port"], p["endPort"] + 1) for p in from_gateways["ports"]]
    (cluster,) = of_kind("h200", "RayCluster")
    start = cluster["spec"]["workerGroupSpecs"][0]["rayStartParams"]
    rays = {int(v) for k, v in start.items() if k.endswith("port")} | {6379, 8265, 52365}
    assert not any(port in ports for port in rays for ports in allowed)
    assert all(40_000 in ports or 60_000 in ports for ports in allowed)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_head_starts_no_server_for_rays_client(scenario: str) -> None:
    (head,) = pod_specs(scenario)["head"]["containers"]
    module, _, name = environment(head)["RAY_START_HOOK"].rpartition(".")
    params = SimpleNamespace(ray_client_server_port=10001)  # Ray's own default
    getattr(importlib.import_module(module), name)(params, True)
    assert params.ray_client_server_port is None


def test_every_pod_label_of_a_policy_exists() -> None:
    labels = set()
    (cluster,) = of_kind("multi-tenant", "RayCluster")
    spec = cluster["spec"]
    templates = [spec["headGroupSpec"]["template"]]
    templates += [group["template"] for group in spec["workerGroupSpecs"]]
    for kind in ("Deployment", "StatefulSet", "Job"):
        templates += [r["spec"]["template"] for r in of_kind("multi-tenant", kind)]
    templates += of_kind("multi-tenant", "Pod")
    labels = {t["metadata"]["labels"]["app.kubernetes.io/component"] for t in templates}
    for policy in of_kind("multi-tenant", "NetworkPolicy"):
        text = json.dumps(policy["spec"])
        selectors = [p.split('"')[1] for p in text.split('"app.kubernetes.io/component": ')[1:]]
        assert set(selectors) <= labels


def test_a_cache_on_a_volume_ends_before_the_volume_does() -> None:
    """A pod that fills its emptyDir is evicted, and its GPUs with it."""
    told = {
        name: environment(pod["containers"][0]).get("PENSTOCK_CACHE_GIB")
        for scenario in ("minimal", "h200", "gb200")
        for name, pod in pod_specs(scenario).items()
        if name.startswith("worker/")
    }
    assert told == {
        "worker/cpu": "18",  # of 20Gi
        "worker/h200-whole": None,  # a host path: the node's disk is the bound
        "worker/h200-single": None,
        "worker/gb200-trays": "1800",  # by the values
    }


@pytest.mark.parametrize(("size", "gib"), [("2Ti", "1843.2"), ("500G", "419.1"), ("1Mi", None)])
def test_bound_of_a_cache_follows_the_size_of_its_volume(size: str, gib: str | None) -> None:
    group = {
        "name": "cpu", "pool": "cpu", "image": "engineCpu", "cache": {"size": size},
        "resources": {"cpu": "1", "memory": "4Gi"},
    }  # fmt: skip
    made = resources(render({"ray": {"workerGroups": [group]}}))
    (cluster,) = (one for one in made if one["kind"] == "RayCluster")
    pod = cluster["spec"]["workerGroupSpecs"][0]["template"]["spec"]
    assert environment(pod["containers"][0]).get("PENSTOCK_CACHE_GIB") == gib


def test_the_hubs_token_is_there_for_whoever_asks_the_hub() -> None:
    """The controller pins what a deploy names, hosts fetch it."""
    token = {"secretKeyRef": {"name": "penstock-hf", "key": "token"}}
    pods = pod_specs("h200")
    for name in ("Deployment/demo-controller", "worker/h200-whole", "worker/h200-single"):
        assert environment(pods[name]["containers"][0])["HF_TOKEN"] == token


def test_a_single_gateway_keeps_no_node_from_being_drained() -> None:
    def budgets(gateways: int) -> list[str]:
        made = resources(render({"gateway": {"replicas": gateways}}))
        return [r["metadata"]["name"] for r in made if r["kind"] == "PodDisruptionBudget"]

    assert budgets(1) == [] and budgets(2) == ["demo-gateway"]


def test_preflight_looks_for_every_secret_that_pods_need() -> None:
    for scenario in SCENARIOS:
        needed, checked = set[tuple[str, str]](), set[tuple[str, str]]()
        for name, pod in pod_specs(scenario).items():
            for container in containers(pod):
                for value in environment(container).values():
                    if isinstance(value, dict) and "secretKeyRef" in value:
                        place = value["secretKeyRef"]["name"], value["secretKeyRef"]["key"]
                        (checked if name.endswith("preflight") else needed).add(place)
        assert needed <= checked, scenario
