"""The passage to the controller's admin API."""

from collections.abc import Callable

import httpx
import pytest

from serving.gateway.admin import NOT_FORWARDED, end_to_end
from serving.settings import GatewaySettings
from tests.serving.gateway.conftest import Gateway
from tests.serving.gateway.fake_controller import FakeController


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_request_is_passed_on_as_it_came(
    gateway: Gateway, controller: FakeController, method: str
) -> None:
    answer = await gateway.http.request(
        method, "/admin/v1/models/a%20b?tail=5&x=%2F", content=b"{}",
        headers={"Authorization": "Bearer pa-mine", "Content-Type": "application/json"},
    )  # fmt: skip
    assert (answer.status_code, answer.content) == (201, b"one two")
    assert answer.headers["x-kept"] == "yes"
    seen = controller.admin_requests[0]
    assert (seen["method"], seen["path"], seen["body"]) == (
        method, "/admin/v1/models/a%20b?tail=5&x=%2F", b"{}",
    )  # fmt: skip
    sent = {name.lower(): value for name, value in seen["headers"].items()}
    assert sent["authorization"] == "Bearer pa-mine"
    assert sent["content-type"] == "application/json"
    assert sent["x-request-id"] == answer.headers["x-request-id"]
    assert answer.headers.get_list("x-request-id") == [sent["x-request-id"]]


async def test_caller_without_a_key_is_the_controllers_to_judge(
    gateway: Gateway, controller: FakeController
) -> None:
    async with httpx.AsyncClient(base_url=gateway.url) as stranger:
        assert (await stranger.get("/admin/v1/status")).status_code == 201
    assert "Authorization" not in controller.admin_requests[0]["headers"]


async def test_body_past_the_cap_is_a_413(gateway: Gateway, controller: FakeController) -> None:
    answer = await gateway.http.post("/admin/v1/models", content=b"x" * 2_000_000)
    assert answer.status_code == 413
    assert not controller.admin_requests


@pytest.mark.parametrize(
    "path", ["/admin/v1/%2e%2e/%2e%2e/internal/v1/routes", "/admin/v1/./status", "/admin/v2/x",
             "/admin/v1/%2e%2e%2finternal"]
)  # fmt: skip
async def test_path_that_climbs_out_is_a_404(
    gateway: Gateway, controller: FakeController, path: str
) -> None:
    head = f"GET {path} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n"
    answer = await gateway.raw(head.encode())
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert not controller.admin_requests


async def test_absent_controller_is_a_503(gateway: Gateway, controller: FakeController) -> None:
    await controller.stop()
    answer = await gateway.http.get("/admin/v1/status")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "unreachable"


async def test_admin_api_can_be_switched_off(
    make_gateway: Callable[[GatewaySettings], Gateway], settings: GatewaySettings
) -> None:
    gateway = make_gateway(settings.model_copy(update={"admin_api": False}))
    await gateway.start()
    assert (await gateway.http.get("/admin/v1/status")).status_code == 404


def test_headers_of_one_connection_do_not_travel() -> None:
    headers = [
        (b"Connection", b"keep-alive, X-Mine"), (b"X-Mine", b"1"), (b"Upgrade", b"h2c"),
        (b"Host", b"a"), (b"Accept", b"*/*"),
    ]  # fmt: skip
    assert end_to_end(headers, NOT_FORWARDED) == [(b"accept", b"*/*")]
