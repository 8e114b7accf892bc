"""Splits a byte stream into server-sent events, as the WHATWG's HTML standard defines them."""


class EventStream:
    """An incremental parser: bytes in as they come, the data of whole events out.

    Lines may end in LF, CRLF or CR. Comments and fields other than `data` are skipped; the lines of
    an event's data are joined by LF. An event that the stream's end cuts off is never given out.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[bytes] = []

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of the events that `chunk` completes, in order."""
        text = self._rest + chunk if self._rest else chunk
        if b"\r" in text:
            if text.endswith(b"\r"):  # the LF of a CRLF may be in the next chunk
                held, text = b"\r", text[:-1]
            else:
                held = b""
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        else:
            held = b""
        *lines, rest = text.split(b"\n")
        self._rest = rest + held
        events: list[bytes] = []
        for line in lines:
            if not line:
                if self._data:
                    events.append(b"\n".join(self._data))
                    self._data = []
            elif line.startswith(b"data:"):
                self._data.append(line[6:] if line[5:6] == b" " else line[5:])
            elif line == b"data":
                self._data.append(b"")
        return events

    @property
    def cut_off(self) -> bool:
        """Whether bytes have come that no complete event contains."""
        return bool(self._data or self._rest.strip())
