"""The recorder in a real vLLM: what it counts is what vLLM says, and is there after a kill -9."""

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from serving.engine import recorder_file as layout
from serving.engine.recorder import PATH_VARIABLE
from serving.engine.recorder_file import Slot, State
from tests.serving.engine.real import Engine, Launcher, kill, spawned
from tests.serving.engine.tiny_model import THINK, write_apart

pytestmark = pytest.mark.engine

CHAT = "/v1/chat/completions"


def body(**fields: object) -> dict[str, object]:
    messages = [{"role": "user", "content": "Count, please."}]
    return {"model": "tiny", "messages": messages, "temperature": 0, "max_tokens": 8, **fields}


def name(number: int) -> str:
    return f"{number:032x}-1"


def slots(path: Path) -> dict[str, Slot]:
    """All attempts in a recorder's file."""
    file = layout.open_existing(path)
    used = range(file.words[layout.USED])
    read = [file.read(n) for n in used if file.words[layout.word(n, 0)] != State.FREE]
    file.close()
    return {slot.attempt_id: slot for slot in read if slot is not None}


def words(path: Path, *which: int) -> list[int]:
    file = layout.open_existing(path)
    found = [file.words[one] for one in which]
    file.close()
    return found


@pytest.fixture(scope="module")
def recorder_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("recorder") / "e1.recorder"


@pytest.fixture(scope="module")
def engine(vllm_launcher: Launcher, tiny_model: Path, recorder_path: Path) -> Iterator[Engine]:
    log_path = recorder_path.with_suffix(".log")
    environment = {PATH_VARIABLE: str(recorder_path)}
    with spawned(vllm_launcher, tiny_model, log_path, environment=environment) as forked:
        forked.wait_until_ready()
        yield forked


def test_recorder_counts_what_vllm_says_of_each_answer(engine: Engine, recorder_path: Path) -> None:
    cases = [
        body(),
        body(n=3),
        body(max_tokens=1),
        body(stop=["e"], max_tokens=32),
        body(messages=[{"role": "user", "content": "long " * 40}]),
        {"model": "tiny", "prompt": ["one", "and two", "three"], "max_tokens": 5},
        body(tools="nonsense"),
    ]

    def ask(number: int) -> dict[str, int]:
        path = "/v1/completions" if "prompt" in cases[number] else CHAT
        with engine.client() as http:
            headers = {"x-request-id": name(number)}
            answer = http.post(path, json=cases[number], headers=headers).json()
        usage: dict[str, int] = answer.get("usage", {"prompt_tokens": 0, "completion_tokens": 0})
        return usage

    with ThreadPoolExecutor(len(cases)) as together:
        told = [*together.map(ask, range(len(cases)))]
    deadline_s = time.monotonic() + 60
    found = slots(recorder_path)
    while any(slot.ended_at == 0 for slot in found.values()) and time.monotonic() < deadline_s:
        time.sleep(0.02)  # the end is written down after the answer's last byte
        found = slots(recorder_path)
    for number, usage in enumerate(told):
        slot = found[name(number)]
        assert (slot.prompt, slot.completion) == (
            usage["prompt_tokens"],
            usage["completion_tokens"],
        ), cases[number]
        assert slot.ended_at >= slot.began_at > 0


def test_recorder_and_vllms_own_counters_agree(engine: Engine, recorder_path: Path) -> None:
    ours = words(
        recorder_path, layout.PROMPT, layout.OTHER_PROMPT, layout.COMPLETION,
        layout.OTHER_COMPLETION, layout.ENGINE_PROMPT, layout.ENGINE_COMPLETION,
    )  # fmt: skip
    prompt, other_prompt, completion, other_completion, engine_prompt, engine_completion = ours
    assert prompt + other_prompt == engine_prompt > 0
    assert completion + other_completion == engine_completion > 0
    with engine.client() as http:
        lines = http.get("/metrics").text.splitlines()
    own = {
        line.partition("{")[0]: float(line.rpartition(" ")[2])
        for line in lines
        if line.startswith(("vllm:prompt_tokens_total", "vllm:generation_tokens_total"))
    }
    assert own == {
        "vllm:prompt_tokens_total": engine_prompt,
        "vllm:generation_tokens_total": engine_completion,
    }


def test_attempt_that_a_tenant_left_has_what_was_made_until_then(
    engine: Engine, recorder_path: Path
) -> None:
    headers = {"x-request-id": name(100)}
    seen = 0
    with (
        engine.client() as http,
        http.stream(
            "POST", CHAT, json=body(stream=True, max_tokens=200), headers=headers
        ) as answer,
    ):
        for line in answer.iter_lines():
            if line and json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get(
                "content"
            ):
                seen += 1
            if seen == 5:
                break
    deadline_s = time.monotonic() + 60
    while not (slot := slots(recorder_path)[name(100)]).ended_at:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    assert 5 <= slot.completion < 200
    assert slot.prompt > 0


