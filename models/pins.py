"""Whether a source names one content for ever, and what refuses any other content in its place.

    hf://org/name@COMMIT    s3://bucket/prefix#DIGEST    https://host/model.tar.gz#sha256=HEX

A server's archive that has no checksum is pinned by its headers: `#pin=DIGEST`.
"""

import re
from collections.abc import Callable

from models.remotes.listing import ChangedError, FetchError, Listing
from models.remotes.web import pin_of

REMOTE_SCHEMES = ("hf", "s3", "gs", "https", "http")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_pinned(source: str) -> bool:
    """Whether the source names one content for ever."""
    scheme, _, rest = source.partition("://")
    if scheme == "hf":
        return _COMMIT.fullmatch(rest.partition("@")[2]) is not None
    return scheme not in REMOTE_SCHEMES or "#" in rest


def refusing_others(pinned: str) -> Callable[[Listing], None]:
    """What refuses a listing that is not the pinned one.

    It raises a FetchError where nothing is there, a ChangedError where something else is.
    """
    scheme = pinned.partition("://")[0]
    pin = pinned.rpartition("#")[2]

    def accept(listing: Listing) -> None:
        if not listing.files:
            raise FetchError(f"{pinned} has no file of a model", param="source")
        if scheme == "hf" or pin.startswith("sha256="):
            return  # the commit, the checksum says it
        now = f"pin={pin_of(listing)}" if listing.packed else listing.digest
        if now != pin:
            raise ChangedError(
                f"{pinned.rpartition('#')[0]} is not what it was at the deploy",
                param="source",
                hint="deploy the model again for what is there now",
            )

    return accept
