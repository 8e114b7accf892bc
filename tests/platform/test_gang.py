"""A model whose engine spans both hosts answers as one of one host, ends as one, starts as one.

Of `make test-long`: it takes the hosts from all other models of the shared platform.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml
from openai import OpenAI

from tests.platform.conftest import LONG
from tests.platform.platform import Platform, eventually
from tests.processes import still_alive

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not LONG, reason="of `make test-long`"),
]

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
    assert platform.is_listed(NAME)
    yield
    assert platform.penstock("delete", NAME).returncode == 0
    eventually(lambda: not busy(platform), PATIENCE_S, "its hosts are free again")


def busy(platform: Platform) -> list[dict[str, Any]]:
    """The hosts that run a part of it."""
    return [host for host in platform.items("hosts") if host["model"] == NAME]


def serving(platform: Platform) -> list[str]:
    """Its engines that serve, by id."""
    found = [one for one in platform.items("engines") if one["model"] == NAME]
    return [one["engine_id"] for one in found if one["phase"] == "ready"]


def ranks(platform: Platform) -> list[psutil.Process]:
    """The processes that compute for it: engines of one rank have none of this name."""
    found = []
    for process in platform.part("serving.engine.launcher").children(recursive=True):
        try:
            if "Worker" in process.name():
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
    (engine,) = serving(platform)
    before = ranks(platform)
    assert len(before) == 2

    before[-1].kill()
    assert still_alive(before, PATIENCE_S) == []
    # What was under way when the other rank died would fail: ask once the engine is known as gone.
    eventually(lambda: engine not in serving(platform), PATIENCE_S, "its engine is gone")
    assert answer(client, NAME) == expected
    assert serving(platform) not in ([], [engine])
    assert len(ranks(platform)) == 2
    assert len(busy(platform)) == 2
