"""A host's part of an engine that several hosts run, as vLLM's command line and environment."""

from pathlib import Path

from models.manifest import Manifest, parse_manifest
from serving.engine.arguments import vllm_arguments, vllm_environment
from serving.engine.gang import gang_environment, interface_of
from serving.protocol import GangPlace

FIRST = GangPlace(leader="e1", rank=0, size=2, address="10.0.0.1", port=20001)
SECOND = FIRST.model_copy(update={"rank": 1})


def model(**resources: object) -> Manifest:
    return parse_manifest({"name": "m", "source": "file:///w", "resources": resources})


def test_parts_of_a_gang_meet_at_the_first_ones_address() -> None:
    manifest = model(accelerator="gb200", gpus=8, tensor_parallel=8, hosts=2)
    first, second = (vllm_arguments(manifest, Path("/w"), gang=p) for p in (FIRST, SECOND))
    both = {"--nnodes=2", "--master-addr=10.0.0.1", "--master-port=20001"}
    assert {*both, "--node-rank=0", "--distributed-executor-backend=mp"} <= set(first)
    assert "--headless" not in first
    assert {*both, "--node-rank=1", "--headless"} <= set(second)


def test_engine_of_one_host_knows_nothing_of_gangs() -> None:
    assert not any("nnodes" in arg or "headless" in arg for arg in vllm_arguments(model(), Path()))
    assert vllm_environment(model(), ()) == {}


def test_ranks_on_a_cpu_are_not_bound_to_numa_nodes() -> None:
    assert vllm_environment(model(tensor_parallel=2), ()) == {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}


def test_parts_of_a_gang_are_told_their_own_address() -> None:
    found = gang_environment("127.0.0.1")
    assert found["VLLM_HOST_IP"] == "127.0.0.1"
    assert found["GLOO_SOCKET_IFNAME"] == found["NCCL_SOCKET_IFNAME"] == interface_of("127.0.0.1")
    assert set(gang_environment("192.0.2.200")) == {"VLLM_HOST_IP"}  # no interface has it
