"""The OpenAPI document is true: schemathesis asks what it allows, and what it does not."""

import asyncio
from collections.abc import Callable

import schemathesis
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from serving.gateway.openapi import REQUIRED, document
from serving.gateway.surface import OPERATIONS
from serving.settings import GatewaySettings
from tests.serving.gateway.conftest import Gateway
from tests.serving.gateway.fake_controller import TENANT_KEY, FakeController, model
from tests.serving.gateway.fake_engine import FakeEngine

EXAMPLES = 3
"""Of each kind and route: some 80 in all."""

CHECKS = [status_code_conformance, content_type_conformance, response_schema_conformance]


def test_document_speaks_of_every_route_and_of_no_other() -> None:
    paths = document()["paths"]
    assert isinstance(paths, dict)
    assert set(paths) == {operation.path for operation in OPERATIONS} == set(REQUIRED)


def probe(url: str, path: str, mode: GenerationMode) -> None:
    """Asks one route with examples of one kind; every answer must be as the document says."""
    schema = schemathesis.openapi.from_dict(document())
    operation = schema[path]["POST"]

    @given(case=operation.as_strategy(generation_mode=mode))
    @hypothesis_settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def ask(case: schemathesis.Case) -> None:
        case.headers = {"Authorization": f"Bearer {TENANT_KEY}"}
        response = case.call(base_url=url)
        assert response.status_code < 500
        case.validate_response(response, checks=CHECKS)

    ask()


async def test_gateway_answers_as_its_document_says(
    make_gateway: Callable[..., Gateway],
    controller: FakeController,
    engine: FakeEngine,
    settings: GatewaySettings,
) -> None:
    controller.set_routes(model("demo", engine.route))
    gateway = make_gateway(settings)
    await gateway.start()
    for operation in OPERATIONS:
        if "audio" not in operation.path:
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                await asyncio.to_thread(probe, gateway.url, operation.path, mode)
