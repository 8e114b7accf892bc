"""Engines of several ranks, on one host and on two: the same text as one rank's, and one death."""

import contextlib
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from models.manifest import parse_manifest
from serving.engine import shared_memory
from serving.engine.arguments import vllm_arguments, vllm_environment
from serving.engine.gang import gang_environment
from serving.engine.launch_protocol import Reached, SpawnRequest
from serving.protocol import GangPlace, StartPhase
from tests.serving.engine.real import TOKEN, Engine, Launcher, kill, spawned

pytestmark = pytest.mark.engine

LOOPBACK = "127.0.0.1"
QUESTION = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "How many ranks are you?"}],
    "max_tokens": 24,
    "temperature": 0,
    "ignore_eos": True,
    "logprobs": True,
    "return_tokens_as_token_ids": True,
}


@pytest.fixture(scope="module")
def lively_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose text goes on and on."""
    folder = tmp_path_factory.mktemp("weights") / "lively"
    command = [sys.executable, "-m", "tests.serving.engine.tiny_model", str(folder)]
    subprocess.run([*command, "--spread", "0.2"], check=True, capture_output=True, timeout=120)
    return folder


@pytest.fixture(scope="module")
def expected(
    vllm_launcher: Launcher, lively_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """What one rank answers."""
    log_path = tmp_path_factory.mktemp("one") / "one.log"
    with spawned(vllm_launcher, lively_model, log_path, dtype="float32") as one:
        one.wait_until_ready()
        tokens = answer(one)
        one.end()
    assert len(set(tokens)) > 8  # else any engine would say the same
    return tokens


def answer(engine: Engine) -> list[str]:
    """The tokens of the engine's answer."""
    with engine.client() as http:
        said = http.post("/v1/chat/completions", json=QUESTION)
        assert said.status_code == 200, said.text
        return [one["token"] for one in said.json()["choices"][0]["logprobs"]["content"]]


@contextlib.contextmanager
def ranks(
    launcher: Launcher, model: Path, folder: Path, hosts: int = 1, **resources: int
) -> Iterator[list[Engine]]:
    """The parts of an engine of several ranks, by host; ready."""
    manifest = parse_manifest(
        {
            "name": "tiny",
            "source": f"file://{model}",
            "engine": {"dtype": "float32", "max_model_len": 512},
            "resources": {**resources, "hosts": hosts},
        }
    )
    port = 20000 + secrets.randbelow(10000)
    parts: list[Engine] = []
    with contextlib.ExitStack() as stack:
        for rank in range(hosts):
            place = (
                GangPlace(leader="e0", rank=rank, size=hosts, address=LOOPBACK, port=port)
                if hosts > 1
                else None
            )
            environment = vllm_environment(manifest, ())
            if place is not None:
                environment |= gang_environment(LOOPBACK)
            request = SpawnRequest(
                engine_id=f"e{rank}",
                args=vllm_arguments(manifest, model, gang=place),
                environment=environment,
                token=TOKEN,
                log_path=folder / f"{rank}.log",
                memory_gib=0.5,
                mode="fork",
            )
            parts.append(Engine(launcher, request))
            stack.callback(parts[-1].close)
        parts[0].wait_until_ready()
        for part in parts[1:]:
            while not (
                isinstance(event := part.next_event(), Reached)
                and event.phase is StartPhase.ENGINE_READY
            ):
                assert event is not None, part.log_path.read_text()
            first = psutil.Process(part.forked.pid)  # type: ignore[union-attr]
            part.processes = [first, *first.children(recursive=True)]
        yield parts
    for part in parts:
        part.assert_gone()


def rank_of(part: Engine) -> psutil.Process:
    """A process of the part that computes."""
    return next(p for p in part.processes if "Worker" in p.name())


def shared() -> set[str]:
    """Shared memory of engines on this machine."""
    return {path.name for path in shared_memory.FOLDER.glob("penstock-*")}


@pytest.mark.parametrize("split", ["tensor_parallel", "pipeline_parallel"])
def test_two_ranks_of_one_host_answer_as_one_and_die_with_either(
    vllm_launcher: Launcher, lively_model: Path, tmp_path: Path, expected: list[str], split: str
) -> None:
    before = shared()
    with ranks(vllm_launcher, lively_model, tmp_path, **{split: 2}) as (engine,):
        assert answer(engine) == expected
        mine = shared() - before
        assert mine
        kill(rank_of(engine))
        engine.wait_for_exit()
        engine.assert_gone()
        assert not mine & shared()  # it stays where its owner is killed


@pytest.mark.parametrize(
    ("split", "victim"), [("tensor_parallel", "part"), ("pipeline_parallel", "first")]
)
def test_two_hosts_answer_as_one_engine_and_each_part_dies_whole(
    vllm_launcher: Launcher,
    lively_model: Path,
    tmp_path: Path,
    expected: list[str],
    split: str,
    victim: str,
) -> None:
    with ranks(vllm_launcher, lively_model, tmp_path, hosts=2, **{split: 2}) as (first, second):
        assert answer(first) == expected
        if victim == "part":
            kill(rank_of(second))
            assert second.wait_for_exit().cause == "a rank of the engine ended"
            second.assert_gone()
        else:
            kill(first.processes[0])
            first.wait_for_exit()
            first.assert_gone()
            assert second.end().cause.startswith("the engine was told to end")
