"""Which metrics a text speaks of, and which there are."""

import json
import re
from collections.abc import Iterator
from typing import Any

import yaml

from serving import metrics
from serving.controller.federation import FAMILIES, HISTOGRAMS
from serving.metrics import Kind
from tests.helm.chart import CHART, ROOT

IN_PROSE = re.compile(r"`((?:penstock_|vllm:)[a-z0-9_:]+)(?:\{[^`]*\})?`")
FOREIGN = {"probe_ssl_earliest_cert_expiry"}
"""From the blackbox exporter."""


def declared() -> set[str]:
    """All series' names that our processes can give."""
    found = set(FAMILIES)
    for metric in metrics.ALL:
        found.add(metric.name)
        if metric.kind is Kind.HISTOGRAM:
            found |= {f"{metric.name}_{end}" for end in ("bucket", "sum", "count")}
        if metric.kind is Kind.SUMMARY:
            found |= {f"{metric.name}_{end}" for end in ("sum", "count")}
    return found | {f"{name}_{end}" for name in HISTOGRAMS for end in ("bucket", "sum", "count")}


def rules() -> list[dict[str, Any]]:
    """All rules."""
    text = (CHART / "files" / "rules" / "penstock.yaml").read_text()
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def dashboard_queries() -> Iterator[tuple[str, str]]:
    """Each query of each dashboard, with a name for it."""
    for path in sorted((CHART / "files" / "dashboards").glob("*.json")):
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel.get("targets", []):
                yield f"{path.stem}/{panel['title']}/{target['refId']}", target["expr"]


def names_in(expression: str) -> set[str]:
    """The metrics of a query, recorded ones aside."""
    found = re.findall(r"\b(?:penstock_[a-z0-9_]+|vllm:[a-z0-9_]+)", expression)
    return set(found)


def prose() -> Iterator[tuple[str, set[str]]]:
    """Metrics that the documentation names, the generated reference aside."""
    pages = [p for p in (ROOT / "docs").rglob("*.md") if "reference" not in p.parts]
    for path in [*pages, ROOT / "README.md"]:
        yield str(path.relative_to(ROOT)), set(IN_PROSE.findall(path.read_text()))
