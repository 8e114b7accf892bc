"""What is learned of engines from their reports, for each kind of them, beside the guess."""

from pathlib import Path

import pytest

from autoscaler.capacity import Capacity
from autoscaler.learning import Steps
from models.manifest import parse_manifest
from models.profile_measured import write_measured
from serving.controller.capacities import Capacities, Kind
from serving.controller.guesses import guess_capacity
from serving.controller.observed_engine import Engine
from serving.controller.registry import DeployedModel
from serving.controller.store import StoredModel, StoredRevision
from serving.protocol import EngineLoadReport, EnginePhase, EngineReport
from tests.models.test_profile_measured import HERE, measured
from tests.serving.controller.world import manifest

GUESS = Capacity(slots=8, prefill_tps=1000.0, step_s=0.05, step_per_seq_s=0.001)


def deployed(**fields: object) -> DeployedModel:
    """Two revisions: of a smaller batch, and the current one with scaling changed alone."""
    first = manifest(engine={"max_num_seqs": 4})
    second = manifest(engine={"max_num_seqs": 8})
    third = manifest(engine={"max_num_seqs": 8}, scaling={"max": 2})
    revisions = tuple(
        StoredRevision("guide", n, 0.0, one) for n, one in enumerate((first, second, third), 1)
    )
    return DeployedModel.of(StoredModel("guide", 0.0, 3, revisions))


def engine(told: EngineLoadReport | None, revision: int = 3, name: str = "eng-1") -> Engine:
    report = EngineReport(
        engine_id=name,
        model="guide",
        revision=revision,
        phase=EnginePhase.READY,
        slots=8,
        load=told,
    )
    return Engine(
        name, "guide", revision, "start", None, "host", "node", 0.0, 0.0, report=report
    )  # fmt: skip


def told(seconds: int) -> EngineLoadReport:
    """Each second 100 steps of one sequence at 10 ms, and 1,000 prompt tokens in 0.1 s."""
    n = 100 * seconds
    return EngineLoadReport(
        running=1, decode_steps=n, decode_seqs=n, decode_seqs_squared=n, decode_s=0.01 * n,
        decode_seqs_s=0.01 * n, mixed_steps=seconds, mixed_prompt_tokens=1000 * seconds,
        mixed_s=0.1 * seconds,
    )  # fmt: skip


def test_capacity_is_a_guess_until_engines_tell() -> None:
    model, known = deployed(), Capacities()
    kind = Kind.of(model)
    assert known.of(model) is None
    known.guess(kind, 8, GUESS)
    assert known.of(model) == GUESS
    assert not known.known(kind).is_learned
    for second in range(1, 20):
        known.observe(model, engine(told(second)))
    found = known.of(model)
    assert found is not None
    assert found.token_s(1) == pytest.approx(0.01, rel=0.05)
    assert found.prefill_tps == pytest.approx(10_000, rel=0.5)
    assert known.known(kind).is_learned


def test_each_step_counts_once_and_a_restarted_engine_counts_anew() -> None:
    model, known = deployed(), Capacities()
    for reading in (told(1), told(1), told(2), told(1)):  # the last one went back: no reading
        known.observe(model, engine(reading))
    assert known.known(Kind.of(model)).steps.decode_steps == 200
    known.observe(model, engine(told(1), name="eng-2"))
    assert known.known(Kind.of(model)).steps.decode_steps == 300
    known.observe(model, engine(None))
    known.keep_only([])
    assert known.known(Kind.of(model)).steps.decode_steps == 300


def test_revisions_with_the_same_engine_share_what_is_known() -> None:
    model, known = deployed(), Capacities()
    assert Kind.of(model) == Kind("guide", 2, "cpu")
    known.observe(model, engine(told(5), revision=2))
    assert known.of(model) is not None
    before = known.known(Kind.of(model)).steps
    known.observe(model, engine(told(5), revision=1, name="eng-old"))
    assert known.known(Kind.of(model)).steps == before


def test_what_was_learned_is_taken_over() -> None:
    model, known, later = deployed(), Capacities(), Capacities()
    known.observe(model, engine(told(5)))
    ((kind, learned),) = known.take_changed().items()
    assert known.take_changed() == {}
    later.restore(kind, learned.steps, 8)
    later.guess(kind, 8, GUESS)
    assert later.known(kind).is_learned
    assert later.known(kind).steps == learned.steps != Steps()


def test_guess_is_the_planners_for_what_it_knows() -> None:
    cpu = guess_capacity(manifest())
    assert cpu is not None
    assert cpu.slots == 64
    big = {
        "name": "q", "source": "hf://Qwen/Qwen3-8B@main", "engine": {"max_num_seqs": 128},
        "resources": {"accelerator": "h200", "gpus": 1},
    }  # fmt: skip
    h200 = guess_capacity(parse_manifest(big))
    assert h200 is not None
    assert 5_000 < h200.prefill_tps < 50_000
    assert 0.001 < h200.floor_tpot_s() < 0.05
    assert guess_capacity(parse_manifest({**big, "source": "hf://some/body"})) is None
    assert guess_capacity(parse_manifest({**big, "source": "file:///nowhere"})) is None


def test_guess_is_what_was_measured_on_this_hardware(tmp_path: Path) -> None:
    profile = measured()
    write_measured(tmp_path, profile)
    found = guess_capacity(manifest(engine={"max_num_seqs": 16}), tmp_path, HERE)
    assert found is not None
    assert found.slots == 16
    assert found.prefill_tps == profile.prefill_tokens_s
    assert (found.step_s, found.step_per_seq_s) == pytest.approx(profile.line)
    chunk = {"args": {"max_num_batched_tokens": 512}}
    smaller = guess_capacity(manifest(engine=chunk), tmp_path, HERE)
    assert smaller is not None
    assert smaller.chunk_tokens == 512


def test_guess_leaves_a_profile_of_another_version_aside(tmp_path: Path) -> None:
    write_measured(tmp_path, measured(vllm="0.1.0"))
    assert guess_capacity(manifest(), tmp_path, HERE) == guess_capacity(manifest())
