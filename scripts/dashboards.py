"""Writes Grafana's dashboards into the chart; `--check` only compares them.

A dashboard is rows of panels, a panel is queries with legends; all else is the same everywhere.
"""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "helm" / "penstock" / "files" / "dashboards"
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WIDTH, HEIGHT = 24, 8
M = '{model=~"$model"}'


@dataclass(frozen=True)
class Panel:
    """One graph, or one number where `kind` is `stat`."""

    title: str
    unit: str
    queries: dict[str, str]  # legend to expression
    about: str = ""
    kind: str = "timeseries"


@dataclass(frozen=True)
class Dashboard:
    """A page; `variables` are labels to choose from, each with the series that has them all."""

    name: str
    title: str
    rows: dict[str, list[Panel]]
    variables: dict[str, str] = field(default_factory=dict)


def p(quantile: float, histogram: str, by: str = "model", where: str = M) -> str:
    """A quantile of a histogram."""
    rate = f"rate({histogram}_bucket{where}[$__rate_interval])"
    return f"histogram_quantile({quantile}, sum by ({by}, le) ({rate}))"


def quantiles(histogram: str, by: str = "model", where: str = M) -> dict[str, str]:
    """Median, p95 and p99."""
    legend = "" if by == "model" else f"{{{{{by}}}}} "
    return {f"{legend}p{round(q * 100)}": p(q, histogram, by, where) for q in (0.5, 0.95, 0.99)}


def rate(metric: str, by: str, where: str = "") -> str:
    """A counter's rate, summed."""
    return f"sum by ({by}) (rate({metric}{where}[$__rate_interval]))"


def total(metric: str, by: str, where: str = "") -> str:
    """A gauge, summed over processes."""
    return f"sum by ({by}) ({metric}{where})"


MODEL = {"model": "penstock_model_state"}

FLEET = Dashboard(
    "fleet",
    "Penstock: fleet",
    {
        "Now": [
            Panel("Requests", "reqps", {"all": "sum(rate(penstock_requests_total[$__rate_interval]))"}, kind="stat"),
            Panel("In flight", "short", {"all": "sum(penstock_requests_in_flight)"}, kind="stat"),
            Panel("Waiting", "short", {"all": "sum(penstock_queue_depth)"}, kind="stat"),
            Panel("Models by state", "short", {"{{state}}": "count by (state) (penstock_model_state)"}, kind="stat"),
        ],
        "Traffic": [
            Panel("Requests by status", "reqps", {"{{status}}": rate("penstock_requests_total", "status")}),
            Panel("Refusals by reason", "reqps", {"{{reason}}": rate("penstock_rejects_total", "reason")}),
            Panel("Tokens", "short", {"{{kind}}/s": rate("penstock_tokens_total", "kind")}),
            Panel("Oldest wait by class of service", "s", {"{{tier}}": "max by (tier) (penstock_queue_oldest_wait_seconds)"}),
        ],
        "Machines": [
            Panel("Hosts", "short", {"{{pool}} {{state}}": total("penstock_hosts", "pool, state")}),
            Panel("Engines", "short", {"{{phase}}": total("penstock_engines", "phase")}),
            Panel("Engines without a host", "short", {"{{model}}": total("penstock_engines_unschedulable", "model")}),
        ],
        "GPUs (where a driver tells)": [
            Panel("Busy", "percentunit", {"{{host}} {{gpu}}": "penstock_gpu_utilization_ratio"}),
            Panel("Memory in use", "percentunit", {"{{host}} {{gpu}}": "penstock_gpu_memory_used_bytes / penstock_gpu_memory_total_bytes"}),
            Panel("Power", "watt", {"{{host}} {{gpu}}": "penstock_gpu_power_watts"}),
        ],
        "Metering": [
            Panel("Journal not yet shipped", "bytes", {"{{instance}}": "max by (instance) (penstock_journal_backlog_bytes)"}),
            Panel("Settled requests", "reqps", {"{{status}}": rate("penstock_usage_settled_total", "status")}),
        ],
    },
)  # fmt: skip

