"""Each alert fires where it should, and stays silent where it should not, by promtool."""

import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from tests.helm.chart import CHART, ROOT

RULES = CHART / "files" / "rules" / "penstock.yaml"
RUNBOOKS = ROOT / "docs" / "operations" / "runbooks"
promtool = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(promtool is None, reason="promtool is not installed")


class Case(NamedTuple):
    """Series (Prometheus' notation, one sample a minute, or each ten minutes where `days`) and when
    they are looked at."""

    at: str
    fires: dict[str, str]
    silent: dict[str, str]
    labels: dict[str, str]
    days: bool = False


GUIDE = {"model": "guide"}


def requests(ok: int, failed: int) -> dict[str, str]:
    """So many requests from one sample to the next, for three days and more."""
    name = 'penstock_requests_total{{model="guide",route="/v1/x",status="{}"}}'
    return {name.format(200): f"0+{ok}x500", name.format(503): f"0+{failed}x500"}


def first_bytes(all_of_them: int, in_time: int) -> dict[str, str]:
    name = "penstock_time_to_first_byte_seconds"
    return {
        f'{name}_count{{model="guide"}}': f"0+{all_of_them}x500",
        f'{name}_bucket{{model="guide",le="2.0"}}': f"0+{in_time}x500",
    }


def starts(slow: int) -> dict[str, str]:
    name = "penstock_cold_start_whole_seconds"
    fast = {"60.0": f"0+{2 - slow}x60", "120.0": "0+2x60", "+Inf": "0+2x60"}
    buckets = {f'{name}_bucket{{model="guide",le="{le}"}}': v for le, v in fast.items()}
    return {**buckets, f'{name}_count{{model="guide"}}': "0+2x60"}


def model(name: str, silent: str, fires: str, more: str = "") -> tuple[dict[str, str], ...]:
    series = f'{name}{{model="guide"{more}}}'
    return {series: fires}, {series: silent}


CASES: dict[str, Case] = {
    # 2 % of errors are 20 times what 99.9 % allow; 0.05 % are half of it.
    "PenstockErrorBudgetBurnsFast": Case("2h", requests(98, 2), requests(9995, 5), GUIDE),
    # 0.2 % is burnt twice as fast as it may: nobody is woken, but within days it is told.
    "PenstockErrorBudgetBurnsSlowly": Case("75h", requests(998, 2), requests(9995, 5), GUIDE, True),
    "PenstockFirstByteLate": Case("2h", first_bytes(100, 80), first_bytes(100, 99), GUIDE),
    "PenstockQueueOld": Case(
        "10m", *model("penstock_queue_oldest_wait_seconds", "5x20", "20+10x20"), GUIDE
    ),
    "PenstockModelFailed": Case(
        "10m",
        {'penstock_model_state{model="guide",state="failed"}': "1x20"},
        {'penstock_model_state{model="guide",state="ready"}': "1x20"},
        GUIDE,
    ),
    "PenstockEnginesBreak": Case(
        "15m", *model("penstock_upstream_errors_total", "0 1 1 1 2x20", "0+1x20"), GUIDE
    ),
    "PenstockColdStartSlow": Case("40m", starts(slow=1), starts(slow=0), GUIDE),
    "PenstockCapacityUnschedulable": Case(
        "10m", *model("penstock_engines_unschedulable", "0 1 0 1 0 0 1 0 0 0", "1x20"), GUIDE
    ),
    "PenstockControllerGone": Case(
        "10m", {}, {'penstock_hosts{pool="cpu",state="free"}': "1x20"}, {}
    ),
    "PenstockEnginesNotScraped": Case(
        "30m",
        {
            'penstock_engine_scrapes_total{outcome="ok"}': "0+4x40",
            'penstock_engine_scrapes_total{outcome="failed"}': "0+4x40",
        },
        {
            'penstock_engine_scrapes_total{outcome="ok"}': "0+40x40",
            'penstock_engine_scrapes_total{outcome="failed"}': "0+1x40",
        },
        {},
    ),
    "PenstockMeteringDrifts": Case(
        "20m",
        {'penstock_metering_drift_tokens{between="usage",kind="prompt"}': "-5000x30"},
        {'penstock_metering_drift_tokens{between="usage",kind="prompt"}': "0 5000 0x30"},
        {"between": "usage", "kind": "prompt"},
    ),
    "PenstockUsageUnshipped": Case(
        "20m",
        {'penstock_journal_backlog_bytes{instance="g"}': "100000000x30"},
        {'penstock_journal_backlog_bytes{instance="g"}': "4096x30"},
        {"instance": "g"},
    ),
    "PenstockJournalDamaged": Case(
        "10m",
        {"penstock_journal_lost_records_total": "0 0 0 1x20"},
        {"penstock_journal_lost_records_total": "3x20"},
        {},
    ),
    # The clock of rule tests begins at 0.
    "PenstockKeyExpires": Case(
        "10m",
        {'penstock_key_expiry_timestamp_seconds{role="inference"}': "500000x20"},
        {'penstock_key_expiry_timestamp_seconds{role="inference"}': "5000000x20"},
        {"role": "inference"},
    ),
    "PenstockCertificateExpires": Case(
        "10m",
        {'probe_ssl_earliest_cert_expiry{job="penstock",instance="x"}': "900000x20"},
        {'probe_ssl_earliest_cert_expiry{job="penstock",instance="x"}': "9000000x20"},
        {"job": "penstock", "instance": "x"},
    ),
}


