"""The fields of a config.json, each checked when it is asked for; not what they mean."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.errors import SourceError


class ConfigError(SourceError):
    """A config.json that lacks a field, or describes an architecture that is not known."""

    code = "invalid_config"


class Config:
    """The fields of a config.json, each checked when it is asked for."""

    def __init__(self, fields: Mapping[str, Any], name: str = "config.json") -> None:
        self._fields = fields
        self._name = name

    def number(self, *names: str, default: int | None = None) -> int:
        """A positive integer under the first of the names that is there.

        Raises:
            ConfigError: If it is missing and has no default, or is no positive integer.
        """
        for name in names:
            value = self._fields.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or value <= 0:
                raise ConfigError(
                    f"{self._name}: {name} is {value!r}, not a positive integer", param=name
                )
            return value
        if default is None:
            raise ConfigError(f"{self._name} has no {names[0]}", param=names[0])
        return default

    def optional(self, name: str) -> int | None:
        """A positive integer, or none where it is null or missing."""
        return None if self._fields.get(name) is None else self.number(name)

    def flag(self, name: str, default: bool) -> bool:
        """A boolean."""
        value = self._fields.get(name)
        return default if value is None else bool(value)

    def words(self, name: str) -> list[str]:
        """A list of words; empty where it is missing."""
        value = self._fields.get(name)
        return [str(word) for word in value] if isinstance(value, list) else []

    def word(self, *names: str) -> str:
        """The first of the names that is there, as text; empty where none is."""
        return next((str(self._fields[n]) for n in names if self._fields.get(n)), "")

    def part(self, name: str) -> "Config":
        """A nested object.

        Raises:
            ConfigError: If it is missing.
        """
        value = self._fields.get(name)
        if not isinstance(value, dict):
            raise ConfigError(f"{self._name} has no {name}", param=name)
        return Config(value, f"{self._name}: {name}")

    def has(self, name: str) -> bool:
        """Whether the field is there and not null."""
        return self._fields.get(name) is not None


def load_config(path: Path) -> dict[str, Any]:
    """The fields of a config.json, given as the file or as its folder.

    Raises:
        ConfigError: If it cannot be read or is not a JSON object.
    """
    file = path / "config.json" if path.is_dir() else path
    try:
        fields = json.loads(file.read_text("utf-8"))
    except FileNotFoundError as exc:
        raise ConfigError(f"there is no {file}", param="source") from exc
    except (OSError, ValueError) as exc:
        raise ConfigError(f"{file} is not readable JSON", param="source") from exc
    if not isinstance(fields, dict):
        raise ConfigError(f"{file} is not a JSON object", param="source")
    return fields