MODELS = Dashboard(
    "model",
    "Penstock: model",
    {
        "Latency": [
            Panel("First byte", "s", quantiles("penstock_time_to_first_byte_seconds")),
            Panel("Time per token", "s", quantiles("penstock_time_per_output_token_seconds")),
            Panel("Whole answer", "s", quantiles("penstock_request_seconds")),
        ],
        "Queue": [
            Panel("Waiting by class of service", "short", {"{{model}} {{tier}}": total("penstock_queue_depth", "model, tier", M)}),
            Panel("Oldest wait by class of service", "s", {"{{model}} {{tier}}": f"max by (model, tier) (penstock_queue_oldest_wait_seconds{M})"}),
            Panel("Wait for a slot", "s", quantiles("penstock_queue_wait_seconds")),
        ],
        "Traffic": [
            Panel("Requests by status", "reqps", {"{{status}}": rate("penstock_requests_total", "status", M)}),
            Panel("Tokens", "short", {"{{kind}}/s": rate("penstock_tokens_total", "kind", M)}),
            Panel("Retries and broken attempts", "reqps", {
                "retries": f"sum(rate(penstock_upstream_retries_total{M}[$__rate_interval])) or vector(0)",
                "broken": f"sum(rate(penstock_upstream_errors_total{M}[$__rate_interval])) or vector(0)",
            }),
        ],
        "Engines (vLLM's own metrics)": [
            Panel("Running and waiting", "short", {
                "running": f"sum(vllm:num_requests_running{M})",
                "waiting": f"sum(vllm:num_requests_waiting{M})",
            }),
            Panel("KV cache", "percentunit", {"{{replica}}": f"max by (replica) (vllm:kv_cache_usage_perc{M})"}),
            Panel("Prefix cache hits", "percentunit", {
                "hits": f"sum(rate(vllm:prefix_cache_hits_total{M}[$__rate_interval])) / "
                f"sum(rate(vllm:prefix_cache_queries_total{M}[$__rate_interval]))",
            }),
            Panel("Between tokens", "s", quantiles("vllm:inter_token_latency_seconds")),
            Panel("Generated tokens by revision", "short", {"revision {{revision}}": rate("vllm:generation_tokens_total", "revision", M)}),
        ],
    },
    MODEL,
)  # fmt: skip

TENANT = Dashboard(
    "tenant",
    "Penstock: tenant",
    {
        "Traffic (with PENSTOCK_METRICS_BY_TENANT)": [
            Panel("Requests", "reqps", {"{{organisation}} {{outcome}}": rate("penstock_tenant_requests_total", "organisation, outcome", '{organisation=~"$organisation"}')}),
            Panel("Tokens", "short", {"{{organisation}} {{kind}}/s": rate("penstock_tenant_tokens_total", "organisation, kind", '{organisation=~"$organisation"}')}),
            Panel("Share of all tokens", "percentunit", {"{{organisation}}": 'sum by (organisation) (rate(penstock_tenant_tokens_total{organisation=~"$organisation"}[$__rate_interval])) / ignoring(organisation) group_left sum(rate(penstock_tenant_tokens_total[$__rate_interval]))'}),
        ],
        "Keys": [
            Panel("Next key to end", "s", {"{{role}}": "min by (role) (penstock_key_expiry_timestamp_seconds) - time()"}, "Empty where no key has an end.", "stat"),
        ],
    },
    {"organisation": "penstock_tenant_requests_total"},
)  # fmt: skip

COLD_START = Dashboard(
    "cold-start",
    "Penstock: cold start",
    {
        "From demand to the first token": [
            Panel("Whole", "s", {f"p{round(q * 100)}": p(q, "penstock_cold_start_whole_seconds").replace("$__rate_interval", "$__range") for q in (0.5, 0.9)}),
            Panel("Starts", "short", {"{{model}} in an hour": f"sum by (model) (increase(penstock_cold_start_whole_seconds_count{M}[1h]))"}),
        ],
        "By phase": [
            Panel("Mean of each phase", "s", {
                "{{phase}}": f"sum by (phase) (rate(penstock_cold_start_seconds_sum{M}[$__range])) / "
                f"sum by (phase) (rate(penstock_cold_start_seconds_count{M}[$__range]))",
            }, "Each from the end of the phase before it; together they are the whole."),
            Panel("p95 of each phase, all models", "s", {"{{phase}}": "histogram_quantile(0.95, sum by (phase, le) (rate(penstock_cold_start_phase_seconds_bucket[$__range])))"}),
        ],
    },
    MODEL,
)  # fmt: skip

