"""A host's part of an engine that several hosts run together: vLLM's arguments and environment.

vLLM's own executor for several nodes is used, without Ray: the ranks of all hosts meet at an
address of the first host, which alone has the API server and the scheduler. Pure, but for a look at
the machine's network interfaces.
"""

from collections.abc import Iterator

import psutil

from models.manifest import Manifest
from serving.protocol import GangPlace


def gang_arguments(place: GangPlace) -> tuple[str, ...]:
    """What vLLM's command line has more on each host of a gang."""
    return tuple(_arguments(place))


def _arguments(place: GangPlace) -> Iterator[str]:
    yield f"--nnodes={place.size}"
    yield f"--node-rank={place.rank}"
    yield f"--master-addr={place.address}"
    yield f"--master-port={place.port}"
    if place.rank:
        yield "--headless"


def gang_environment(address: str) -> dict[str, str]:
    """What the environment of each host's part has more: at which address it can be reached.

    Else vLLM and its libraries look for an address by themselves, and take that of a route out of
    the cluster, or what the host's own name stands for, which may be loopback.

    Args:
        address: Of this host, at which its engines listen.
    """
    found = {"VLLM_HOST_IP": address}
    if (interface := interface_of(address)) is not None:
        for library in ("GLOO", "NCCL", "TP"):
            found[f"{library}_SOCKET_IFNAME"] = interface
    return found


def interface_of(address: str) -> str | None:
    """The network interface that has an address; None where none has."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(known.address.partition("%")[0] == address for known in addresses):
            return name
    return None


def ranks_environment(manifest: Manifest) -> dict[str, str]:
    """What the environment of an engine of several ranks has more, on a CPU.

    vLLM binds each rank to a NUMA node of its own and refuses to start where there are fewer; our
    engines have one thread a rank, which the kernel may place.
    """
    resources = manifest.resources
    if resources.accelerator != "cpu" or resources.ranks == 1:
        return {}
    return {"VLLM_CPU_OMP_THREADS_BIND": "nobind"}
