"""The Hugging Face hub's protocol: revisions, gates and checksums by its client, bytes by ranges.

The client's own cache is not used: blobs of all kinds of sources lie in ours, checked.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager

from models.remotes.listing import (
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

TIMEOUT_S = 30.0


class Hub:
    """One repository at one revision.

    Args:
        repo: As `org/name`.
        revision: A commit, branch or tag; the default branch where empty.
        token: Of a user that may read it; by default `HF_TOKEN`'s.
        endpoint: Base URL of the hub; by default `HF_ENDPOINT`'s.
    """

    def __init__(
        self,
        repo: str,
        revision: str,
        selection: Selection,
        *,
        token: str | None = None,
        endpoint: str | None = None,
    ) -> None:
        self._repo = repo
        self._revision = revision
        self._selection = selection
        self._token = token or os.environ.get("HF_TOKEN") or False
        self._endpoint = endpoint or os.environ.get("HF_ENDPOINT") or "https://huggingface.co"

    def commit(self) -> str:
        """The commit that the revision names now, once its files are known to be readable.

        Raises:
            FetchError: If there is no such repository or revision, or the token may not read it.
            PlaceAwayError: If the hub does not answer.
        """
        # Imported late, here and below: it takes half a second, and most processes need it never.
        from huggingface_hub import HfApi, hf_hub_url
        from huggingface_hub.file_download import get_hf_file_metadata

        with self._translated():
            api = HfApi(self._endpoint, self._token)
            info = api.model_info(self._repo, revision=self._revision or None, timeout=TIMEOUT_S)
            if info.sha is None:
                raise FetchError(f"hf://{self._repo} tells no commit", param="source")
            # A gated repository shows its description to everybody, and its files not.
            names = [sibling.rfilename for sibling in info.siblings or ()]
            if "config.json" in names:
                url = hf_hub_url(
                    self._repo, "config.json", revision=info.sha, endpoint=self._endpoint
                )
                get_hf_file_metadata(
                    url, token=self._token, timeout=TIMEOUT_S, endpoint=self._endpoint
                )
            return info.sha

    def listing(self) -> Listing:
        """The repository's files with the checksums that the hub keeps."""
        from huggingface_hub import HfApi

        with self._translated():
            info = HfApi(self._endpoint, self._token).model_info(
                self._repo,
                revision=self._revision or None,
                files_metadata=True,
                timeout=TIMEOUT_S,
            )
        files = []
        for sibling in info.siblings or ():
            check_path(sibling.rfilename)
            checksum = None
            if sibling.lfs is not None:
                checksum = Checksum(Hash.SHA256, sibling.lfs.sha256)
            elif sibling.blob_id:
                checksum = Checksum(Hash.GIT, sibling.blob_id)
            size = sibling.lfs.size if sibling.lfs is not None else sibling.size
            files.append(RemoteFile(sibling.rfilename, size or 0, checksum))
        return Listing(self._selection.of(files))

    def read(self, file: RemoteFile, offset: int) -> Iterator[bytes]:
        """A file's bytes; the hub redirects to where its large files lie."""
        from huggingface_hub import get_session, hf_hub_url
        from huggingface_hub.utils._headers import build_hf_headers
        from huggingface_hub.utils._http import hf_raise_for_status

        revision = self._revision or "main"
        url = hf_hub_url(self._repo, file.path, revision=revision, endpoint=self._endpoint)
        headers = build_hf_headers(token=self._token) | {"Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        with (
            self._translated(),
            get_session().stream(
                "GET", url, headers=headers, follow_redirects=True, timeout=TIMEOUT_S
            ) as answer,
        ):
            hf_raise_for_status(answer)
            skip = offset if answer.status_code == 200 else 0  # it knows no ranges
            for chunk in answer.iter_raw():
                yield chunk[skip:] if skip else chunk
                skip = max(0, skip - len(chunk))

    @contextmanager
    def _translated(self) -> Iterator[None]:
        import httpx2
        from huggingface_hub import errors as hub

        place = f"hf://{self._repo}"
        try:
            yield
        except hub.GatedRepoError as exc:
            raise FetchError(
                f"{place} is gated, and "
                + ("the token may not read it" if self._token else "there is no token"),
                param="source",
                hint="accept its licence on the hub, and give a token: weights.token in the "
                "manifest, or HF_TOKEN",
            ) from exc
        except hub.RevisionNotFoundError as exc:
            raise ChangedError(
                f"{place} has no revision {self._revision!r}",
                param="source",
                hint="its authors may have removed it; deploy a revision that is there",
            ) from exc
        except hub.RepositoryNotFoundError as exc:
            raise FetchError(
                f"{place} does not exist, or needs "
                + ("another token" if self._token else "a token"),
                param="source",
                hint="check the name, and the token: weights.token in the manifest, or HF_TOKEN",
            ) from exc
        except hub.EntryNotFoundError as exc:
            raise ChangedError(f"{place} lost a file at {self._revision!r}") from exc
        except (hub.HFValidationError, hub.OfflineModeIsEnabled) as exc:
            raise FetchError(
                f"{place} could not be fetched: {_brief(exc)}", param="source"
            ) from exc
        except hub.HfHubHTTPError as exc:
            if exc.response.status_code in (401, 403):
                raise FetchError(
                    f"{place} may not be read "
                    + ("with this token" if self._token else "without a token"),
                    param="source",
                    hint="give a token as a secret: weights.token in the manifest, or HF_TOKEN",
                ) from exc
            raise PlaceAwayError(
                f"{place} could not be fetched: {_brief(exc)}", param="source"
            ) from exc
        except (httpx2.HTTPError, OSError) as exc:
            raise PlaceAwayError(
                f"{place} could not be fetched: {_brief(exc)}",
                param="source",
                hint="check the network and HF_ENDPOINT",
            ) from exc


def _brief(exc: Exception) -> str:
    response = getattr(exc, "response", None)
    return f"status {response.status_code}" if response is not None else type(exc).__name__
