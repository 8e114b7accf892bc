"""One run of `penstock tune`: what to tune, where its trials are kept, what is told of it."""

import asyncio
import hashlib
import json
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import typer
import yaml
from rich.console import Console

from models import sources
from models.catalog import entry_named
from models.errors import BadRequestError
from models.manifest import Goal, Manifest, load_manifest, parse_manifest
from models.profile import SLOTS, with_profile
from models.profile_measured import Measured, write_measured
from serving.cli import output
from serving.cli.node_cache import open_cache, open_secrets
from serving.cli.output import Format
from serving.cli.tune_machine import (
    Machine,
    accelerator_of,
    clear_up,
    launcher,
    machine_for,
    only_one,
    read_gpus,
)
from serving.cli.wanted import name_of
from serving.engine.launcher_client import SocketLauncher
from serving.settings import ClientSettings, UpSettings
from serving.tuning.engines import EngineRunner, Load
from serving.tuning.found import profile_of
from serving.tuning.halving import Outcome, Search, Wish
from serving.tuning.scoring import Score, parse_slo
from serving.tuning.space import candidates
from serving.tuning.trials import Journal, Settings, Trial

CPU_LOAD = Load((1, 8, 32, 64), 64, 64, 512)
GPU_LOAD = Load((1, 16, 64, 256, 512), 512, 256, 2048)
GPU_START_TIMEOUT_S = 1200.0
"""A large model is read, compiled and captured before it answers."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the command line asks for."""

    model: str
    slo: str
    budget_s: float
    goal: Goal = "throughput"
    accelerator: str | None = None
    concurrencies: tuple[int, ...] | None = None
    prompt_tokens: int | None = None
    answer_tokens: int | None = None
    pairs: int = 10
    seed: int = 0
    profiles_dir: Path | None = None
    data_dir: Path | None = None
    fresh: bool = False

    def load(self, on: Machine, most_tokens: int | None) -> Load:
        """What each trial asks of its engine; fits the model's context."""
        usual = CPU_LOAD if on.accelerator == "cpu" else GPU_LOAD
        answer = self.answer_tokens or usual.answer_tokens
        prefill = usual.prefill_tokens
        if most_tokens is not None:
            prefill = max(1, min(prefill, most_tokens - answer - 16))
        return Load(
            self.concurrencies or usual.concurrencies,
            self.prompt_tokens or usual.prompt_tokens,
            answer,
            prefill,
        )


def tune(wanted: Wanted, how: Format) -> None:
    """Searches, writes the profile and prints what was found.

    Raises:
        PenstockError: If there is nothing to measure on, or no trial gave figures.
    """
    console = output.stderr()
    wish = Wish(wanted.goal, parse_slo(wanted.slo), wanted.budget_s, wanted.pairs, wanted.seed)
    gpus = read_gpus(console.print)
    manifest = manifest_of(wanted.model, wanted.accelerator or accelerator_of(gpus))
    on = machine_for(manifest.resources.accelerator, manifest.resources.gpus, gpus)
    load = wanted.load(on, manifest.engine.max_model_len)
    data_dir = (wanted.data_dir or UpSettings.load().data_dir).absolute()
    access = manifest.weights.access(open_secrets(), code=manifest.engine.trust_remote_code)
    have = sources.have(manifest.source, access, open_cache(None))
    clear_up(data_dir / "tune")
    folder = data_dir / "tune" / f"{manifest.name}-{_digest(manifest, wish, on, load)}"
    try:
        with only_one(folder), launcher(folder) as socket:
            if wanted.fresh:
                (folder / "trials.jsonl").unlink(missing_ok=True)
            journal = Journal(folder / "trials.jsonl")
            if kept := len(journal.trials()):
                console.print(f"goes on after {kept} trials that took {journal.spent_s:.0f} s")
            starts = SocketLauncher(socket)
            runner = EngineRunner(
                starts, manifest, have.folder, folder, load, on.gpus,
                start_timeout_s=180.0 if on.accelerator == "cpu" else GPU_START_TIMEOUT_S,
            )  # fmt: skip
            search = Search(
                wish, candidates(manifest, wish.goal, wish.seed), runner, journal, time.monotonic,
                _teller(console, wish.goal),
            )  # fmt: skip
            build, outcome = asyncio.run(_search(starts, search))
    except KeyboardInterrupt:
        console.print(f"stopped; what was measured is in {folder}, and the same command goes on")
        raise
    finally:
        have.release()
    profile = profile_of(
        outcome, manifest, wish, lengths=(load.prompt_tokens, load.answer_tokens),
        hardware=on.hardware, vllm=build.removeprefix("vllm "),
        day=datetime.now(UTC).date().isoformat(),
    )  # fmt: skip
    place = wanted.profiles_dir or ClientSettings.load().profiles_dir or data_dir / "profiles"
    path = write_measured(place, profile)
    show(profile, path, console, how)


