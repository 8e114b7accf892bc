"""Real vLLM engines out of a real launcher: they serve, and they leave nothing behind."""

import json
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from serving.engine.launch_protocol import Exited, Reached
from serving.protocol import StartPhase
from tests.serving.engine.real import Engine, Launcher, kill, spawned, start_launcher

pytestmark = pytest.mark.engine

QUESTION = "What-does-nobody-log?"


def chat(**fields: object) -> dict[str, object]:
    messages = [{"role": "user", "content": QUESTION}]
    return {"model": "tiny", "messages": messages, "max_tokens": 8, "temperature": 0} | fields


@pytest.fixture(scope="module")
def engine(
    vllm_launcher: Launcher, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engine]:
    log_path = tmp_path_factory.mktemp("engine") / "e1.log"
    with spawned(vllm_launcher, tiny_model, log_path) as forked:
        forked.wait_until_ready()
        yield forked


def test_launcher_is_single_threaded_at_one_openmp_thread(vllm_launcher: Launcher) -> None:
    process = psutil.Process(vllm_launcher.process.pid)
    assert process.num_threads() == 1
    assert process.environ()["OMP_NUM_THREADS"] == "1"


def test_engine_is_a_child_of_the_launcher(vllm_launcher: Launcher, engine: Engine) -> None:
    assert engine.processes[0].ppid() == vllm_launcher.process.pid
    assert engine.core.ppid() == engine.processes[0].pid


def test_start_passes_its_phases_in_order(engine: Engine) -> None:
    reached = [event for event in engine.events if isinstance(event, Reached)]
    assert [event.phase for event in reached] == [
        StartPhase.WEIGHTS,
        StartPhase.ENGINE_READY,
        StartPhase.PROBED,
    ]
    assert engine.forked is not None
    assert engine.forked.at <= reached[0].at <= reached[1].at


def test_engine_streams_a_chat(engine: Engine) -> None:
    # Long enough to come in parts: a busy engine's server joins what it has not yet sent.
    body = chat(stream=True, max_tokens=64, ignore_eos=True)
    with (
        engine.client() as http,
        http.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        assert answer.status_code == 200
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    pieces = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert sum(bool(piece["choices"][0]["delta"].get("content")) for piece in pieces) > 1


def test_greedy_answers_are_the_same_each_time(engine: Engine) -> None:
    with engine.client() as http:
        answers = [http.post("/v1/chat/completions", json=chat()).json() for _ in range(2)]
    first, second = (answer["choices"][0]["message"]["content"] for answer in answers)
    assert first == second
    assert answers[0]["usage"]["completion_tokens"] == 8
    assert "prompt_tokens_details" in answers[0]["usage"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/health"),
        ("GET", "/metrics"),
        ("GET", "/ping"),
        ("GET", "/load"),
        ("GET", "/version"),
        ("GET", "/v1/models"),
        ("GET", "/penstock/in_flight"),
        ("GET", "/openapi.json"),
        ("POST", "/tokenize"),
        ("POST", "/invocations"),
        ("POST", "/score"),
        ("POST", "/v1/chat/completions"),
        ("POST", "/no/such/route"),
    ],
)
def test_every_route_asks_for_the_token(engine: Engine, method: str, path: str) -> None:
    with engine.client(token="wrong") as http:
        answer = http.request(method, path, json={} if method == "POST" else None)
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_request_id_reaches_answer_and_log_and_the_prompt_does_not(engine: Engine) -> None:
    with engine.client() as http:
        headers = {"x-request-id": "req-4711"}
        answer = http.post("/v1/chat/completions", json=chat(), headers=headers)
    assert answer.headers["x-request-id"] == "req-4711"
    assert "req-4711" in answer.json()["id"]
    log = engine.log_with("req-4711")
    assert QUESTION not in log
    assert "Route: " not in log


def test_disconnect_aborts_the_generation(engine: Engine) -> None:
    endless = chat(stream=True, max_tokens=30_000, ignore_eos=True)
    with engine.client() as http:
        before = metric(http, "vllm:generation_tokens_total")
        with http.stream("POST", "/v1/chat/completions", json=endless) as answer:
            assert answer.status_code == 200
            lines = answer.iter_lines()  # kept: httpx hangs up when it is dropped
            next(lines)
            has_in_flight(http, 1)
        has_in_flight(http, 0)
        # The engine's own counters move with its steps: one more request brings them up to date.
        http.post("/v1/chat/completions", json=chat()).raise_for_status()
        assert metric(http, "vllm:num_requests_running") == 0
        assert metric(http, "vllm:generation_tokens_total") - before < 30_000


def has_in_flight(http: httpx.Client, number: int) -> None:
    """Waits until so many requests run: one is counted until after its answer was sent."""
    deadline_s = time.monotonic() + 60
    while (told := http.get("/penstock/in_flight").json()["in_flight"]) != number:
        assert time.monotonic() < deadline_s, told
        time.sleep(0.05)