def test_attempts_of_a_killed_engine_are_known(
    vllm_launcher: Launcher, tiny_model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "e2.recorder"
    environment = {PATH_VARIABLE: str(path)}
    with spawned(vllm_launcher, tiny_model, tmp_path / "e2.log", environment=environment) as engine:
        engine.wait_until_ready()
        first = threading.Event()
        seen = 0

        def stream() -> None:
            nonlocal seen
            headers = {"x-request-id": name(1)}
            many = body(stream=True, max_tokens=230, ignore_eos=True)
            with (
                contextlib.suppress(httpx.HTTPError),
                engine.client() as http,
                http.stream("POST", CHAT, json=many, headers=headers) as answer,
            ):
                for line in answer.iter_lines():
                    seen += '"content":"' in line
                    if seen > 3:
                        first.set()

        reader = threading.Thread(target=stream)
        reader.start()
        assert first.wait(30)
        for process in engine.processes:
            kill(process)
        reader.join()
        engine.wait_for_exit()
    file = layout.open_existing(path)
    assert not file.is_written()
    file.close()
    slot = slots(path)[name(1)]
    assert slot.completion >= seen - 1, "the first event bears the role alone"
    assert slot.ended_at == 0
    assert slot.prompt > 0


@pytest.fixture(scope="module")
def thinker_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("thinker") / "e3.recorder"


@pytest.fixture(scope="module")
def thinking_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_apart(tmp_path_factory.mktemp("thinking") / "tiny", "--thinks")


@pytest.fixture(scope="module")
def thinker(vllm_launcher: Launcher, thinking_model: Path, thinker_path: Path) -> Iterator[Engine]:
    """An engine whose model reasons: it makes random letters, and now and then a mark."""
    log_path = thinker_path.with_suffix(".log")
    environment = {PATH_VARIABLE: str(thinker_path)}
    with spawned(
        vllm_launcher, thinking_model, log_path, environment=environment, reasoning_parser="qwen3"
    ) as forked:
        forked.wait_until_ready()
        yield forked


def letters(model: Path) -> list[int]:
    """The ids of some letters."""
    vocabulary = json.loads((model / "tokenizer.json").read_text())["model"]["vocab"]
    return [vocabulary[letter] for letter in "abcdefghijklmnop"]


def mark(model: Path) -> int:
    """The id by which reasoning ends."""
    vocabulary = json.loads((model / "tokenizer.json").read_text())["model"]["vocab"]
    return int(vocabulary[THINK[1]])


def wait_for(path: Path, attempt_id: str) -> Slot:
    """The attempt once it has ended."""
    deadline_s = time.monotonic() + 60
    while (slot := slots(path).get(attempt_id)) is None or not slot.ended_at:
        assert time.monotonic() < deadline_s
        time.sleep(0.01)
    return slot


def test_reasoning_is_counted_as_vllm_says_of_whole_answers(
    thinker: Engine, thinking_model: Path, thinker_path: Path
) -> None:
    random = {"temperature": 1.0, "ignore_eos": True, "max_tokens": 24, "return_token_ids": True,
              "allowed_token_ids": [*letters(thinking_model), mark(thinking_model)]}  # fmt: skip
    plain = {"chat_template_kwargs": {"enable_thinking": False}}
    cases = [body(seed=seed, **random) for seed in range(6)]
    cases += [body(seed=7, n=2, **random), body(seed=8, **random, **plain)]
    cases += [{"model": "tiny", "prompt": "one", "seed": 9, **random}]
    ended = 0
    for number, case in enumerate(cases, start=200):
        path = "/v1/completions" if "prompt" in case else CHAT
        with thinker.client() as http:
            answer = http.post(path, json=case, headers={"x-request-id": name(number)}).json()
        slot = wait_for(thinker_path, name(number))
        told = answer["usage"].get("completion_tokens_details") or {"reasoning_tokens": 0}
        made = [choice["token_ids"] for choice in answer["choices"]]
        before = [ids[: ids.index(mark(thinking_model))] if mark(thinking_model) in ids else ids
                  for ids in made]  # fmt: skip
        wanted = 0 if case == cases[-1] or case == cases[-2] else sum(map(len, before))
        assert (slot.completion, slot.reasoning) == (sum(map(len, made)), wanted), made
        assert told["reasoning_tokens"] == wanted
        ended += before != made
    assert ended > 1, "the mark is one of 17 tokens, in 24 of them"


def test_reasoning_of_an_answer_that_was_cut_is_counted(
    thinker: Engine, thinking_model: Path, thinker_path: Path
) -> None:
    endless = body(stream=True, max_tokens=200, ignore_eos=True,
                   allowed_token_ids=letters(thinking_model))  # fmt: skip
    with (
        thinker.client() as http,
        http.stream("POST", CHAT, json=endless, headers={"x-request-id": name(300)}) as answer,
    ):
        seen = 0
        for line in answer.iter_lines():
            seen += '"reasoning' in line
            if seen == 5:
                break
    slot = wait_for(thinker_path, name(300))
    assert 5 <= slot.reasoning == slot.completion < 200
