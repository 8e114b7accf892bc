"""Object stores: S3 of any vendor and GCS, through obstore."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from models.remotes.listing import (
    CHUNK_BYTES,
    ChangedError,
    Checksum,
    FetchError,
    Hash,
    Listing,
    PlaceAwayError,
    RemoteFile,
    Selection,
    check_path,
)

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import (
        ClientConfig,
        GCSConfig,
        GCSStore,
        RetryConfig,
        S3Config,
        S3Store,
    )

TIMEOUT_S = 30
RETRIES = 2
"""Of one request, by obstore itself; the cache tries again from where a file broke off."""
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')


@dataclass(frozen=True, slots=True)
class Door:
    """How to get in; what is None comes from the environment, as the vendor's own tools take it."""

    endpoint: str | None = None
    """Base URL of a vendor other than AWS or Google."""
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None
    token: str | None = None
    """Session token for S3, bearer token for GCS."""
    anonymous: bool = False
    """Send no signature: the bucket is open to all."""


class Bucket:
    """The objects below one prefix.

    Args:
        scheme: `s3` or `gs`.
        location: `bucket/prefix`.
    """

    def __init__(self, scheme: str, location: str, door: Door, selection: Selection) -> None:
        bucket, _, prefix = location.partition("/")
        self._scheme = scheme
        self._bucket = bucket
        self._prefix = prefix.strip("/")
        self._door = door
        self._selection = selection

    @property
    def place(self) -> str:
        """As a source names it."""
        return f"{self._scheme}://{self._bucket}/{self._prefix}"

    def listing(self) -> Listing:
        """The objects, with MD5 checksums where the store's ETag is one.

        It is one for an object that was put in one part, and not encrypted with a key of KMS; else
        the size alone is checked, and that the object stays the same while it is fetched.
        """
        import obstore

        cut = len(self._prefix) + 1 if self._prefix else 0
        files = []
        with self._translated():
            for batch in obstore.list(self._store(), self._prefix or None):
                for item in batch:
                    path, tag = item["path"][cut:], item["e_tag"] or ""
                    check_path(path)
                    md5 = _MD5.fullmatch(tag) if self._scheme == "s3" else None
                    checksum = Checksum(Hash.MD5, md5[1]) if md5 else None
                    version = tag or item["last_modified"].isoformat()
                    files.append(RemoteFile(path, item["size"], checksum, version))
        if not files:
            raise FetchError(
                f"{self.place} holds nothing", param="source", hint="check bucket and prefix"
            )
        return Listing(self._selection.of(files))

    def read(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        """An object's bytes, as long as it is the listed one."""
        import obstore

        options: GetOptions = {}
        if file.version.startswith('"'):
            options["if_match"] = file.version
        if offset:
            options["range"] = {"offset": offset}
        path = f"{self._prefix}/{file.path}" if self._prefix else file.path
        with self._translated():
            found = obstore.get(self._store(), path, options=options)
            for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)

    def _store(self) -> "S3Store | GCSStore":
        from obstore.store import GCSStore, S3Store

        door = self._door
        client: ClientConfig = {
            "connect_timeout": timedelta(seconds=TIMEOUT_S),
            "read_timeout": timedelta(seconds=TIMEOUT_S),
            # Of one whole answer: weights take their time, as long as bytes come.
            "timeout": timedelta(days=1),
            "allow_http": (door.endpoint or "").startswith("http://"),
        }
        retry: RetryConfig = {"max_retries": RETRIES}
        if self._scheme == "gs":
            google: GCSConfig = {}
            if door.endpoint is not None:
                google["base_url"] = door.endpoint
            if door.token is not None:
                google["bearer_token"] = door.token
            if door.anonymous:
                google["skip_signature"] = True
            return GCSStore(self._bucket, config=google, client_options=client, retry_config=retry)
        amazon: S3Config = {}
        if door.endpoint is not None:
            amazon["endpoint"] = door.endpoint
        if door.region is not None:
            amazon["region"] = door.region
        if door.access_key_id is not None and door.secret_access_key is not None:
            amazon["access_key_id"] = door.access_key_id
            amazon["secret_access_key"] = door.secret_access_key
        if door.token is not None:
            amazon["session_token"] = door.token
        if door.anonymous:
            amazon["skip_signature"] = True
        return S3Store(self._bucket, config=amazon, client_options=client, retry_config=retry)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from obstore import exceptions

        try:
            yield
        except (exceptions.PreconditionError, exceptions.NotFoundError) as exc:
            raise ChangedError(
                f"{self.place} changed while it was fetched",
                param="source",
                hint="deploy it again when nobody writes there",
            ) from exc
        except (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError) as exc:
            raise self._refused() from exc
        except exceptions.UnknownConfigurationKeyError as exc:
            raise FetchError(f"{self.place} cannot be opened: {exc}", param="source") from exc
        except exceptions.BaseError as exc:
            # obstore has one class for all else; the status stands in the text alone.
            text = str(exc)
            if "NoSuchBucket" in text or "404 Not Found" in text:
                raise FetchError(
                    f"{self.place}: there is no bucket {self._bucket!r}",
                    param="source",
                    hint="check the name and weights.endpoint",
                ) from exc
            if "403 Forbidden" in text or "401 Unauthorized" in text:
                raise self._refused() from exc
            raise PlaceAwayError(
                f"{self.place} could not be fetched: {text.splitlines()[0][:200]}",
                param="source",
                hint="check the network and weights.endpoint",
            ) from exc

    def _refused(self) -> FetchError:
        door = self._door
        given = door.access_key_id or door.token or door.anonymous
        return FetchError(
            f"{self.place} may not be read "
            + ("with these keys" if given else "with the keys of the environment, or has none"),
            param="source",
            hint="check weights.access_key_id and weights.secret_access_key, and their secrets",
        )
