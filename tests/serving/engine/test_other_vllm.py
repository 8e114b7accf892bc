"""A vLLM of another version as second engine build: its public entry point behind our launcher.

TEST_VLLM_PYTHON names an interpreter that has one (vLLM 0.26.0's CPU build), with what the platform
needs beside it; the platform's source is this one. Skipped elsewhere: CI has one vLLM.
"""

import os
import time
from pathlib import Path

import pytest

from serving.engine import recorder_file as layout
from serving.engine.recorder import PATH_VARIABLE
from serving.engine.versions import Build
from tests.serving.engine.real import START_TIMEOUT_S, Launcher, kill, spawned, start_launcher
from tests.serving.engine.test_recorder_vllm import slots
from tests.serving.engine.test_vllm_build import hello

OTHER = os.environ.get("TEST_VLLM_PYTHON", "")
ROOT = Path(__file__).parents[3]
NAME = f"{7:032x}-1"

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not OTHER, reason="TEST_VLLM_PYTHON names no second vLLM"),
    pytest.mark.timeout(400),
]


def test_other_version_answers_counts_and_dies_as_ours_does(
    vllm_launcher: Launcher, tiny_model: Path, tmp_path: Path
) -> None:
    recorded = tmp_path / "e.recorder"
    chat = {"model": "tiny", "messages": [{"role": "user", "content": "Count, please."}],
            "max_tokens": 24, "temperature": 0}  # fmt: skip
    with start_launcher(tmp_path, python=OTHER, PYTHONPATH=str(ROOT)) as other:
        build = Build(hello(other).build.removeprefix("vllm "))
        assert not build.reach.in_process
        with (
            spawned(other, tiny_model, tmp_path / "e.log", "auto",
                    {PATH_VARIABLE: str(recorded)}, dtype="float32") as executed,
            spawned(vllm_launcher, tiny_model, tmp_path / "f.log", dtype="float32") as forked,
        ):  # fmt: skip
            answers = []
            for engine in (forked, executed):
                engine.wait_until_ready()
                with engine.client() as http:
                    headers = {"x-request-id": NAME}
                    told = http.post("/v1/chat/completions", json=chat, headers=headers)
                    answers.append(told.json())
            assert executed.forked is not None and executed.forked.mode == "exec"
            texts = [answer["choices"][0]["message"]["content"] for answer in answers]
            assert texts[0] == texts[1] != ""
            with executed.client(token="wrong") as http:
                assert http.post("/v1/chat/completions", json=chat).status_code == 401
                assert http.get("/metrics").status_code == 401
            if build.reach.recorder:
                assert counted(recorded) == (
                    answers[1]["usage"]["prompt_tokens"],
                    answers[1]["usage"]["completion_tokens"],
                )
            kill(executed.processes[0])
            executed.assert_gone()


def counted(path: Path) -> tuple[int, int]:
    """Prompt and completion tokens of the attempt, once it has ended; and of the whole engine."""
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while (slot := slots(path).get(NAME)) is None or slot.ended_at == 0:
        assert time.monotonic() < deadline_s
        time.sleep(0.05)
    file = layout.open_existing(path)
    ours, theirs = file.words[layout.COMPLETION], file.words[layout.ENGINE_COMPLETION]
    others = file.words[layout.OTHER_COMPLETION]
    file.close()
    assert ours + others == theirs
    return slot.prompt, slot.completion