COST = Dashboard(
    "cost",
    "Penstock: cost",
    {
        "Accelerators (a host of pool cpu counts as one)": [
            Panel("Held", "short", {"{{pool}} {{state}}": total("penstock_accelerators", "pool, state")}),
            Panel("Accelerator-hours in the range", "short", {"{{pool}} {{state}}": "sum by (pool, state) (avg_over_time(penstock_accelerators[$__range])) * $__range_s / 3600"}, kind="stat"),
            Panel("Idle share", "percentunit", {"{{pool}}": 'sum by (pool) (penstock_accelerators{state="free"}) / sum by (pool) (penstock_accelerators)'}),
        ],
        "What they gave": [
            Panel("Completion tokens for each bound accelerator-hour", "short", {"all": 'sum(increase(penstock_tokens_total{kind="completion"}[$__range])) / (sum(avg_over_time(penstock_accelerators{state="bound"}[$__range])) * $__range_s / 3600)'}, kind="stat"),
            Panel("Prompt tokens from the cache", "percentunit", {"{{model}}": 'sum by (model) (rate(penstock_tokens_total{kind="cached"}[$__rate_interval])) / sum by (model) (rate(penstock_tokens_total{kind="prompt"}[$__rate_interval]))'}),
        ],
    },
)  # fmt: skip

AUTOSCALER = Dashboard(
    "autoscaler",
    "Penstock: autoscaler",
    {
        "Targets": [
            Panel("Wanted", "short", {"{{model}}": f"max by (model) (penstock_engines_wanted{M})"}),
            Panel("There", "short", {"{{phase}}": total("penstock_engines", "phase", M)}),
            Panel("Reason of the last decision", "short", {"{{model}}: {{reason}}": f"max by (model, reason) (penstock_autoscaler_decision{M})"}),
        ],
        "What it sees": [
            Panel("Waiting", "short", {"{{model}}": total("penstock_queue_depth", "model", M)}),
            Panel("In flight", "short", {"{{model}}": total("penstock_requests_in_flight", "model", M)}),
            Panel("Engines without a host", "short", {"{{model}}": total("penstock_engines_unschedulable", "model", M)}),
        ],
        "Pools": [
            Panel("Hosts", "short", {"{{pool}} {{state}}": total("penstock_hosts", "pool, state")}),
        ],
    },
    MODEL,
)  # fmt: skip

ALL = (FLEET, MODELS, TENANT, COLD_START, COST, AUTOSCALER)


def render(board: Dashboard) -> dict[str, Any]:
    """Grafana's JSON of a dashboard."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in board.rows.items():
        panels.append({"id": len(panels) + 1, "type": "row", "title": title, "collapsed": False,
                       "panels": [], "gridPos": {"x": 0, "y": y, "w": WIDTH, "h": 1}})  # fmt: skip
        y += 1
        width = WIDTH // min(len(row), 4)
        for number, panel in enumerate(row):
            x = number % 4 * width
            if number and not x:
                y += HEIGHT
            place = {"x": x, "y": y, "w": width, "h": HEIGHT}
            panels.append({"id": len(panels) + 1, "gridPos": place, **panel_json(panel)})
        y += HEIGHT
    return {
        "uid": f"penstock-{board.name}",
        "title": board.title,
        "tags": ["penstock"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "",
        "annotations": {"list": []},
        "links": [],
        "templating": {"list": [data_source(), *map(variable, board.variables.items())]},
        "panels": panels,
    }


def panel_json(panel: Panel) -> dict[str, Any]:
    """A panel without its place."""
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "options": {},
        "targets": [
            {"refId": chr(ord("A") + n), "datasource": SOURCE, "expr": expr,
             "legendFormat": legend, "exemplar": "_bucket" in expr}
            for n, (legend, expr) in enumerate(panel.queries.items())
        ],
    }  # fmt: skip


def data_source() -> dict[str, Any]:
    """The choice of a Prometheus."""
    return {"name": "datasource", "type": "datasource", "query": "prometheus"}


def variable(named: tuple[str, str]) -> dict[str, Any]:
    """The choice of a label's values, all of them at first."""
    label, metric = named
    return {
        "name": label, "type": "query", "datasource": SOURCE, "refresh": 2, "multi": True,
        "includeAll": True, "allValue": ".*", "current": {"text": "All", "value": "$__all"},
        "query": {"query": f"label_values({metric}, {label})", "refId": label},
    }  # fmt: skip


def main() -> int:
    """Returns 0, or with `--check` 1 where a file is out of date."""
    texts = {
        FOLDER / f"{board.name}.json": json.dumps(render(board), indent=1) + "\n" for board in ALL
    }
    stale = [p for p, text in texts.items() if not p.exists() or p.read_text() != text]
    extra = [p for p in FOLDER.glob("*.json") if p not in texts]
    if "--check" in sys.argv[1:]:
        for path in stale + extra:
            sys.stderr.write(f"{path.name} is out of date; run `make docs`\n")
        return int(bool(stale + extra))
    for path in stale:
        path.write_text(texts[path])
    for path in extra:
        path.unlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
