"""The last routing table and keys on disk, so that a gateway can start without the controller."""

import contextlib
import os
import tempfile
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from serving.logs import get_logger
from serving.protocol import Message

MessageT = TypeVar("MessageT", bound=Message)

log = get_logger(__name__)


class Keepsake:
    """One folder with one file for each kind of message; it holds engine tokens: mode 0600."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, name: str, kind: type[MessageT]) -> MessageT | None:
        """What was saved last under `name`; None if there is nothing, or nothing readable."""
        path = self._path(name)
        try:
            return kind.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValidationError) as exc:
            log.warning("keepsake_unreadable", path=str(path), reason=type(exc).__name__)
            return None

    def save(self, name: str, message: Message) -> None:
        """Replaces what is saved under `name`, whole or not at all; a full disk is only logged."""
        path = self._path(name)
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            # mkstemp makes files of mode 0600; several gateways may share the folder.
            handle, temporary = tempfile.mkstemp(dir=self._folder, prefix=f".{name}-")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(message.model_dump_json().encode())
                Path(temporary).replace(path)
            except OSError:
                with contextlib.suppress(OSError):
                    Path(temporary).unlink()
                raise
        except OSError as exc:
            log.error("keepsake_not_saved", path=str(path), reason=str(exc))

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"