@cache
def groups() -> list[dict[str, Any]]:
    """As they stand in the file, to be left as they are."""
    found: list[dict[str, Any]] = yaml.load(RULES.read_text(), Loader=yaml.CSafeLoader)["groups"]
    return found


def alerts() -> list[dict[str, Any]]:
    return [rule for group in groups() for rule in group["rules"] if "alert" in rule]


def bare_rules() -> dict[str, Any]:
    """The rules without their annotations: those hold values, which are not what is tested."""
    bare = yaml.safe_load(RULES.read_text())
    for group in bare["groups"]:
        for rule in group["rules"]:
            rule.pop("annotations", None)
    return bare


def rule_test(name: str, case: Case, fires: bool) -> dict[str, Any]:
    """A file for promtool."""
    (severity,) = (rule["labels"]["severity"] for rule in alerts() if rule["alert"] == name)
    expected = [{"exp_labels": {**case.labels, "severity": severity}}] if fires else []
    series = case.fires if fires else case.silent
    return {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "30m" if case.days else "1m",
        # Else in any order: an alert would look for what was recorded at the evaluation before.
        "group_eval_order": [group["name"] for group in groups()],
        "tests": [{
            "interval": "10m" if case.days else "1m",
            "input_series": [{"series": s, "values": v} for s, v in series.items()],
            "alert_rule_test": [
                {"eval_time": case.at, "alertname": name, "exp_alerts": expected}
            ],
        }],
    }  # fmt: skip


def run_promtool(folder: Path, fires: bool) -> subprocess.CompletedProcess[str]:
    """All cases at once: a process for each would take ten times as long."""
    (folder / "rules.yaml").write_text(yaml.safe_dump(bare_rules()))
    for name, case in CASES.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(rule_test(name, case, fires)))
    return subprocess.run(
        [promtool or "", "test", "rules", *(f"{name}.yaml" for name in CASES)],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_every_alert_is_tested() -> None:
    assert {rule["alert"] for rule in alerts()} == CASES.keys()


@needs_promtool
def test_rules_are_valid() -> None:
    done = subprocess.run(
        [promtool or "", "check", "rules", "--lint=all", "--lint-fatal", str(RULES)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
@pytest.mark.parametrize("fires", [True, False], ids=["fires", "stays silent"])
def test_each_alert_fires_and_stays_silent(fires: bool, tmp_path: Path) -> None:
    done = run_promtool(tmp_path, fires)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("SUCCESS") == len(CASES)


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: rule["alert"])
def test_every_alert_has_a_runbook(rule: dict[str, Any]) -> None:
    page = RUNBOOKS / rule["annotations"]["runbook_url"].rpartition("/")[2]
    text = page.read_text()
    assert rule["alert"] in text
    for part in ("## What it means", "## What to look at", "## What to do"):
        assert part in text
