"""Images, sounds and videos: data passes, URLs only of allowed hosts."""

import pytest

from models.errors import BadRequestError
from serving.gateway.media import check_addresses, check_parts, check_urls

ALLOWED = frozenset({"pics.example.com", "127.0.0.1", "localhost", "169.254.169.254"})
DATA = "data:image/png;base64,AAAA"


@pytest.mark.parametrize(
    "part",
    [
        {"type": "text", "text": "http://elsewhere is only a text"},
        {"type": "image_url", "image_url": {"url": DATA}},
        {"type": "input_image", "image_url": DATA, "detail": "low"},
        {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}},
        {"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "x"}]},
    ],
)
def test_text_and_data_name_no_url(part: dict[str, object]) -> None:
    assert check_parts([part], "content") == []


@pytest.mark.parametrize(
    "part",
    [
        {"type": "image_url", "image_url": {"url": "http://x/a.png"}},
        {"type": "image_url", "image_url": "http://x/a.png"},
        {"type": "video_url", "video_url": {"url": "http://x/a.png"}},
        {"type": "audio_url", "audio_url": {"url": "http://x/a.png"}},
        {"type": "image", "source": {"type": "url", "url": "http://x/a.png"}},
        {
            "type": "tool_result",
            "content": [{"type": "image", "source": {"type": "url", "url": "http://x/a.png"}}],
        },
    ],
)
def test_urls_are_found_wherever_a_part_hides_them(part: dict[str, object]) -> None:
    assert check_parts([part], "content") == ["http://x/a.png"]


@pytest.mark.parametrize(
    "part",
    [
        {"image_url": {"url": DATA}},
        {"type": "image_embeds", "image_embeds": "gASV"},
        {"type": "prompt_embeds", "data": "gASV"},
        {"type": "image_pil", "image_pil": "x"},
        {"type": "file", "file": {"file_id": "f"}},
        {"type": "input_image", "file_id": "file-1"},
        {"type": ["text"]},
        {"type": "tool_result", "content": [{"type": "image_embeds"}]},
        7,
    ],
)
def test_parts_that_engines_would_open_or_unpickle_are_refused(part: object) -> None:
    with pytest.raises(BadRequestError):
        check_parts([part], "content")


def test_part_that_is_nested_too_deeply_is_refused() -> None:
    part: dict[str, object] = {"type": "tool_result"}
    for _ in range(100):
        part = {"type": "tool_result", "content": [part]}
    with pytest.raises(BadRequestError):
        check_parts([part], "content")


def test_url_of_an_allowed_host_passes() -> None:
    check_urls(
        ["https://pics.example.com/a.png?x=1", "http://PICS.example.com:8080/"], ALLOWED, "m"
    )


@pytest.mark.parametrize(
    "url",
    [
        "https://other.example.com/", "https://example.com/", "https://xpics.example.com/",
        "https://pics.example.com@evil.com/", "https://evil.com#@pics.example.com/",
        "https://evil.com\\@pics.example.com/", "file:///etc/passwd", "ftp://pics.example.com/",
        "http://127.0.0.1/", "http://169.254.169.254/latest", "http://[::1]/", "http://2130706433/",
        "http://127.1/", "http://0x7f000001/", "gopher://pics.example.com/", "//pics.example.com/",
        "http://pics.example.com:99999/", "https://pics.example.com\n.evil.com/", "", "http:///x",
        "https://pics.examp\u217ee.com/", "DATA:text/plain,x",
    ],
)  # fmt: skip
def test_any_other_url_is_refused(url: str) -> None:
    with pytest.raises(BadRequestError):
        check_urls([url], ALLOWED, "messages")


@pytest.mark.parametrize("url", ["http://localhost/", "http://nowhere.invalid/"])
async def test_host_with_a_private_address_or_none_is_refused(url: str) -> None:
    with pytest.raises(BadRequestError):
        await check_addresses([url], "messages")
