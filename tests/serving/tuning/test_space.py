"""What is tried, and how it is put into a manifest."""

from typing import Any

from models import catalog
from models.manifest import Manifest, parse_manifest
from serving.tuning.space import applied, candidates, combined, without_defaults


def model(**fields: Any) -> Manifest:
    return parse_manifest({"name": "m", "source": "hf://some/body", **fields})


def test_candidates_are_the_same_for_a_seed_and_none_comes_twice() -> None:
    first = candidates(model(), "throughput", 1)
    assert first == candidates(model(), "throughput", 1)
    assert first != candidates(model(), "throughput", 2)
    assert all(first.count(one) == 1 for one in first)
    assert {} not in first
    assert len(first) > 50


def test_profile_of_the_goal_is_tried_first_then_single_changes() -> None:
    gpu = {"accelerator": "h200", "gpus": 1}
    first = candidates(model(resources=gpu), "latency", 0)
    assert first[0]["performance_mode"] == "interactivity"
    assert all(len(one) == 1 for one in first[1:10])


def test_what_the_manifest_has_anyway_is_not_tried() -> None:
    mine = model(engine={"max_num_seqs": 128, "args": {"stream_interval": 8}})
    tried = candidates(mine, "throughput", 0)
    assert not any(one.get("max_num_seqs") == 128 for one in tried)
    assert not any(one.get("stream_interval") == 8 for one in tried)
    assert without_defaults(mine, {"max_num_seqs": 128, "stream_interval": 4}) == {
        "stream_interval": 4
    }


def test_a_step_takes_at_least_a_token_of_each_sequence() -> None:
    for one in candidates(model(engine={"max_num_seqs": 600}), "throughput", 0):
        batched, slots = one.get("max_num_batched_tokens", 8192), one.get("max_num_seqs", 600)
        assert isinstance(batched, int)
        assert isinstance(slots, int)
        assert batched >= slots


def test_stages_rule_out_what_vllm_refuses_with_them() -> None:
    staged = {"accelerator": "h100", "gpus": 8, "tensor_parallel": 4, "pipeline_parallel": 2}
    tried = candidates(model(resources=staged), "throughput", 0)
    assert not any("async_scheduling" in one for one in tried)
    assert any("enable_expert_parallel" in one for one in tried)


def test_every_candidate_makes_a_manifest_of_every_model() -> None:
    for entry in catalog.entries():
        manifest = entry.manifest(entry.variants[0])
        for settings in candidates(manifest, "balanced", 0)[:30]:
            engine = applied(manifest, settings).engine
            args = {**engine.args, "max_num_seqs": engine.max_num_seqs}
            assert settings.items() <= args.items()


def test_applied_keeps_everything_else() -> None:
    mine = model(engine={"dtype": "float32", "args": {"swap_space": 4}}, scaling={"max": 3})
    found = applied(mine, {"max_num_seqs": 9, "stream_interval": 2})
    assert found.engine.args == {"swap_space": 4, "stream_interval": 2}
    assert (found.engine.dtype, found.engine.max_num_seqs) == ("float32", 9)
    assert found.scaling == mine.scaling


def test_first_of_two_changes_counts_where_they_are_combined() -> None:
    assert combined([{"b": 1}, {"a": 2}, {"b": 3}]) == {"a": 2, "b": 1}
