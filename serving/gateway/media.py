"""Which images, sounds and videos a prompt may name: data within the body's cap, and URLs of
domains that the operator allows, never of private addresses.
"""

import asyncio
import ipaddress
import socket
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from models.errors import BadRequestError

TEXT_PARTS = frozenset({
    "text", "input_text", "output_text", "refusal", "thinking", "redacted_thinking",
    "reasoning_text", "summary_text", "tool_use", "tool_reference", "tool_addition",
    "tool_removal",
})  # fmt: skip
"""Parts of a message that bear no media."""

MEDIA_PARTS = frozenset({
    "image_url", "input_image", "image", "input_audio", "audio_url", "video_url", "tool_result",
})  # fmt: skip
"""Parts that do. What vLLM would unpickle or open by itself (`image_embeds`, `prompt_embeds`,
`image_pil`, files) is neither."""

URL_KEYS = frozenset({"url", "image_url", "audio_url", "video_url", "file_url"})

MAX_DEPTH = 16
"""Parts nest twice or thrice: a tool's result holds parts of its own."""

DATA = "data:"


def check_parts(content: object, param: str) -> list[str]:
    """Checks the parts of one message; a text has none.

    Returns:
        The URLs that are no data, still to be checked by `check_urls`.

    Raises:
        BadRequestError: Naming the part at fault.
    """
    urls: list[str] = []
    if isinstance(content, list):
        for place, part in enumerate(content):
            if isinstance(part, dict):
                urls.extend(_check_part(part, f"{param}.{place}", 0))
            elif not isinstance(part, str):
                raise BadRequestError("each part must be an object", param=f"{param}.{place}")
    return urls


def check_urls(urls: Sequence[str], domains: frozenset[str], param: str) -> None:
    """Checks that each URL is HTTP(S), of an allowed domain, and free of tricks.

    Raises:
        BadRequestError: Saying why not.
    """
    for url in urls:
        host = _host_of(url)
        if host is None or host.lower() not in domains or _is_private(host):
            raise BadRequestError(
                "media must be given as data URLs, or by URLs of a domain that is allowed here",
                param=param,
            )


async def check_addresses(urls: Sequence[str], param: str) -> None:
    """Checks that no URL's host has a private address.

    An engine asks the name service again, and follows no redirects: an allowed domain whose owner
    changes its address in between is the operator's choice of domains.

    Raises:
        BadRequestError: If one has, or has none.
    """
    loop = asyncio.get_running_loop()
    for host in {_host_of(url) for url in urls} - {None}:
        try:
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as exc:
            raise BadRequestError("the media's host is not known", param=param) from exc
        if any(_is_private(str(address[0])) for *_, address in found):
            raise BadRequestError("the media's host has a private address", param=param)


def _check_part(part: dict[str, object], param: str, depth: int) -> Iterator[str]:
    kind = part.get("type")
    if not isinstance(kind, str) or kind not in TEXT_PARTS | MEDIA_PARTS or depth > MAX_DEPTH:
        shown = kind if isinstance(kind, str) and len(kind) <= 64 else "this type"
        raise BadRequestError(f"parts of {shown} are not supported", param=f"{param}.type")
    if kind in MEDIA_PARTS:
        yield from _urls_in(part, param, depth)


def _urls_in(value: object, param: str, depth: int) -> Iterator[str]:
    if depth > MAX_DEPTH:
        raise BadRequestError("a part is nested too deeply", param=param)
    if isinstance(value, dict):
        for name, inner in value.items():
            if name == "content" and isinstance(inner, list):
                for place, part in enumerate(inner):
                    if isinstance(part, dict):
                        yield from _check_part(part, f"{param}.content.{place}", depth + 1)
            elif name == "file_id":
                raise BadRequestError("there are no files here", param=f"{param}.file_id")
            elif name in URL_KEYS and isinstance(inner, str):
                if not inner.startswith(DATA):
                    yield inner
            else:
                yield from _urls_in(inner, param, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _urls_in(inner, param, depth + 1)


def _host_of(url: str) -> str | None:
    """The host of a plain HTTP(S) URL: no user, no control characters, no backslash."""
    if not url.isascii() or not url.isprintable() or "\\" in url or " " in url:
        return None
    try:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or "@" in parts.netloc:
            return None
        _ = parts.port
        return parts.hostname
    except ValueError:
        return None


def _is_private(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host.partition("%")[0].strip("[]"))
    except ValueError:
        return host.rstrip(".").rpartition(".")[2].isdigit()  # `127.1`, `2130706433`
    mapped = getattr(address, "ipv4_mapped", None)
    return not (mapped or address).is_global
