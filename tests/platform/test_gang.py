"""A model whose engine spans both hosts answers as one of one host, ends as one, starts as one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from openai import OpenAI

from tests.platform.platform import Platform, eventually

pytestmark = pytest.mark.engine

NAME = "wide"
PATIENCE_S = 150
HELLO = [{"role": "user", "content": "What happens when the last engine is idle?"}]


@pytest.fixture
def wide(platform: Platform, tmp_path: Path) -> Iterator[None]:
    """A model of two ranks on two hosts; asleep."""
    document = {
        "name": NAME,
        "source": "builtin://guide",
        "engine": {"max_num_seqs": 4, "max_model_len": 512, "dtype": "float32"},
        "resources": {"tensor_parallel": 2, "hosts": 2, "memory_gib": 0.5},
        "scaling": {"idle_timeout_s": 600, "priority": 1},
    }
    path = tmp_path / "wide.yaml"
    path.write_text(yaml.safe_dump(document))
    done = platform.penstock("deploy", "-f", str(path), "--no-wait")
    assert done.returncode == 0, done.stderr
    yield
    assert platform.penstock("delete", NAME).returncode == 0
    eventually(lambda: not busy(platform), 60, "its hosts are free again")


def busy(platform: Platform) -> list[dict[str, Any]]:
    """The hosts that run a part of it."""
    return [host for host in platform.items("hosts") if host["model"] == NAME]


def ranks(platform: Platform) -> list[psutil.Process]:
    found = []
    for process in platform.processes():
        try:
            if "Worker_TP" in process.name():
                found.append(process)
        except psutil.NoSuchProcess:
            continue
    return found


def answer(client: OpenAI, model: str) -> str | None:
    reply = client.chat.completions.create(
        model=model, messages=HELLO, temperature=0, max_tokens=48, timeout=PATIENCE_S
    )  # type: ignore[call-overload]
    return reply.choices[0].message.content


def test_engine_over_two_hosts_answers_as_one_and_is_restarted_as_one(
    platform: Platform, client: OpenAI, wide: None
) -> None:
    expected = answer(client, "guide")
    assert answer(client, NAME) == expected  # though it had to wait for the guide's host
    assert len(busy(platform)) == 2
    (engine,) = [e for e in platform.items("engines") if e["model"] == NAME]
    before = ranks(platform)
    assert len(before) == 2

    before[-1].kill()
    assert answer(client, NAME) == expected
    (again,) = [
        e for e in platform.items("engines") if e["model"] == NAME and e["phase"] == "ready"
    ]
    assert again["engine_id"] != engine["engine_id"]
    assert {p.pid for p in ranks(platform)}.isdisjoint(p.pid for p in before)
    assert len(busy(platform)) == 2
