"""The chart under test: its renders as plain objects."""

from functools import cache
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "penstock"
SCENARIOS = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").iterdir())

Resource = dict[str, Any]


def values_of(scenario: str) -> dict[str, Any]:
    """The values of one of `ci/*-values.yaml`."""
    return yaml.safe_load((CHART / "ci" / f"{scenario}-values.yaml").read_text())


@cache
def rendered(scenario: str) -> dict[str, str]:
    """Template path to text."""
    return render(values_of(scenario))


def render(values: dict[str, Any], folder: Path = CHART) -> dict[str, str]:
    """Renders the chart; raises HelmError where it refuses the values."""
    with Chart.load(folder) as chart:
        return chart.render(values, name="demo", namespace="llm")


def resources(texts: dict[str, str]) -> list[Resource]:
    """All resources of a render."""
    return [
        document
        for path, text in sorted(texts.items())
        if not path.endswith("NOTES.txt")
        for document in yaml.load_all(text, Loader=yaml.CSafeLoader)  # ten times as fast
        if document
    ]


@cache
def resources_of(scenario: str) -> tuple[Resource, ...]:
    """All resources of a scenario, to be left as they are."""
    return tuple(resources(rendered(scenario)))


def of_kind(scenario: str, kind: str) -> list[Resource]:
    """The resources of one kind."""
    return [r for r in resources_of(scenario) if r["kind"] == kind]


def pod_specs(scenario: str) -> dict[str, Resource]:
    """Every pod that the chart makes, by a name."""
    found = {}
    for resource in resources_of(scenario):
        name = f"{resource['kind']}/{resource['metadata']['name']}"
        match resource["kind"]:
            case "Pod":
                found[name] = resource["spec"]
            case "StatefulSet" | "Deployment" | "Job":
                found[name] = resource["spec"]["template"]["spec"]
            case "RayCluster":
                spec = resource["spec"]
                found["head"] = spec["headGroupSpec"]["template"]["spec"]
                for group in spec["workerGroupSpecs"]:
                    found[f"worker/{group['groupName']}"] = group["template"]["spec"]
    return found


def containers(pod: Resource) -> list[Resource]:
    """All containers of a pod."""
    return [*pod.get("initContainers", []), *pod["containers"]]


def environment(container: Resource) -> dict[str, Any]:
    """Variables to their value, or to where it comes from."""
    return {e["name"]: e.get("value", e.get("valueFrom")) for e in container.get("env", [])}
