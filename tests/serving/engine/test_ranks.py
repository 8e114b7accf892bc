"""Engines of several ranks, on one host and on two: the same text as one rank's, and one death."""

import contextlib
import os
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from models.manifest import parse_manifest
from serving.engine import shared_memory
from serving.engine.arguments import vllm_arguments, vllm_environment
from serving.engine.gang import gang_environment
from serving.engine.launch_protocol import Reached, SpawnRequest
from serving.protocol import GangPlace, StartPhase
from tests.serving.engine.real import TOKEN, Engine, Launcher, kill, spawned, start_launcher
from tests.serving.engine.tiny_model import write_apart

pytestmark = pytest.mark.engine
only_long = pytest.mark.skipif(os.environ.get("LONG_TESTS") != "1", reason="of `make test-long`")

LOOPBACK = "127.0.0.1"
NEAR, FAR = "10.231.7.1", "10.231.7.2"
"""Of the two ends of a link between two networks."""
QUESTION = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "How many ranks are you?"}],
    "max_tokens": 24,
    "temperature": 0,
    "ignore_eos": True,
    "logprobs": True,
    "return_tokens_as_token_ids": True,
}


@dataclass(frozen=True)
class Home:
    """Where a part of an engine runs."""

    launcher: Launcher
    address: str = LOOPBACK
    interface: str | None = None
    """Of the address, where this process cannot see it."""

    def environment(self) -> dict[str, str]:
        found = gang_environment(self.address)
        if self.interface is not None:
            found |= {f"{name}_SOCKET_IFNAME": self.interface for name in ("GLOO", "NCCL", "TP")}
        return found


@pytest.fixture(scope="module")
def lively_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose text goes on and on."""
    return write_apart(tmp_path_factory.mktemp("weights") / "lively", "--spread", "0.2")


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
    homes: Sequence[Home], model: Path, folder: Path, **resources: int
) -> Iterator[list[Engine]]:
    """The parts of an engine of several ranks, by host; ready."""
    hosts = len(homes)
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
        for rank, home in enumerate(homes):
            place = None
            environment = vllm_environment(manifest, ())
            if hosts > 1:
                place = GangPlace(
                    leader="e0", rank=rank, size=hosts, address=homes[0].address, port=port
                )
                environment |= home.environment()
            request = SpawnRequest(
                engine_id=f"e{rank}",
                args=vllm_arguments(manifest, model, gang=place),
                environment=environment,
                token=TOKEN,
                log_path=folder / f"{rank}.log",
                memory_gib=0.5,
                mode="fork",
            )
            parts.append(Engine(home.launcher, request))
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


@pytest.mark.parametrize(
    "split",
    [
        {"tensor_parallel": 2},
        {"pipeline_parallel": 2},
        pytest.param({"tensor_parallel": 2, "pipeline_parallel": 2}, marks=only_long),
    ],
    ids=str,
)
def test_ranks_of_one_host_answer_as_one_and_die_with_any(
    vllm_launcher: Launcher,
    lively_model: Path,
    tmp_path: Path,
    expected: list[str],
    split: dict[str, int],
) -> None:
    before = shared()
    with ranks([Home(vllm_launcher)], lively_model, tmp_path, **split) as (engine,):
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
    homes = [Home(vllm_launcher)] * 2
    with ranks(homes, lively_model, tmp_path, **{split: 2}) as (first, second):
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


@pytest.fixture
def network() -> Iterator[str]:
    """A network of its own, with a link to ours: NEAR here, FAR there."""
    name = f"penstock-{secrets.token_hex(2)}"
    near, far = f"{name[-4:]}-near", f"{name[-4:]}-far"
    made = run_ip("netns", "add", name)
    if made is not None:
        pytest.skip(f"no network of its own: {made}")
    try:
        for words in (
            ("link", "add", near, "type", "veth", "peer", "name", far, "netns", name),
            ("address", "add", f"{NEAR}/30", "dev", near),
            ("link", "set", near, "up"),
            ("-n", name, "address", "add", f"{FAR}/30", "dev", far),
            ("-n", name, "link", "set", far, "up"),
            ("-n", name, "link", "set", "lo", "up"),
        ):
            if (failure := run_ip(*words)) is not None:
                pytest.skip(f"no network of its own: ip {' '.join(words)}: {failure}")
        yield name
    finally:
        run_ip("netns", "delete", name)  # the link goes with it


def run_ip(*words: str) -> str | None:
    """What is wrong; None where it was done."""
    try:
        done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    except FileNotFoundError as exc:
        return str(exc)
    return done.stderr.strip() or None if done.returncode else None


@only_long
@pytest.mark.parametrize("split", ["tensor_parallel", "pipeline_parallel"])
def test_two_hosts_in_two_networks_answer_as_one_engine(
    vllm_launcher: Launcher,
    lively_model: Path,
    tmp_path: Path,
    expected: list[str],
    network: str,
    split: str,
) -> None:
    (tmp_path / "far").mkdir()
    with start_launcher(tmp_path / "far", ("ip", "netns", "exec", network)) as far:
        homes = [Home(vllm_launcher, NEAR), Home(far, FAR, f"{network[-4:]}-far")]
        with ranks(homes, lively_model, tmp_path, **{split: 2}) as (first, second):
            assert answer(first) == expected
            kill(rank_of(second))
            assert second.wait_for_exit().cause == "a rank of the engine ended"
