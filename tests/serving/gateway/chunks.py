"""An engine's stream as it stands on the wire."""

WORD = b'data: {"choices":[{"delta":{"content":"word"}}]}\n\n'
END = b"0\r\n\r\n"


def chunk(body: bytes) -> bytes:
    """One of HTTP's chunks."""
    return b"%x\r\n%b\r\n" % (len(body), body)
