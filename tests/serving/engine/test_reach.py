"""Each route of vLLM's app, dev and admin ones included, as a tenant reaches it: or does not."""

import json
import os
import subprocess
import sys
from collections.abc import Callable

import pytest

from serving.engine.vllm_adapter import ENVIRONMENT
from serving.gateway.surface import OPERATIONS
from serving.settings import GatewaySettings
from tests.serving.gateway.conftest import Gateway
from tests.serving.gateway.conftest import controller as controller
from tests.serving.gateway.conftest import engine as engine
from tests.serving.gateway.conftest import make_gateway as make_gateway
from tests.serving.gateway.conftest import settings as settings
from tests.serving.gateway.fake_controller import FakeController, model
from tests.serving.gateway.fake_engine import FakeEngine

pytestmark = pytest.mark.engine

LIST_ROUTES = """
import json
from types import SimpleNamespace
from typing import get_args
from vllm import tasks
from vllm.entrypoints.launchers.app import build_app
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser = make_arg_parser(FlexibleArgumentParser())
arguments = parser.parse_args(["--model", "any"])
everything = (*tasks.GENERATION_TASKS, *tasks.POOLING_TASKS, "render")
routes = set()
for pooling in tasks.POOLING_TASKS:
    config = SimpleNamespace(
        get_pooling_task=lambda _, pooling=pooling: pooling,
        hf_config=SimpleNamespace(num_labels=1),
        io_processor_plugin=None,
    )
    for route in build_app(arguments, everything, config).routes:
        for method in getattr(route, "methods", None) or ["GET"]:
            routes.add((method, route.path))
print(json.dumps(sorted(routes)))
"""

OUR_OWN = {
    ("GET", "/v1/models"), ("GET", "/health"), ("GET", "/metrics"), ("HEAD", "/health"),
    ("GET", "/v1/responses/{response_id}"), ("POST", "/v1/responses/{response_id}/cancel"),
}  # fmt: skip
"""Routes that the gateway answers by itself under the same name."""


@pytest.fixture(scope="module")
def engine_routes() -> set[tuple[str, str]]:
    """All routes that vLLM's app has for any model, with its dev mode on."""
    env = os.environ | ENVIRONMENT | {
        "VLLM_SERVER_DEV_MODE": "1", "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", LIST_ROUTES], env=env, capture_output=True, text=True, timeout=200,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return {(method, path) for method, path in json.loads(done.stdout.splitlines()[-1])}


@pytest.mark.timeout(300)
async def test_only_routes_of_the_table_reach_an_engine(
    engine_routes: set[tuple[str, str]],
    make_gateway: Callable[[GatewaySettings], Gateway],
    settings: GatewaySettings,
    controller: FakeController,
    engine: FakeEngine,
) -> None:
    controller.set_routes(model("demo", engine.route))
    gateway = make_gateway(settings)
    await gateway.start()
    table = {("POST", operation.path) for operation in OPERATIONS}
    assert table <= engine_routes
    assert ("POST", "/collective_rpc") in engine_routes  # dev routes are among them
    answers: dict[str, int] = {}
    for method, path in sorted(engine_routes - table - OUR_OWN):
        answer = await gateway.http.request(method, path, json={"model": "demo"})
        answers[f"{method} {path}"] = answer.status_code
    assert {name: status for name, status in answers.items() if status not in (404, 405)} == {}
    assert not engine.seen
    for _, path in sorted(table):
        answer = await gateway.http.post(path, json={"model": "demo"})
        assert answer.status_code == 400, path  # found, and the body is at fault
