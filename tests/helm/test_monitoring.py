"""Dashboards, rules and pages speak only of metrics that are declared."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from tests.helm.chart import CHART, ROOT
from tests.helm.grafana_schema import DASHBOARD, WIDTH
from tests.helm.metric_names import dashboard_queries, declared, names_in, prose, rules

DASHBOARDS = sorted((CHART / "files" / "dashboards").glob("*.json"))


def test_dashboards_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/dashboards.py", "--check"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_dashboard_is_what_grafana_takes(path: Path) -> None:
    board = json.loads(path.read_text())
    jsonschema.Draft202012Validator(DASHBOARD).validate(board)
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    for panel in board["panels"]:
        names = [target["refId"] for target in panel.get("targets", ())]
        assert len(names) == len(set(names)), panel["title"]
    known = {v["name"] for v in board["templating"]["list"]}
    used = set(re.findall(r"\$\{?([a-z]\w*)", path.read_text()))
    assert used <= known


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_panels_neither_overlap_nor_stick_out(path: Path) -> None:
    taken: dict[tuple[int, int], int] = {}
    for panel in json.loads(path.read_text())["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= WIDTH, panel["title"]
        for x in range(at["x"], at["x"] + at["w"]):
            for y in range(at["y"], at["y"] + at["h"]):
                assert taken.setdefault((x, y), panel["id"]) == panel["id"], panel["title"]


def test_schema_of_dashboards_is_one_and_refuses_what_grafana_would_drop() -> None:
    jsonschema.Draft202012Validator.check_schema(DASHBOARD)
    check = jsonschema.Draft202012Validator(DASHBOARD)

    def board() -> Any:
        return json.loads(DASHBOARDS[0].read_text())

    faults: dict[str, Any] = {name: board() for name in ("field", "unit", "place", "query", "kind")}
    faults["field"]["panel"] = []
    faults["unit"]["panels"][1]["fieldConfig"]["defaults"]["unit"] = "seconds"
    faults["place"]["panels"][1]["gridPos"]["x"] = WIDTH
    del faults["query"]["panels"][1]["targets"][0]["datasource"]
    faults["kind"]["panels"][1]["type"] = "graph"
    for name, faulty in faults.items():
        assert not check.is_valid(faulty), name


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
