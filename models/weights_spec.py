"""The part of a manifest that says how its weights may be read."""

from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, model_validator

from models.remotes.listing import Selection
from models.remotes.objects import Door
from models.secrets import SecretRef, Secrets
from models.sources import Access, key_of

Endpoint = Annotated[str, Field(pattern=r"^https?://[^\s/@]+(/[^\s@]*)?$", max_length=512)]


class WeightsSpec(BaseModel):
    """How the source's files may be read; secrets by their name, never by their value."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    endpoint: Endpoint | None = None
    """Base URL of the hub or object store, where it is not the usual one: `https://minio:9000`."""
    region: str | None = Field(default=None, pattern=r"^[a-z0-9-]{1,32}$")
    """Region of an S3 bucket; by default what the environment of the host says."""
    token: SecretRef | None = None
    """Token of the hub, of GCS or of the web server: `${secret:NAME}`; for the hub, HF_TOKEN's by
    default."""
    access_key_id: SecretRef | None = None
    """For S3, as `${secret:NAME}`; by default what the environment of the host says."""
    secret_access_key: SecretRef | None = None
    """For S3, as `${secret:NAME}`."""
    anonymous: bool = False
    """Read an object store without signing: the bucket is open to all."""
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    """What an archive (`https://`) must come to; without it, its headers must stay the same."""
    copy_to_node: bool = False
    """Copy a `file://` folder into each node's cache, as from a slow network file system."""
    allow_pickle: bool = False
    """Take pickled weights (`.bin`, `.pt`) where the source has no others: loading them may run
    code, so that the platform's settings have to allow it too (allow_pickle)."""

    @model_validator(mode="after")
    def _has_both_halves_of_a_key(self) -> Self:
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id and secret_access_key go together")
        return self

    def access(self, secrets: Secrets, *, code: bool = False) -> Access:
        """How to read the source, with the secrets looked up.

        Args:
            secrets: Of this process.
            code: Whether the model's own Python files are wanted.

        Raises:
            SecretError: If one is not there.
        """
        return Access(
            door=Door(
                endpoint=self.endpoint,
                region=self.region,
                access_key_id=secrets.read(self.access_key_id),
                secret_access_key=secrets.read(self.secret_access_key),
                token=secrets.read(self.token),
                anonymous=self.anonymous,
            ),
            sha256=self.sha256,
            selection=Selection(pickle=self.allow_pickle, code=code),
            copy=self.copy_to_node,
        )

    def key(self, pinned: str, *, code: bool = False) -> str:
        """The name of a pinned source in a node's cache; no secret is needed for it."""
        selection = Selection(pickle=self.allow_pickle, code=code)
        return key_of(pinned, Access(door=Door(endpoint=self.endpoint), selection=selection))


def check_source(source: str, spec: WeightsSpec) -> None:
    """Refuses a source that cannot be read safely as the spec says.

    Raises:
        ValueError: Saying what to write instead.
    """
    scheme, _, rest = source.partition("://")
    if scheme in ("http", "https"):
        url = urlsplit(source)
        if url.username or url.password:
            raise ValueError("a source must hold no password; name a secret in weights.token")
        pinned = spec.sha256 is not None or url.fragment.startswith("sha256=")
        if scheme == "http" and not pinned:
            raise ValueError("http:// can be changed on its way; use https://, or weights.sha256")
    elif spec.sha256 is not None:
        raise ValueError("weights.sha256 goes with an https:// archive")
    if spec.copy_to_node and scheme != "file":
        raise ValueError("weights.copy_to_node goes with a file:// source; others are always")
    if scheme in ("s3", "gs") and not rest.partition("#")[0].partition("/")[2].strip("/"):
        raise ValueError(f"{scheme}:// needs a bucket and a prefix, as {scheme}://bucket/model")
