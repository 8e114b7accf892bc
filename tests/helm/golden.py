"""Short renders for review: `python -m tests.helm.golden` writes them anew."""

from collections.abc import Iterator
from pathlib import Path

from tests.helm.chart import (
    SCENARIOS,
    Resource,
    containers,
    environment,
    of_kind,
    pod_specs,
    resources_of,
)

FOLDER = Path(__file__).parent / "golden"


def summary(scenario: str) -> str:
    """Resources, then each pod's commands, plain environment, limits and volumes."""
    return "\n".join(lines(scenario)) + "\n"


def lines(scenario: str) -> Iterator[str]:
    for resource in resources_of(scenario):
        yield f"{resource['kind']} {resource['metadata']['name']}"
    for name, pod in pod_specs(scenario).items():
        yield f"\n{name} grace={pod.get('terminationGracePeriodSeconds', 30)}s"
        for key in ("nodeSelector", "resourceClaims", "runtimeClassName"):
            if key in pod:
                yield f"  {key}: {pod[key]}"
        for container in containers(pod):
            yield from container_lines(container)
        for volume in pod.get("volumes", []):
            (kind,) = (key for key in volume if key != "name")
            yield f"  volume {volume['name']}: {kind}"
    for cluster in of_kind(scenario, "RayCluster"):
        for group in cluster["spec"]["workerGroupSpecs"]:
            yield f"\ngroup {group['groupName']} x{group['replicas']}: " + ", ".join(
                f"{k}={v}" for k, v in group["rayStartParams"].items() if k.startswith("num")
            )


def container_lines(container: Resource) -> Iterator[str]:
    command = " ".join(container.get("command", []))
    yield f"  {container['name']}: {command[:90]}"
    yield f"    image {container['image']}"
    yield f"    limits {container['resources'].get('limits')}"
    for name, value in environment(container).items():
        if isinstance(value, dict):
            ((_, where),) = value.items()
            value = where.get("fieldPath") or f"<{where['name']}/{where['key']}>"
        yield f"    {name}={value}"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for scenario in SCENARIOS:
        (FOLDER / f"{scenario}.txt").write_text(summary(scenario))
