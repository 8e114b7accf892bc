"""The part of a manifest that names servers elsewhere, in place of weights to serve here."""

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from models.secrets import SecretRef

EXTERNAL = "external://"
"""The source of a model that is served elsewhere."""


def _check_url(url: str) -> str:
    """A plain base URL; `/v1` at its end is left out, for every route begins with it."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("an endpoint is the base URL of a server, as https://host:8000")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ValueError("an endpoint's URL is plain ASCII without spaces; encode what is not")
    _ = parts.port  # raises ValueError
    if parts.username or parts.password:
        raise ValueError("an endpoint's URL must hold no password; name a secret in token")
    if parts.query or parts.fragment:
        raise ValueError("an endpoint's URL has neither a query nor a fragment")
    return url.rstrip("/").removesuffix("/v1")


class EndpointSpec(BaseModel):
    """An OpenAI-compatible server that others run."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    url: Annotated[str, AfterValidator(_check_url), Field(max_length=1024)]
    """Base URL of the server, as `https://host:8000`."""
    token: SecretRef | None = None
    """Its bearer token, as `${secret:NAME}`: a file of the controller's secrets folder, or a
    variable of its environment."""
    model: str | None = Field(default=None, min_length=1, max_length=256)
    """The server's name for the model, where it is another; the same at all endpoints."""