async def _search(starts: SocketLauncher, search: Search) -> tuple[str, Outcome]:
    build = (await starts.hello()).build
    return build, await search.run()


def manifest_of(model: str, accelerator: str) -> Manifest:
    """What is tuned: with its profile filled in, so that trials change single arguments of it.

    Raises:
        PenstockError: If there is no such model, or no variant of it for the accelerator, or it
            generates nothing.
    """
    if Path(model).suffix in (".yaml", ".yml"):
        found = with_profile(load_manifest(Path(model)))
    elif "://" in model:
        found = parse_manifest({"name": name_of(model), "source": model})
    else:
        entry = entry_named(model)
        found = entry.manifest(entry.for_accelerator(accelerator))
    if found.endpoints:
        raise BadRequestError(f"{found.name} is served elsewhere: there is no engine to tune")
    if found.engine.args.get("runner") == "pooling":
        raise BadRequestError(f"{found.name} generates nothing: trials are chats", param="model")
    return found


def _digest(manifest: Manifest, wish: Wish, on: Machine, load: Load) -> str:
    """Equal for runs that may use each other's trials; budget and pairs are no part of it."""
    told = [
        manifest.model_dump(mode="json"), wish.goal, dict(wish.slo), wish.seed, on.hardware,
        load.concurrencies, load.prompt_tokens, load.answer_tokens, load.prefill_tokens,
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def _teller(console: Console, goal: Goal) -> "Teller":
    return Teller(console, "tokens/s" if goal == "throughput" else "points")


@dataclass(frozen=True, slots=True)
class Teller:
    """Says on stderr what each trial gave."""

    console: Console
    unit: str

    def __call__(self, trial: Trial, score: Score) -> None:
        what = shown(trial.settings)
        if trial.failure is not None:
            self.console.print(f"{trial.took_s:6.1f} s  {what}: failed: {trial.failure}")
            return
        beyond = "" if score.keeps_slo else ", beyond the SLO"
        self.console.print(f"{trial.took_s:6.1f} s  {what}: {score.value:,.1f} {self.unit}{beyond}")


def shown(settings: Settings) -> str:
    """Settings in a line."""
    return " ".join(f"{name}={value}" for name, value in settings.items()) or "the defaults"


def show(profile: Measured, path: Path, console: Console, how: Format) -> None:
    """Prints the profile, or what to write into a manifest."""
    if how is Format.JSON:
        output.print_json(profile.model_dump(mode="json"))
    else:
        rows = [
            (
                str(level.concurrency), f"{level.output_tokens_s:,.0f}",
                f"{level.ttft_p99_s * 1000:,.0f}", f"{level.tpot_p50_s * 1000:.1f}",
                f"{level.tpot_p99_s * 1000:.1f}",
            )
            for level in profile.levels
        ]  # fmt: skip
        columns = ("at once", "tokens/s", "ttft p99 ms", "tpot p50 ms", "tpot p99 ms")
        output.print_items([], columns, rows, Format.TABLE)
        typer.echo(f"prompts alone: {profile.prefill_tokens_s:,.0f} tokens/s\n")
        typer.echo(_fragment(profile.settings), nl=False)
    against = "the defaults are the best that was found"
    if profile.settings:
        against = "too little time was left to compare it with the defaults"
    if profile.paired is not None:
        found = profile.paired
        against = (
            f"{found.ratio:.3f} of the defaults, 95 % interval {found.low:.3f} to {found.high:.3f},"
            f" {found.pairs} pairs"
        )
    console.print(f"{shown(profile.settings)}: {against}")
    console.print(f"{profile.trials} trials, {profile.failed_trials} failed; profile: {path}")


def _fragment(settings: Settings) -> str:
    args = dict(settings)
    engine: dict[str, object] = {}
    if SLOTS in args:
        engine[SLOTS] = args.pop(SLOTS)
    if args:
        engine["args"] = args
    return yaml.safe_dump({"engine": engine}, sort_keys=False) if engine else ""
