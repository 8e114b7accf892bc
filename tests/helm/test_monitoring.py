"""Dashboards, rules and pages speak only of metrics that are declared."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from tests.helm.chart import CHART, ROOT
from tests.helm.metric_names import dashboard_queries, declared, names_in, prose, rules

DASHBOARDS = sorted((CHART / "files" / "dashboards").glob("*.json"))
PANEL_SCHEMA = {
    "type": "object",
    "required": ["id", "type", "title", "gridPos"],
    "properties": {
        "id": {"type": "integer"},
        "type": {"enum": ["row", "timeseries", "stat"]},
        "gridPos": {
            "required": ["x", "y", "w", "h"],
            "properties": {"x": {"minimum": 0, "maximum": 23}, "w": {"minimum": 1, "maximum": 24}},
        },
        "targets": {
            "type": "array",
            "minItems": 1,
            "items": {
                "required": ["refId", "expr", "legendFormat", "datasource"],
                "properties": {"expr": {"type": "string", "minLength": 1}},
            },
        },
    },
}
SCHEMA = {
    "type": "object",
    "required": ["uid", "title", "schemaVersion", "panels", "templating", "time"],
    "properties": {
        "uid": {"type": "string", "maxLength": 40, "pattern": "^[a-z0-9-]+$"},
        "schemaVersion": {"type": "integer", "minimum": 36},
        "panels": {"type": "array", "minItems": 1, "items": PANEL_SCHEMA},
        "templating": {"required": ["list"]},
    },
}
"""The parts of Grafana's dashboard model (schema version 39) that we use, as its documentation
describes them; Grafana itself is not here."""


def test_dashboards_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/dashboards.py", "--check"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboard_is_what_grafana_takes(path: Path) -> None:
    board = json.loads(path.read_text())
    jsonschema.validate(board, SCHEMA)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    assert all(p["gridPos"]["x"] + p["gridPos"]["w"] <= 24 for p in board["panels"])
    known = {v["name"] for v in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", path.read_text()))
    assert used <= known


def test_dashboards_query_declared_metrics() -> None:
    for name, query in dashboard_queries():
        assert names_in(query) <= declared(), name


def test_rules_use_declared_metrics() -> None:
    for rule in rules():
        assert names_in(rule["expr"]) <= declared(), rule


def test_recorded_names_exist() -> None:
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    used = {n for rule in rules() for n in re.findall(r"penstock:[a-z0-9_:]+", rule["expr"])}
    assert used <= recorded


def test_pages_name_declared_metrics() -> None:
    for path, names in prose():
        assert names <= declared(), path


def test_dashboards_cover_all_of_the_subjects() -> None:
    subjects = {"fleet", "model", "tenant", "cold-start", "cost", "autoscaler"}
    assert {path.stem for path in DASHBOARDS} == subjects
