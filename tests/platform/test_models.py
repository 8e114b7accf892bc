"""Deploying models of one's own: sleeping, waking, failing, going."""

import json
import shutil
import threading
from functools import partial
from pathlib import Path

import httpx
import openai
import pytest
import yaml
from openai import OpenAI

from models.sources import BUILTINS
from tests.platform.platform import Platform, eventually

pytestmark = pytest.mark.engine

HELLO = [{"role": "user", "content": "Hello"}]


def write_manifest(folder: Path, name: str, **fields: object) -> Path:
    document = {
        "apiVersion": "penstock/v1",
        "kind": "Model",
        "name": name,
        "source": f"file://{BUILTINS['guide']}",
        "engine": {"max_num_seqs": 8, "kv_cache_gib": 0.03},
        "scaling": {"min": 0, "max": 1, "idle_timeout_s": 300},
        **fields,
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture
def deployed(platform: Platform, tmp_path: Path):
    """Deploys manifests and deletes them after the test."""
    names: list[str] = []

    def deploy(name: str, *args: str, **fields: object):
        names.append(name)
        path = write_manifest(tmp_path, name, **fields)
        done = platform.penstock("deploy", "-f", str(path), *args)
        assert done.returncode or platform.is_listed(name)
        return done

    yield deploy
    for name in names:
        platform.delete(name)
    eventually(
        lambda: not [e for e in platform.items("engines") if e["model"] in names],
        30,
        "engines of deleted models end",
    )


def test_sleeping_model_wakes_on_demand_and_sleeps_again(
    platform: Platform, client: OpenAI, deployed
) -> None:
    done = deployed("sleeper", "--wait", scaling={"min": 0, "max": 1, "idle_timeout_s": 2})
    assert done.returncode == 0, done.stderr
    assert platform.model("sleeper")["state"] == "asleep"
    assert "sleeper" in [model.id for model in client.models.list()]

    def sleeps() -> bool:
        running = [e for e in platform.items("engines") if e["model"] == "sleeper"]
        return platform.model("sleeper")["state"] == "asleep" and not running

    def went(times: int) -> bool:
        explained = platform.penstock("explain", "sleeper", "--output", "json")
        changes = json.loads(explained.stdout)["items"]
        told = [(c["target"], c["reason"]) for c in changes]
        return told == [(1, "demand"), (0, "idle")] * times

    for turn in (1, 2):
        answer = client.chat.completions.create(model="sleeper", messages=HELLO, max_tokens=3)
        assert answer.choices
        eventually(partial(went, turn), 30, "it was woken, and told to sleep")
        eventually(sleeps, 30, "asleep after idling")
    kinds = [e["kind"] for e in platform.items("events") if e["model"] == "sleeper"]
    assert {"deployed", "ready", "slept"} <= set(kinds)


def test_lists_of_the_command_line_are_those_of_the_api(platform: Platform) -> None:
    done = platform.penstock("get", "models", "--output", "json")
    assert done.returncode == 0, done.stderr
    listed = [model["name"] for model in json.loads(done.stdout)["items"]]
    assert listed == [model["name"] for model in platform.items("models")]


def test_30_requests_wake_one_engine(platform: Platform, client: OpenAI, deployed) -> None:
    deployed("crowd")
    answers: list[object] = []

    def ask() -> None:
        answers.append(
            client.chat.completions.create(model="crowd", messages=HELLO, max_tokens=3, timeout=90)
        )

    threads = [threading.Thread(target=ask) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(100)
    assert len(answers) == 30
    ready = [e for e in platform.items("events") if e["model"] == "crowd" and e["kind"] == "ready"]
    assert len(ready) == 1


def test_changed_scaling_restarts_nothing(platform: Platform, client: OpenAI, deployed) -> None:
    deployed("steady", "--wait", scaling={"min": 1, "max": 1, "idle_timeout_s": 300})
    engine = next(e for e in platform.items("engines") if e["model"] == "steady")
    deployed("steady", "--wait", scaling={"min": 1, "max": 1, "idle_timeout_s": 10})
    now = [e for e in platform.items("engines") if e["model"] == "steady"]
    assert [e["engine_id"] for e in now] == [engine["engine_id"]]


def test_exec_engine_serves_as_a_fork_does(client: OpenAI, deployed) -> None:
    engine = {"max_num_seqs": 4, "kv_cache_gib": 0.03, "spawn": "exec"}
    deployed("slow-start", engine=engine)
    answer = client.chat.completions.create(
        model="slow-start", messages=HELLO, temperature=0, timeout=120
    )
    forked = client.chat.completions.create(model="guide", messages=HELLO, temperature=0)
    assert answer.choices[0].message.content == forked.choices[0].message.content


@pytest.mark.parametrize("fault", ["cut weights", "no config", "bad shapes", "bad argument"])
def test_model_that_cannot_start_fails_clearly(
    platform: Platform, client: OpenAI, deployed, tmp_path: Path, fault: str
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(BUILTINS["guide"], folder)
    engine: dict[str, object] = {"max_num_seqs": 8, "kv_cache_gib": 0.03}
    match fault:
        case "cut weights":
            weights = next(folder.glob("*.safetensors"))
            weights.write_bytes(weights.read_bytes()[:-1000])
        case "no config":
            (folder / "config.json").unlink()
        case "bad shapes":
            config = folder / "config.json"
            text = config.read_text().replace('"intermediate_size": ', '"intermediate_size": 1')
            config.write_text(text)
        case "bad argument":
            engine["args"] = {"no_such_argument": 1}
    deployed("broken", source=f"file://{folder}", engine=engine)
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="broken", messages=HELLO, timeout=100)
    assert caught.value.status_code == 503
    assert caught.value.code == "model_failed"
    model = platform.model("broken")
    assert model["state"] == "failed"
    assert model["reason"]
    assert "Traceback" not in model["reason"]
    events = [e for e in platform.items("events") if e["model"] == "broken"]
    assert "model_failed" in [e["kind"] for e in events]
    assert client.chat.completions.create(model="guide", messages=HELLO, max_tokens=1).choices


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"colour": "red"}, "colour"),
        ({"resources": {"accelerator": "h200", "gpus": 1}}, "resources.accelerator"),
        ({"scaling": {"min": 0, "max": 500}}, "scaling.max"),
        ({"resources": {"memory_gib": 4000}}, "resources.memory_gib"),
        ({"source": "builtin://gpt"}, "source"),
    ],
)
def test_impossible_manifest_is_refused(
    platform: Platform, deployed, fields: dict[str, object], named: str
) -> None:
    done = deployed("impossible", **fields)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert "impossible" not in [model["name"] for model in platform.items("models")]