def metric(http: httpx.Client, name: str) -> float:
    lines = http.get("/metrics").text.splitlines()
    return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(name))


def test_given_up_engine_ends_to_the_last_process(
    vllm_launcher: Launcher, tiny_model: Path, tmp_path: Path
) -> None:
    with spawned(vllm_launcher, tiny_model, tmp_path / "e.log") as forked:
        forked.wait_until_ready()
        assert forked.end().cause == "the engine was told to end: the host gave it up"
        forked.assert_gone()


def test_killed_api_server_takes_the_engine_core_along(
    vllm_launcher: Launcher, tiny_model: Path, tmp_path: Path
) -> None:
    with spawned(vllm_launcher, tiny_model, tmp_path / "e.log") as forked:
        forked.wait_until_ready()
        kill(forked.processes[0])
        assert forked.wait_for_exit().signal == "SIGKILL"
        forked.assert_gone()


def test_killed_engine_core_takes_the_api_server_along(
    vllm_launcher: Launcher, tiny_model: Path, tmp_path: Path
) -> None:
    with spawned(vllm_launcher, tiny_model, tmp_path / "e.log") as forked:
        forked.wait_until_ready()
        kill(forked.core)
        assert forked.wait_for_exit().cause == "the engine was killed (SIGKILL)"
        forked.assert_gone()


def test_engine_given_up_during_its_start_leaves_nothing(
    vllm_launcher: Launcher, tiny_model: Path, tmp_path: Path
) -> None:
    with spawned(vllm_launcher, tiny_model, tmp_path / "e.log") as forked:
        while not isinstance(forked.next_event(), Reached):
            pass
        first = psutil.Process(forked.forked.pid)  # type: ignore[union-attr]
        forked.processes = [first, *first.children(recursive=True)]
        forked.end()
        forked.assert_gone()


def test_killed_launcher_leaves_no_engine_forked_or_executed(
    own_launcher: Launcher, tiny_model: Path, tmp_path: Path
) -> None:
    with (
        spawned(own_launcher, tiny_model, tmp_path / "executed.log", "exec") as executed,
        spawned(own_launcher, tiny_model, tmp_path / "forked.log") as forked,
    ):
        forked.wait_until_ready()
        executed.wait_until_ready()
        own_launcher.process.kill()
        forked.assert_gone()
        executed.assert_gone()
        assert forked.next_event() is None


UNKNOWN = {"no_such_thing": 1}, "unrecognized arguments: --no-such-thing=1"
RANGE = {"gpu_memory_utilization": 7.5}, "gpu_memory_utilization: Input should be less than"


@pytest.mark.parametrize(
    ("mode", "args", "cause"),
    [("fork", *UNKNOWN), ("fork", *RANGE), ("exec", *RANGE)],
    ids=["unknown, forked", "range, forked", "range, executed"],
)
def test_bad_argument_comes_back_as_one_sentence(
    vllm_launcher: Launcher,
    tiny_model: Path,
    tmp_path: Path,
    mode: str,
    args: dict[str, object],
    cause: str,
) -> None:
    with spawned(vllm_launcher, tiny_model, tmp_path / "e.log", mode, args=args) as broken:
        exited = broken.wait_for_exit()
    assert exited.cause.startswith(cause)
    assert exited.hint is not None


def test_weights_that_do_not_fit_come_back_as_one_sentence(
    vllm_launcher: Launcher, tiny_model: Path, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for file in tiny_model.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    config = json.loads((tiny_model / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps(config | {"hidden_size": 256}))
    with spawned(vllm_launcher, broken, tmp_path / "e.log") as forked:
        exited = forked.wait_for_exit()
    assert isinstance(exited, Exited)
    assert "size of tensor a (256)" in exited.cause
    assert exited.hint == "the model's weights do not fit its config.json"


def test_plainly_spawned_engine_serves_behind_the_same_guard_and_dies_whole(
    tiny_model: Path, tmp_path: Path
) -> None:
    """As a vLLM does that is not in the version table: nobody but the engine imports it."""
    with (
        start_launcher(tmp_path, PENSTOCK_PLAIN_SPAWN="true", PENSTOCK_STANDBY="1") as plain,
        spawned(plain, tiny_model, tmp_path / "e.log", "auto") as executed,
    ):
        executed.wait_until_ready()
        assert executed.forked is not None and executed.forked.mode == "exec"
        mapped = Path(f"/proc/{plain.process.pid}/maps").read_text()
        assert "torch" not in mapped, "the launcher has imported it"
        with executed.client() as http:
            headers = {"x-request-id": "req-4712"}
            answer = http.post("/v1/chat/completions", json=chat(), headers=headers)
            assert answer.json()["usage"]["completion_tokens"] == 8
        with executed.client(token="wrong") as http:
            assert http.get("/metrics").status_code == 401
        log = executed.log_with("req-4712")
        assert QUESTION not in log
        kill(executed.processes[0])
        executed.assert_gone()
