from xml.etree import ElementTree as ET

import orjson

from loadtests.measure import Failure, Outcome
from loadtests.profile import Profile, read
from loadtests.report import Report, lines, to_json, to_junit, tripped
from loadtests.runner import Run

VLLM_KEYS = {
    "date", "backend", "model_id", "tokenizer_id", "num_prompts", "request_rate", "burstiness",
    "max_concurrency", "duration", "completed", "failed", "total_input_tokens",
    "total_output_tokens", "request_throughput", "request_goodput", "output_throughput",
    "total_token_throughput", "max_output_tokens_per_s", "max_concurrent_requests",
    *(f"{mark}_{name}_ms" for name in ("ttft", "tpot", "itl", "e2el")
      for mark in ("mean", "median", "std", "p99")),
}  # fmt: skip


def report(profile: Profile | None = None) -> Report:
    """Three requests of two kinds in two seconds, one of which failed."""
    outcomes = []
    for at_s, kind in ((10.0, "quiet"), (10.2, "noisy"), (11.0, "quiet")):
        made = Outcome(kind, at_s, at_s, ttft_s=0.2, e2e_s=0.6, text="hi")
        made.prompt_tokens, made.output_tokens, made.chunks = 7, 3, 3
        made.gaps_s.extend([0.1, 0.3])
        outcomes.append(made)
    outcomes[2].failure, outcomes[2].detail = Failure.RESET, "gone"
    run = Run(10.0, 12.0, tuple(outcomes))
    return Report("http://x", "m", profile or Profile(), run, started_at=0.0)


def test_json_has_the_keys_of_vllm_and_ours() -> None:
    fields = orjson.loads(to_json(report()))
    assert set(fields) >= VLLM_KEYS
    assert "ttfts" not in fields
    assert (fields["completed"], fields["failed"], fields["duration"]) == (2, 1, 2.0)
    assert fields["output_throughput"] == 3.0
    assert round(fields["median_itl_ms"]) == 200
    assert round(fields["mean_tpot_ms"]) == 200
    assert fields["max_output_tokens_per_s"] == 6.0
    assert fields["request_rate"] == "inf"
    ours = fields["penstock"]
    assert ours["valid"] is True
    assert ours["failures"] == {"reset_mid_stream": 1}
    assert ours["kinds"]["noisy"]["completed"] == 1


def test_json_details_hold_each_request() -> None:
    fields = orjson.loads(to_json(report(), details=True))
    assert fields["ttfts"] == [0.2, 0.2, 0.2]
    assert fields["itls"] == [[0.1, 0.3]] * 3
    assert fields["errors"] == ["", "", "reset_mid_stream: gone"]


def test_json_is_written_for_a_run_in_which_nothing_completed() -> None:
    nothing = Report("http://x", "m", Profile(), Run(0.0, 1.0, ()), started_at=0.0)
    fields = orjson.loads(to_json(nothing, details=True))
    assert fields["completed"] == 0
    assert fields["penstock"]["valid"] is False
    assert lines(nothing.summary())[-1] == "NOT VALID: no request completed"


def test_junit_has_a_case_for_each_gate() -> None:
    gated = report(read({"fail_if": ["ttft_p99>0.1", "failed>5"]}))
    suite = ET.fromstring(to_junit(gated))  # noqa: S314, our own
    cases = {case.get("name"): case.find("failure") is None for case in suite}
    assert cases == {"valid": True, "ttft_p99>0.1": False, "failed>5": True}
    assert (suite.get("tests"), suite.get("failures")) == ("3", "1")
    gates = tripped(gated.summary(), gated.profile.gates())
    assert [str(gate) for gate in gates] == ["ttft_p99>0.1"]


def test_lines_name_the_failures() -> None:
    assert "2 completed, 1 failed (1 reset_mid_stream)" in lines(report().summary())[0]
