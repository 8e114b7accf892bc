"""The search with a machine that is a formula: what it finds, keeps, survives and refuses."""

import math
from pathlib import Path

import pytest

from models.errors import UnreachableError
from models.manifest import parse_manifest
from serving.tuning.halving import ROUNDS, NoTrialError, Outcome, Search, Wish
from serving.tuning.space import candidates
from serving.tuning.trials import Figures, Journal, Settings, Trial
from tests.serving.tuning.world import FakeMachine, Killed, figures

SLO = {"ttft_p99": 2.0, "tpot_p99": 0.1}
MANIFEST = parse_manifest(
    {"name": "m", "source": "file:///nowhere", "engine": {"max_num_seqs": 32}}
)
CANDIDATES = candidates(MANIFEST, "throughput", seed=0)
BEST = {"max_num_seqs": 64, "stream_interval": 4}


def search(machine: FakeMachine, folder: Path, budget_s: float = 600.0, pairs: int = 10) -> Search:
    journal = Journal(folder / "trials.jsonl", sync=lambda _file: None)
    wish = Wish("throughput", SLO, budget_s, pairs)
    return Search(wish, CANDIDATES, machine, journal, machine.clock)


async def found(machine: FakeMachine, folder: Path, **how: float) -> Outcome:
    return await search(machine, folder, **how).run()  # type: ignore[arg-type]


def compared(outcome: Outcome) -> list[Trial]:
    return [trial for trial in outcome.trials if trial.key.startswith("pair")]


async def test_search_finds_what_is_best_and_shows_by_how_much(tmp_path: Path) -> None:
    machine = FakeMachine()
    outcome = await found(machine, tmp_path)
    assert BEST.items() <= outcome.best.items()
    assert outcome.rungs == 3
    assert outcome.paired is not None
    assert outcome.paired.pairs == 10
    assert outcome.paired.ratio == pytest.approx(1.1 / 0.9)
    assert machine.now_s - 1000.0 <= 600.0


async def test_defaults_are_in_every_rung_and_stay_where_nothing_beats_them(
    tmp_path: Path,
) -> None:
    machine = FakeMachine(rate=lambda settings: 1000.0 if settings == {} else 900.0)
    outcome = await found(machine, tmp_path)
    assert outcome.best == {}
    assert outcome.paired is None
    assert {"0", "1", "2"} <= {trial.key for trial in outcome.trials}


async def test_luck_in_the_search_does_not_outlast_the_pairs(tmp_path: Path) -> None:
    """One arm looks better in each rung, and is worse when it is compared."""

    machine = FakeMachine()
    one = search(machine, tmp_path)

    def rate(settings: Settings) -> float:
        paired = any(trial.key.startswith("pair") for trial in one.journal.trials())
        if settings == {"stream_interval": 8} and not paired:
            return 1200.0
        return 1000.0 if settings == {} else 900.0

    machine.rate = rate
    outcome = await one.run()
    assert len(compared(outcome)) == 20
    assert outcome.best == {}
    assert outcome.paired is None


@pytest.mark.parametrize("dies_at", [0, 1, 5, 20, 30])
async def test_killed_search_goes_on_where_it_died(dies_at: int, tmp_path: Path) -> None:
    whole = await found(FakeMachine(), tmp_path / "whole")
    first = FakeMachine(dies_at=dies_at)
    with pytest.raises(Killed):
        await found(first, tmp_path / "killed")
    second = FakeMachine()
    outcome = await found(second, tmp_path / "killed")
    assert len(first.runs) == dies_at
    assert len(first.runs) + len(second.runs) == len(whole.trials)
    assert outcome.best == whole.best
    assert [trial.key for trial in outcome.trials] == [trial.key for trial in whole.trials]


