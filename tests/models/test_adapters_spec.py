"""Adapters in the manifest, and the names under which they are served."""

from typing import Any

import pytest

from models.adapters_spec import split_name
from models.errors import ManifestError
from models.manifest import Manifest, parse_manifest

PIRATE = {"name": "pirate", "source": "file:///adapters/pirate"}


def model(**fields: Any) -> Manifest:
    return parse_manifest({"name": "guide", "source": "builtin://guide"} | fields)


def test_adapters_make_room_for_themselves() -> None:
    assert model().engine.lora is None
    lora = model(adapters=[PIRATE]).engine.lora
    assert lora is not None and lora.max_rank == 16
    given = model(adapters=[PIRATE], engine={"lora": {"max_rank": 64}}).engine.lora
    assert given is not None and given.max_rank == 64
    stored = model(adapters=[PIRATE]).model_dump(mode="json", exclude_unset=True)
    assert parse_manifest(stored) == model(adapters=[PIRATE])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"adapters": [PIRATE, PIRATE]}, "two are named"),
        ({"adapters": [PIRATE | {"name": "Pirate"}]}, "lower case"),
        ({"adapters": [PIRATE | {"name": "a:b"}]}, "letters of ASCII"),
        ({"adapters": [PIRATE | {"name": "p" * 60}]}, "longer than 63"),
        ({"adapters": [PIRATE | {"source": "builtin://guide"}]}, "source of files"),
        ({"adapters": [PIRATE], "engine": {"args": {"enable_lora": True}}}, "set by Penstock"),
        ({"engine": {"lora": {"at_once": 8, "in_memory": 4}}}, "in_memory"),
        ({"engine": {"lora": {"max_rank": 12}}}, "max_rank"),
    ],
)
def test_adapters_that_cannot_be_served_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ManifestError, match=said):
        model(**fields)


def test_model_that_is_served_elsewhere_has_no_adapters() -> None:
    endpoints = [{"url": "https://api.example.com", "model": "m"}]
    with pytest.raises(ManifestError, match="served elsewhere"):
        parse_manifest({"name": "m", "endpoints": endpoints, "adapters": [PIRATE]})


def test_served_name_has_a_model_and_an_adapter() -> None:
    assert split_name("guide:pirate") == ("guide", "pirate")
    assert split_name("guide") == ("guide", "")
