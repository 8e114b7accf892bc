"""Models that are served elsewhere."""

from typing import Any

import pytest

from models.errors import ManifestError
from models.manifest import parse_manifest


def manifest(*endpoints: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": "gpt", "endpoints": list(endpoints), **more}


def test_endpoints_stand_for_a_source() -> None:
    parsed = parse_manifest(
        manifest({"url": "https://api.example.com/v1/", "token": "${secret:KEY}", "model": "gpt-9"})
    )
    assert parsed.source == "external://"
    assert parsed.endpoints[0].url == "https://api.example.com"
    assert not parsed.is_fetched
    assert parse_manifest(parsed.model_dump(mode="json")) == parsed


@pytest.mark.parametrize(
    "document",
    [
        manifest(),
        manifest(source="external://"),
        manifest({"url": "https://a"}, source="builtin://guide"),
        manifest({"url": "https://a", "model": "x"}, {"url": "https://b", "model": "y"}),
        manifest({"url": "a.example.com"}),
        manifest({"url": "ftp://a"}),
        manifest({"url": "https://user:word@a"}),
        manifest({"url": "https://a?key=x"}),
        manifest({"url": "https://a:99999"}),
        manifest({"url": "https://a/b c"}),
        manifest({"url": "https://a/b\r\nX: y"}),
        manifest({"url": "https://a/\u00e9"}),
        manifest({"url": "https://a", "token": "sk-plain"}),
        manifest({"url": "https://a", "key": "x"}),
    ],
)
def test_what_is_no_endpoint_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(ManifestError):
        parse_manifest(document)
