"""A trial from the launcher to its figures, with an engine and a load test that are none."""

import sys
from pathlib import Path

import pytest

from models.errors import UnreachableError
from models.manifest import parse_manifest
from serving.engine.launch_protocol import Exited, Refused
from serving.tuning.engines import EngineRunner, Load
from serving.tuning.trials import TrialError
from tests.serving.engine.fakes import BIRTH, FORKED, FakeLauncher

ANSWER = (
    '{"levels": [{"concurrency": 8, "failed": 0, "output_rate": 10.5, "ttft_p99": 0.1, '
    '"tpot_p50": 0.01, "tpot_p99": 0.02, "complaints": []}], "prefill_tokens_s": 99.5}'
)
MANIFEST = parse_manifest(
    {"name": "m", "source": "file:///w", "engine": {"max_num_seqs": 32, "args": {"swap_space": 4}}}
)


def runner(launcher: FakeLauncher, folder: Path, says: str, **more: float) -> EngineRunner:
    program = folder / "ladder.py"
    program.write_text(says)
    return EngineRunner(
        launcher, MANIFEST, Path("/w"), folder, Load((8,)),
        command=(sys.executable, str(program)), **more,  # type: ignore[arg-type]
    )  # fmt: skip


async def test_trial_starts_an_engine_measures_and_ends_it(tmp_path: Path) -> None:
    launcher = FakeLauncher()
    says = f"import os, sys\nassert os.environ['PENSTOCK_API_KEY']\nprint('''{ANSWER}''')"
    settings = {"max_num_seqs": 64, "stream_interval": 4}
    figures = await runner(launcher, tmp_path, says).run(settings, 2, 0)
    assert figures.fault() is None
    assert (figures.levels[0].output_rate, figures.prefill_tokens_s) == (10.5, 99.5)
    (lease,) = launcher.leases
    assert {"--max-num-seqs=64", "--stream-interval=4", "--swap-space=4"} <= set(lease.request.args)
    assert lease.given_up
    assert lease.closed


async def test_load_test_is_told_what_to_ask(tmp_path: Path) -> None:
    says = f"import sys, pathlib\npathlib.Path({str(tmp_path / 'told')!r}).write_text(' '.join("
    await runner(FakeLauncher(), tmp_path, says + f"sys.argv[1:]))\nprint('''{ANSWER}''')").run(
        {}, 3, 7
    )
    told = (tmp_path / "told").read_text()
    assert told.startswith("http://127.0.0.1:40000 --model m --levels 8 --rounds 3")
    assert told.endswith("--seed 7")
    assert "token" not in told.replace("tokens", "")


@pytest.mark.parametrize(
    ("birth", "says", "complaint"),
    [
        ((Refused(reason="out of memory"),), "", "out of memory"),
        ((FORKED, Exited(code=1, cause="CUDA out of memory")), "", "CUDA out of memory"),
        ((), "", "not ready within"),
        (BIRTH, "import sys; sys.stderr.write('no route'); sys.exit(6)", "no route"),
        (BIRTH, "print('nonsense')", "cannot be read"),
        (BIRTH, "import time; time.sleep(600)", "no figures within"),
        ((*BIRTH, Exited(signal="SIGKILL", cause="killed")), "import time; time.sleep(600)",
         "killed"),
    ],
    ids=["refused", "died", "never-ready", "unusable", "nonsense", "hangs", "dies-under-load"],
)  # fmt: skip
async def test_trial_that_fails_says_why_and_leaves_nothing(
    birth: tuple[object, ...], says: str, complaint: str, tmp_path: Path
) -> None:
    launcher = FakeLauncher(birth=birth)  # type: ignore[arg-type]
    patience_s = 0.2 if not birth else 60.0
    ladder_s = 0.5 if "no figures" in complaint else 60.0
    one = runner(launcher, tmp_path, says, start_timeout_s=patience_s, ladder_timeout_s=ladder_s)
    with pytest.raises(TrialError, match=complaint):
        await one.run({}, 1, 0)
    (lease,) = launcher.leases
    assert lease.given_up
    assert lease.closed


async def test_trial_with_arguments_that_no_manifest_may_have_is_a_failed_one(
    tmp_path: Path,
) -> None:
    launcher = FakeLauncher()
    with pytest.raises(TrialError, match="no manifest may have this"):
        await runner(launcher, tmp_path, "").run({"max_num_seqs": 0}, 1, 0)
    assert launcher.leases == []


async def test_launcher_that_is_gone_is_no_trials_failure(tmp_path: Path) -> None:
    with pytest.raises(UnreachableError, match="launcher is gone"):
        await runner(FakeLauncher(away_for=1), tmp_path, "").run({}, 1, 0)
