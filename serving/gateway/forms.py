"""Reads multipart forms, as OpenAI's audio routes take them, and writes them anew.

Strict: what is not a plain form is refused. Written anew for the same reason as JSON bodies.
"""

import re
import secrets

from models.errors import BadRequestError
from serving.gateway.fields import JsonObject

MAX_PARTS = 64
MAX_HEAD_BYTES = 1024

BOUNDARY = re.compile(r'boundary="?([0-9A-Za-z\'()+_,./:=? -]{1,70})"?\s*$')
NAME = re.compile(rb'form-data;(?:.*;)?\s*name="([A-Za-z0-9_\[\]]{1,64})"', re.IGNORECASE)
FILE_NAME = re.compile(rb'filename="([^"\r\n]{0,200})"', re.IGNORECASE)


class File(bytes):
    """A part of a form with a file name; the name's ending tells the engine its format."""

    name: str


def read_form(body: bytes, content_type: str) -> JsonObject:
    """The fields of a form; of two with the same name the last counts, but for lists (`x[]`).

    Raises:
        BadRequestError: If it is not a form.
    """
    found = BOUNDARY.search(content_type)
    if not content_type.lower().startswith("multipart/form-data") or found is None:
        raise BadRequestError("the body must be a form: multipart/form-data with a boundary")
    mark = b"--" + found[1].rstrip().encode()
    first, *parts = (b"\r\n" + body).split(b"\r\n" + mark)
    if len(parts) < 2 or len(parts) > MAX_PARTS or first.strip():
        raise BadRequestError("the body is not a form of at most 64 fields")
    if not parts[-1].startswith(b"--"):
        raise BadRequestError("the form has no end")
    fields: JsonObject = {}
    for part in parts[:-1]:
        name, value = _read_part(part)
        if name.endswith("[]"):
            values = fields.setdefault(name, [])
            if isinstance(values, list):
                values.append(value)
        else:
            fields[name] = value
    return fields


def _read_part(part: bytes) -> tuple[str, str | File]:
    if not part.startswith(b"\r\n"):
        raise BadRequestError("a field of the form does not begin as it should")
    head, gap, content = part[2:].partition(b"\r\n\r\n")
    name = NAME.search(head)
    if not gap or len(head) > MAX_HEAD_BYTES or name is None:
        raise BadRequestError("a field of the form has no name")
    file_name = FILE_NAME.search(head)
    if file_name is not None:
        file = File(content)
        file.name = file_name[1].decode("ascii", "replace")
        return name[1].decode(), file
    try:
        return name[1].decode(), content.decode()
    except UnicodeDecodeError as exc:
        raise BadRequestError("a field of the form is not UTF-8", param=name[1].decode()) from exc


def new_boundary() -> str:
    """A boundary that no tenant can guess."""
    return secrets.token_hex(24)


def write_form(fields: JsonObject, boundary: str) -> bytes:
    """The form again, in our own words."""
    lines: list[bytes] = []
    for name, value in fields.items():
        for one in value if isinstance(value, list) else [value]:
            lines.append(b"--" + boundary.encode())
            kind = f'Content-Disposition: form-data; name="{name}"'
            if isinstance(one, File):
                plain = re.sub(r"[^A-Za-z0-9._-]", "_", one.name)[-100:] or "file"
                lines.append(f'{kind}; filename="{plain}"'.encode())
                lines.append(b"Content-Type: application/octet-stream")
                lines.extend((b"", bytes(one)))
            else:
                lines.extend((kind.encode(), b"", str(one).encode()))
    lines.append(b"--" + boundary.encode() + b"--\r\n")
    return b"\r\n".join(lines)
