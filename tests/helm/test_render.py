"""Each scenario renders, lints, and is what Kubernetes and the operators accept."""

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
from helm_python import lint

from tests.helm.chart import CHART, ROOT, SCENARIOS, rendered, resources_of, values_of
from tests.helm.golden import summary

VERSIONS = ("1.31", "1.36")
CRD_SCHEMAS = ROOT.parent / "shared" / "schemas"
CUSTOM = {
    "RayCluster": "rayclusters.v1",
    "ServiceMonitor": "servicemonitors.v1",
    "PodMonitor": "podmonitors.v1",
    "PrometheusRule": "prometheusrules.v1",
}
WITHOUT_SCHEMA = {"ComputeDomain", "HTTPRoute"}


def closed(schema: Any) -> Any:
    """A CRD's schema as the API server reads it in strict mode: unknown fields are refused."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("pattern", None)
        made["type"] = ["integer", "string"]
    has_fields = isinstance(schema.get("properties"), dict) and schema.get("type") == "object"
    if has_fields and not schema.get("x-kubernetes-preserve-unknown-fields"):
        made.setdefault("additionalProperties", False)
    return made


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario_lints_without_warnings(scenario: str) -> None:
    report = lint(CHART, values_of(scenario), strict=True, kube_version="v1.31.0")
    worse_than_info = [m for m in report["messages"] if m["severity"] > 1]
    assert worse_than_info == [] and report["errors"] == []


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario_is_valid_kubernetes(scenario: str, version: str) -> None:
    for resource in resources_of(scenario):
        if resource["kind"] not in CUSTOM.keys() | WITHOUT_SCHEMA:
            kubernetes_validate.validate(resource, version, strict=True)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_scenario_is_valid_for_the_operators(scenario: str) -> None:
    if not CRD_SCHEMAS.is_dir():
        pytest.skip("the schemas of the custom resources are not beside this checkout")
    checked = 0
    for resource in resources_of(scenario):
        if name := CUSTOM.get(resource["kind"]):
            packed = (CRD_SCHEMAS / f"{name}.schema.json.gz").read_bytes()
            schema = closed(json.loads(gzip.decompress(packed)))
            schema["properties"] |= {k: {} for k in ("apiVersion", "kind", "metadata")}
            jsonschema.Draft202012Validator(schema).validate(resource)
            checked += 1
    assert checked


def test_values_and_schema_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "scripts/chart.py", "--check"],
        cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_notes_end_in_a_curl_line() -> None:
    notes = rendered("minimal")["penstock/templates/NOTES.txt"].strip().splitlines()
    assert notes[-1].strip().startswith("curl -N http://127.0.0.1:8000/v1/chat/completions")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_render_is_the_reviewed_one(scenario: str) -> None:
    """The golden files hold what differs between scenarios: kinds, names, commands, limits."""
    golden = Path(__file__).parent / "golden" / f"{scenario}.txt"
    assert summary(scenario) == golden.read_text(), "run python -m tests.helm.golden and review"