async def test_trial_that_was_being_written_when_it_died_is_made_again(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        await found(FakeMachine(dies_at=6), tmp_path)
    path = tmp_path / "trials.jsonl"
    path.write_bytes(path.read_bytes()[:-20])
    second = FakeMachine()
    whole = await found(FakeMachine(), tmp_path / "whole")
    outcome = await found(second, tmp_path)
    assert len(second.runs) == len(whole.trials) - 5
    assert [trial.key for trial in outcome.trials] == [trial.key for trial in whole.trials]
    assert len(Journal(path).trials()) == len(whole.trials)


async def test_damaged_line_costs_one_trial(tmp_path: Path) -> None:
    whole = await found(FakeMachine(), tmp_path)
    path = tmp_path / "trials.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:3], b'{"key": "no trial"}\n', *lines[4:]]))
    again = FakeMachine()
    assert (await found(again, tmp_path)).best == whole.best
    assert len(again.runs) == 1


async def test_finished_search_asks_for_nothing_more(tmp_path: Path) -> None:
    first = await found(FakeMachine(), tmp_path)
    again = FakeMachine()
    outcome = await found(again, tmp_path)
    assert (outcome.best, outcome.paired, again.runs) == (first.best, first.paired, [])


async def test_out_of_memory_is_recorded_and_the_search_goes_on(tmp_path: Path) -> None:
    out_of_memory = "the engine needs more GPU memory than there is"
    outcome = await found(FakeMachine(faults={"max_num_seqs": out_of_memory}), tmp_path)
    failed = [trial for trial in outcome.trials if trial.failure is not None]
    assert {trial.failure for trial in failed} == {out_of_memory}
    assert all("max_num_seqs" in trial.settings for trial in failed)
    assert "max_num_seqs" not in outcome.best
    assert outcome.best["stream_interval"] == 4


@pytest.mark.parametrize(
    ("odd", "complaint"),
    [
        (figures(rate=math.nan), "output_rate at 1 at once is no number"),
        (figures(tpot_s=math.inf), "tpot_p50 at 1 at once is no number"),
        (figures().model_copy(update={"prefill_tokens_s": None}), "prefill tokens/s is no number"),
        (figures().model_copy(update={"levels": ()}), "nothing was measured"),
    ],
    ids=["nan", "infinite", "null", "empty"],
)
async def test_figures_that_are_none_are_a_failed_trial(
    odd: object, complaint: str, tmp_path: Path
) -> None:
    outcome = await found(FakeMachine(faults={"stream_interval": odd}), tmp_path)  # type: ignore[dict-item]
    failed = [trial for trial in outcome.trials if trial.failure is not None]
    assert failed
    assert all(complaint in str(trial.failure) and trial.figures is None for trial in failed)
    assert "stream_interval" not in outcome.best
    assert Journal(tmp_path / "trials.jsonl").trials() == list(outcome.trials)


async def test_search_without_a_single_figure_says_why(tmp_path: Path) -> None:
    class Broken(FakeMachine):
        async def run(self, settings: Settings, rounds: int, seed: int) -> object:  # type: ignore[override]
            return await FakeMachine(faults={"x": "no GPU"}).run({"x": 1}, rounds, seed)

    with pytest.raises(NoTrialError, match=r"none of .* the first: no GPU"):
        await found(Broken(), tmp_path, budget_s=60.0)


async def test_search_keeps_its_budget(tmp_path: Path) -> None:
    for budget_s in (10.0, 40.0, 120.0, 400.0):
        machine = FakeMachine()
        await found(machine, tmp_path / str(budget_s), budget_s=budget_s)
        # A trial that has begun is not broken off.
        assert machine.now_s - 1000.0 <= budget_s + machine.start_s + 6 * machine.second_a_round


async def test_search_without_pairs_compares_nothing(tmp_path: Path) -> None:
    outcome = await found(FakeMachine(), tmp_path, pairs=0)
    assert outcome.paired is None
    assert BEST.items() <= outcome.best.items()
    assert not compared(outcome)


async def test_arguments_that_break_the_slo_lose_to_slower_ones_that_keep_it(
    tmp_path: Path,
) -> None:
    fast_but_late = figures(rate=9000.0, tpot_s=0.5)
    outcome = await found(FakeMachine(faults={"max_num_seqs": fast_but_late}), tmp_path)
    assert "max_num_seqs" not in outcome.best
    assert outcome.best["stream_interval"] == 4


async def test_pairs_get_their_part_of_a_budget_that_is_short(tmp_path: Path) -> None:
    """Engines that take minutes to start: few arms, and still more than one pair."""
    machine = FakeMachine(start_s=60.0)
    outcome = await found(machine, tmp_path, budget_s=1200.0)
    assert outcome.best
    assert outcome.paired is not None
    assert 2 <= outcome.paired.pairs < 10
    assert machine.now_s - 1000.0 <= 1200.0 + 66.0


async def test_first_start_with_cold_caches_costs_neither_arms_nor_pairs(tmp_path: Path) -> None:
    """Prices are medians: the first engine took twenty times what the next ones do."""
    machine = FakeMachine(cold_s=60.0)
    outcome = await found(machine, tmp_path, budget_s=300.0)
    assert BEST.items() <= outcome.best.items()
    assert outcome.paired is not None
    assert outcome.paired.pairs == 10
    assert machine.now_s - 1000.0 <= 300.0


async def test_larger_budget_goes_on_further_with_what_is_there(tmp_path: Path) -> None:
    short = await found(FakeMachine(), tmp_path, budget_s=120.0)
    machine = FakeMachine()
    outcome = await found(machine, tmp_path, budget_s=400.0)
    assert outcome.paired is not None
    assert len(machine.runs) == len(outcome.trials) - len(short.trials)
    assert machine.now_s - 1000.0 <= 400.0


async def test_rung_that_the_budget_ends_in_counts_for_the_arms_it_had(tmp_path: Path) -> None:
    """Longer trials take far more than was thought: the last rung has room for some arms only."""

    class Slow(FakeMachine):
        async def run(self, settings: Settings, rounds: int, seed: int) -> Figures:
            self.now_s += 15.0 if rounds == ROUNDS[-1] else 0.0
            return await super().run(settings, rounds, seed)

    outcome = await found(Slow(), tmp_path, budget_s=400.0)
    last = [trial for trial in outcome.trials if trial.key.startswith("2")]
    assert outcome.rungs == 2
    assert len(last) >= 2
    assert outcome.best in [trial.settings for trial in last]
    assert outcome.paired is not None


async def test_search_ends_with_its_launcher_and_blames_no_trial(tmp_path: Path) -> None:
    """Else all arguments that are left would stand in the journal as failed, for good."""

    class Gone(FakeMachine):
        async def run(self, settings: Settings, rounds: int, seed: int) -> Figures:
            if len(self.runs) == 5:
                raise UnreachableError("the launcher is gone")
            return await super().run(settings, rounds, seed)

    with pytest.raises(UnreachableError, match="launcher is gone"):
        await found(Gone(), tmp_path)
    kept = Journal(tmp_path / "trials.jsonl").trials()
    assert [trial.failure for trial in kept] == [None] * 5
    assert (await found(FakeMachine(), tmp_path)).paired is not None


async def test_slow_machine_with_little_time_still_compares(tmp_path: Path) -> None:
    """Seven trials are all that fit: three arms, and two pairs."""
    machine = FakeMachine(start_s=30.0, second_a_round=2.0)
    outcome = await found(machine, tmp_path, budget_s=240.0)
    assert outcome.best
    assert outcome.paired is not None
    assert outcome.paired.pairs == 2
    assert machine.now_s - 1000.0 <= 240.0