def test_deleted_model_is_gone(platform: Platform, client: OpenAI, deployed) -> None:
    deployed("passing")
    client.chat.completions.create(model="passing", messages=HELLO, max_tokens=1)
    assert platform.penstock("delete", "passing").returncode == 0
    with pytest.raises(openai.NotFoundError):
        eventually(
            lambda: client.models.retrieve("passing").id == "", 5, "the deleted model is gone"
        )
    assert platform.penstock("delete", "passing").returncode == 4


def test_tenants_disconnect_aborts_in_the_engine(platform: Platform, client: OpenAI) -> None:
    client.chat.completions.create(model="guide", messages=HELLO, max_tokens=1)

    def running() -> float:
        return platform.engine_metric("guide", "vllm:num_requests_running")

    def generated() -> float:
        return platform.engine_metric("guide", "vllm:generation_tokens_total")

    before = generated()
    body = {
        "model": "guide",
        "stream": True,
        "messages": HELLO,
        "n": 16,
        "temperature": 1,  # vLLM takes several choices of a greedy answer for a mistake
        "max_tokens": 1900,
        "ignore_eos": True,
    }
    headers = {"Authorization": f"Bearer {platform.api_key}"}
    url = f"{platform.url}/v1/chat/completions"
    with (
        httpx.Client(timeout=60) as raw,
        raw.stream("POST", url, headers=headers, json=body) as answer,
    ):
        assert answer.status_code == 200
        arriving = answer.iter_bytes()  # kept: closing the iterator would close the stream
        next(arriving)
        eventually(lambda: running() > 0, 10, "the request runs")
    eventually(lambda: running() == 0, 10, "the request is aborted")
    assert generated() - before < 16 * 1900
