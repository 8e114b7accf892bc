"""What is counted of each request at its end."""

from prometheus_client import CollectorRegistry
from prometheus_client.openmetrics.exposition import generate_latest

from serving.gateway.tokens import Tokens
from serving.gateway.visit_metrics import OTHERS, TENANTS_MAX, VisitMetrics
from serving.gateway.visits import Visit


def streamed(**changes: object) -> Visit:
    """A stream that began at 10 s, gave its first byte at 11 s, and had 21 tokens."""
    visit = Visit("req", "/v1/chat/completions", 10.0, status=200, model="m")
    visit.first_byte_s, visit.streaming, visit.complete = 11.0, True, True
    visit.tokens = Tokens(prompt=100, completion=21, cached=64)
    for name, value in changes.items():
        setattr(visit, name, value)
    return visit


def values(registry: CollectorRegistry) -> dict[str, float]:
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith(("_created", "_bucket"))
    }


def counted(*visits: Visit, by_tenant: bool = False) -> dict[str, float]:
    registry = CollectorRegistry()
    metrics = VisitMetrics(registry, by_tenant)
    for visit in visits:
        metrics.observe(visit, 13.0)
    return values(registry)


def test_a_whole_stream_counts_its_times_and_tokens() -> None:
    seen = counted(streamed())
    assert seen["penstock_request_seconds_sum[('model', 'm')]"] == 3.0
    assert seen["penstock_time_per_output_token_seconds_sum[('model', 'm')]"] == 0.1
    assert seen["penstock_tokens_total[('kind', 'prompt'), ('model', 'm')]"] == 100
    assert seen["penstock_tokens_total[('kind', 'cached'), ('model', 'm')]"] == 64
    assert seen["penstock_tokens_total[('kind', 'completion'), ('model', 'm')]"] == 21


def test_a_cut_stream_has_tokens_and_an_upstream_error_but_no_times() -> None:
    seen = counted(streamed(cut=True, broken=["e-1"]))
    assert seen["penstock_upstream_errors_total[('model', 'm')]"] == 1
    assert seen["penstock_tokens_total[('kind', 'completion'), ('model', 'm')]"] == 21
    assert "penstock_request_seconds_sum[('model', 'm')]" not in seen


def test_a_refusal_counts_by_its_code() -> None:
    refused = Visit("req", "/v1/chat/completions", 10.0, status=429, model="m", code="queue_full")
    seen = counted(refused)
    assert seen == {"penstock_rejects_total[('model', 'm'), ('reason', 'queue_full')]": 1}


def test_an_answer_of_one_token_has_no_time_per_token() -> None:
    seen = counted(streamed(tokens=Tokens(prompt=1, completion=1)))
    assert "penstock_time_per_output_token_seconds_sum[('model', 'm')]" not in seen


def test_tenants_are_counted_only_where_the_operator_asks() -> None:
    assert not any("tenant" in name for name in counted(streamed(org_id="acme")))
    seen = counted(streamed(org_id="acme"), by_tenant=True)
    labels = "[('organisation', 'acme'), ('outcome', 'ok')]"
    assert seen[f"penstock_tenant_requests_total{labels}"] == 1


def test_tenants_beyond_the_bound_are_counted_together() -> None:
    visits = [streamed(org_id=f"org-{n}") for n in range(TENANTS_MAX + 7)]
    seen = counted(*visits, by_tenant=True)
    labels = f"[('organisation', '{OTHERS}'), ('outcome', 'ok')]"
    assert seen[f"penstock_tenant_requests_total{labels}"] == 7


def test_times_have_exemplars() -> None:
    registry = CollectorRegistry()
    visit = streamed()
    VisitMetrics(registry).observe(visit, 13.0)
    assert f'# {{usage_id="{visit.usage_id}"}} 3.0' in generate_latest(registry).decode()
