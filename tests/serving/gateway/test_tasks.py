"""A model that is asked for what it is not made for: a 400, and nobody is woken."""

from typing import Any

import pytest

from models.tasks import Task
from serving.gateway.surface import OPERATIONS
from serving.gateway.tasks import ACCEPTS, WrongTaskError, check_task
from tests.serving.gateway.conftest import Gateway, chat
from tests.serving.gateway.fake_controller import FakeController, model
from tests.serving.gateway.fake_engine import FakeEngine

EMBEDDING: dict[str, Any] = {"input": "a"}
RERANK: dict[str, Any] = {"query": "a", "documents": ["b"]}


@pytest.mark.parametrize(
    ("task", "path", "body"),
    [
        (Task.EMBED, "/v1/chat/completions", chat()),
        (Task.CLASSIFY, "/v1/embeddings", EMBEDDING),
        (Task.GENERATE, "/v1/embeddings", EMBEDDING),
        (Task.GENERATE, "/v1/rerank", RERANK),
    ],
)
async def test_wrong_task_is_refused_in_openais_shape_and_wakes_nobody(
    gateway: Gateway, controller: FakeController, task: Task, path: str, body: dict[str, Any]
) -> None:
    controller.set_routes(model("sleeper").model_copy(update={"task": task}))
    await gateway.answers("/v1/models/sleeper")
    refused = await gateway.http.post(path, json=body | {"model": "sleeper"})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (
        400, "unsupported_task", "model",
    )  # fmt: skip
    assert error["type"] == "invalid_request_error"
    assert not any(ask.arrivals for report in controller.reports for ask in report.models)


async def test_anthropics_routes_refuse_in_anthropics_shape(
    gateway: Gateway, controller: FakeController
) -> None:
    controller.set_routes(model("sleeper").model_copy(update={"task": Task.EMBED}))
    await gateway.answers("/v1/models/sleeper")
    body = chat(model="sleeper", max_tokens=5)
    refused = await gateway.http.post("/v1/messages", json=body)
    assert (refused.status_code, refused.json()["type"]) == (400, "error")


async def test_model_of_unknown_task_is_asked(
    gateway: Gateway, controller: FakeController, engine: FakeEngine
) -> None:
    controller.set_routes(model("demo", engine.route))
    await gateway.http.post("/v1/embeddings", json=EMBEDDING | {"model": "demo"})
    assert [seen.path for seen in engine.seen] == ["/v1/embeddings"]


def test_each_route_has_some_model_that_serves_it() -> None:
    assert set(ACCEPTS) == {operation.path for operation in OPERATIONS}
    for path, tasks in ACCEPTS.items():
        assert tasks, path
    with pytest.raises(WrongTaskError, match="/v1/embeddings"):
        check_task(model("m").model_copy(update={"task": Task.EMBED}), "/v1/completions")
