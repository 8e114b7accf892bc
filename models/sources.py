"""Where weights come from: turns a manifest's source into a local folder that vLLM can load."""

import json
from pathlib import Path

from models.errors import SourceError

BUILTIN_DIR = Path(__file__).parent / "demo"
BUILTINS = {"guide": BUILTIN_DIR / "guide"}

WANTED_FILES = ["*.json", "*.jinja", "*.safetensors", "*.model", "*.txt"]
"""What is fetched of a repository: no pickled weights, no code."""


def resolve(source: str, cache_dir: Path) -> Path:
    """Makes a source available on this machine and checks that it holds a model.

    Blocking; a repository of the hub is fetched into `cache_dir` unless it is there already.

    Raises:
        SourceError: If the source cannot be reached, or its folder is not a servable model.
    """
    scheme, _, rest = source.partition("://")
    match scheme:
        case "builtin":
            folder = _builtin(rest)
        case "file":
            folder = Path(rest)
        case "hf":
            folder = _fetch_hub(rest, cache_dir, WANTED_FILES)
        case _:
            raise SourceError(f"unknown kind of source: {scheme}://", param="source")
    check_folder(folder)
    return folder


def fetch_config(source: str, cache_dir: Path) -> Path:
    """Makes a source's config.json available, without its weights; returns its folder.

    Raises:
        SourceError: If the source cannot be reached.
    """
    scheme, _, rest = source.partition("://")
    match scheme:
        case "builtin":
            return _builtin(rest)
        case "file":
            return Path(rest)
        case "hf":
            return _fetch_hub(rest, cache_dir, ["config.json"])
        case _:
            raise SourceError(f"unknown kind of source: {scheme}://", param="source")


def check_local(source: str) -> None:
    """Checks a source as far as that is possible without fetching anything.

    Raises:
        SourceError: If a built-in model is unknown.
    """
    scheme, _, rest = source.partition("://")
    if scheme == "builtin":
        _builtin(rest)


def check_folder(folder: Path) -> None:
    """Checks that a folder holds a configuration and safetensors weights that can be opened.

    Raises:
        SourceError: Naming what is missing or broken.
    """
    if not folder.is_dir():
        raise SourceError(
            f"{folder} is not a folder", param="source", hint="give an absolute path to the model"
        )
    config = folder / "config.json"
    try:
        architectures = json.loads(config.read_text("utf-8")).get("architectures")
    except FileNotFoundError as exc:
        raise SourceError(f"{folder} has no config.json", param="source") from exc
    except (OSError, ValueError, AttributeError) as exc:
        raise SourceError(f"{config} is not readable JSON", param="source") from exc
    if not architectures:
        raise SourceError(f"{config} names no architecture", param="source")
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        raise SourceError(
            f"{folder} has no *.safetensors weights",
            param="source",
            hint="pickled weights are not loaded; convert them to safetensors",
        )
    for file in weights:
        _check_safetensors(file)


def _check_safetensors(file: Path) -> None:
    """Compares the file's length with what its header promises (safetensors format, version 0)."""
    size = file.stat().st_size
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 0 < length <= min(size - 8, 100_000_000):
                raise SourceError(f"{file} has a broken header", param="source")
            header = json.loads(stream.read(length))
        end = max(
            (entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"),
            default=0,
        )
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise SourceError(f"{file} has a broken header", param="source") from exc
    if 8 + length + end != size:
        raise SourceError(
            f"{file} is cut: {size} bytes where its header promises {8 + length + end}",
            param="source",
            hint="fetch the file again",
        )


def _builtin(name: str) -> Path:
    try:
        return BUILTINS[name]
    except KeyError:
        known = ", ".join(f"builtin://{known}" for known in BUILTINS)
        raise SourceError(
            f"there is no built-in model {name!r}", param="source", hint=f"built in: {known}"
        ) from None


def _fetch_hub(reference: str, cache_dir: Path, wanted: list[str]) -> Path:
    # Imported late: it takes half a second, and most processes only check a source's name.
    from huggingface_hub import errors as hub
    from huggingface_hub import snapshot_download

    repo, _, revision = reference.partition("@")
    try:
        return Path(
            snapshot_download(
                repo,
                revision=revision or None,
                cache_dir=cache_dir / "hub",
                allow_patterns=wanted,
            )
        )
    except hub.GatedRepoError as exc:
        raise SourceError(
            f"hf://{repo} is gated", param="source", hint="accept its licence and set HF_TOKEN"
        ) from exc
    except hub.RevisionNotFoundError as exc:
        raise SourceError(f"hf://{repo} has no revision {revision!r}", param="source") from exc
    except hub.RepositoryNotFoundError as exc:
        raise SourceError(
            f"hf://{repo} does not exist, or needs a token", param="source", hint="set HF_TOKEN"
        ) from exc
    except (hub.HfHubHTTPError, OSError, ValueError) as exc:
        raise SourceError(
            f"hf://{repo} could not be fetched: {type(exc).__name__}",
            param="source",
            hint="check the network and HF_ENDPOINT",
        ) from exc
