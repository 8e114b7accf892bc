"""Multipart forms, read strictly and written anew."""

import httpx
import pytest

from models.errors import BadRequestError
from serving.gateway.forms import File, read_form, write_form

TYPE = "multipart/form-data; boundary=xyz"


def form(*parts: bytes, end: bytes = b"--xyz--\r\n") -> bytes:
    return b"".join(b"--xyz\r\n" + part + b"\r\n" for part in parts) + end


def field(name: str, value: bytes) -> bytes:
    return b'Content-Disposition: form-data; name="%s"\r\n\r\n%s' % (name.encode(), value)


def test_form_of_a_real_client_is_read() -> None:
    request = httpx.Request(
        "POST", "http://x/", data={"model": "demo", "prompt": "wörd", "x[]": ["a", "b"]},
        files={"file": ("a b.wav", b"\x00\r\n--\xff", "audio/wav")},
    )  # fmt: skip
    fields = read_form(request.read(), request.headers["content-type"])
    file = fields.pop("file")
    assert isinstance(file, File)
    assert (file.name, bytes(file)) == ("a b.wav", b"\x00\r\n--\xff")
    assert fields == {"model": "demo", "prompt": "wörd", "x[]": ["a", "b"]}


def test_form_written_anew_reads_the_same() -> None:
    file = File(b"\x00\r\n--xyz--\xff")
    file.name = 'we"ird\r\n.wav'
    fields = {"model": "demo", "x[]": ["a", "b"], "file": file}
    again = read_form(write_form(fields, "b0undary"), "multipart/form-data; boundary=b0undary")
    assert again == fields
    sent = again["file"]
    assert isinstance(sent, File)
    assert sent.name == "we_ird__.wav"


def test_last_of_two_fields_counts() -> None:
    assert read_form(form(field("model", b"a"), field("model", b"b")), TYPE) == {"model": "b"}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", TYPE),
        (b"{}", "application/json"),
        (form(field("a", b"b")), "multipart/form-data"),
        (form(field("a", b"b"), end=b""), TYPE),
        (form(*(field(f"a{i}", b"b") for i in range(100))), TYPE),
        (b"preamble\r\n" + form(field("a", b"b")), TYPE),
        (form(b"no head"), TYPE),
        (form(b"X: y\r\n\r\nz"), TYPE),
        (form(field("a", b"\xff")), TYPE),
        (form(b"X: " + b"y" * 2000 + b"\r\n" + field("a", b"b")), TYPE),
    ],
)
def test_what_is_no_plain_form_is_refused(body: bytes, kind: str) -> None:
    with pytest.raises(BadRequestError):
        read_form(body, kind)
