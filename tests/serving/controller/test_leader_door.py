"""The door of a controller beside others."""

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from serving.controller.leader_door import LeaderDoor
from serving.leaders import LEADER_HEADER

TOKEN = {"authorization": "Bearer internal-token"}


class Standing:
    """Who leads, as the test says; `answers` are given one after the other, then the last."""

    leader_url: str | None = "http://10.0.0.7:8100"

    def __init__(self, *answers: bool) -> None:
        self._answers = list(answers)

    def leads(self) -> bool:
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def behind(standing: Standing) -> httpx.AsyncClient:
    async def answer(_request: Request) -> Response:
        return PlainTextResponse("let in")

    methods = ["GET", "POST", "DELETE"]
    app = Starlette(routes=[Route("/{path:path}", answer, methods=methods)])
    door = LeaderDoor(app, standing, "internal-token")
    return httpx.AsyncClient(transport=httpx.ASGITransport(door), base_url="http://controller")


async def test_leader_lets_everything_in() -> None:
    async with behind(Standing(True)) as client:
        assert (await client.post("/internal/v1/demand")).text == "let in"


@pytest.mark.parametrize(
    "path",
    ["/health", "/healthz", "/metrics", "/admin/v1/usage", "/admin/v1/keys", "/admin/v1/keys/k-1",
     "/admin/v1/events", "/v1/organization/costs"],
)  # fmt: skip
async def test_standby_answers_health_and_what_the_database_alone_knows(path: str) -> None:
    async with behind(Standing(False)) as client:
        assert (await client.get(path)).text == "let in"


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/admin/v1/models"), ("GET", "/admin/v1/status"), ("POST", "/admin/v1/keys"),
     ("DELETE", "/admin/v1/keys/k-1"), ("GET", "/internal/v1/routes"),
     ("GET", "/admin/v1/keys/../models"), ("POST", "/internal/v1/hosts/h/report")],
)  # fmt: skip
async def test_standby_refuses_all_else_and_names_the_leader(method: str, path: str) -> None:
    async with behind(Standing(False)) as client:
        answer = await client.request(method, path, headers=TOKEN)
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "not_leader"
    assert answer.headers[LEADER_HEADER] == "http://10.0.0.7:8100"
    assert answer.headers["connection"] == "close"


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer guessed"}])
async def test_standby_names_no_address_to_who_shows_no_token(headers: dict[str, str]) -> None:
    async with behind(Standing(False)) as client:
        answer = await client.get("/internal/v1/routes", headers=headers)
    assert answer.status_code == 503
    assert LEADER_HEADER not in answer.headers


async def test_answer_of_a_leader_whose_lease_ran_out_meanwhile_does_not_leave() -> None:
    async with behind(Standing(True, False)) as client:
        answer = await client.get("/internal/v1/hosts/h/assignment", headers=TOKEN)
    assert answer.status_code == 503
    assert "let in" not in answer.text
