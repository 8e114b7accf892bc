"""What passes through the gateway as it came: the same by Python and by the compiled module."""

import gc
import importlib.util
import subprocess
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatch_build import FLAGS, SOURCE, can_compile, compile_module
from serving.gateway import passage
from tests.serving.gateway.chunks import END, WORD, chunk

ROOT = Path(__file__).parents[3]
BREAKING = [b'{"error"', b'"usage"', b"\r\n", b"\n", b"0", b"fff\r\n", b"data: {", b'"', END]


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """The module of C, of what its source says now."""
    if not can_compile():
        pytest.skip("no C compiler with Python's headers is installed")
    target = tmp_path_factory.mktemp("compiled") / "_passage.abi3.so"
    compile_module(ROOT / SOURCE, target)
    spec = importlib.util.spec_from_file_location("_passage", target)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=["plain", "compiled"])
def kind(request: pytest.FixtureRequest) -> type[Any]:
    """The class of Python, and that of C."""
    if request.param == "plain":
        return passage.PlainPassage
    compiled: ModuleType = request.getfixturevalue("compiled")
    return cast("type[Any]", compiled.Passage)


def events_in(kind: type[Any], data: bytes) -> int:
    """How many events pass in these bytes; -1 where they may not."""
    parsed: list[bytes] = []

    class Connection(kind):  # type: ignore[misc, valid-type]
        def parse(self, data: bytes) -> None:
            parsed.append(data)

    connection = Connection()
    passed: list[bytes] = []
    connection.way, connection.clear = passed.append, True
    connection.data_received(data)
    assert passed + parsed == [data]
    return -1 if parsed else int(connection.passed)


@pytest.mark.parametrize(
    ("data", "events"),
    [
        (chunk(b"a\n"), 0), (chunk(b"\n"), 0), (chunk(WORD), 1), (chunk(WORD) * 3, 3),
        (chunk(WORD * 2), 2), (chunk(b"x" * 4094 + b"\n"), 0), (b"", 0),
    ],
)  # fmt: skip
def test_whole_chunks_of_whole_lines_may_pass(kind: type[Any], data: bytes, events: int) -> None:
    assert events_in(kind, data) == events


@pytest.mark.parametrize(
    "data",
    [
        END,
        chunk(WORD) + END,
        chunk(WORD)[:-1],
        chunk(WORD) + b"3",
        chunk(WORD) + b"\r\n",
        chunk(b"x" * 199 + b"\n") + b"cb\r",  # cut where its size would lead back to its start
        chunk(b"half a line"),
        chunk(b"x" * 4095 + b"\n"),  # longer than three digits say
        chunk(b'data: {"error":{}}\n\n'),
        chunk(WORD) + chunk(b'data: {"choices":[],"usage":{}}\n\n'),
        b"02\r\na\n\r\n",
        b"0A\r\n123456789\n\r\n",
        b"A\r\n123456789\n\r\n",
        b"+2\r\na\n\r\n",
        b"2 \r\na\n\r\n",
        b"2;x=1\r\na\n\r\n",
        b"0x2\r\na\n\r\n",
        b"2\na\n\r\n",
        b"2\r\na\nXY",
        b"2",
        b"2\r",
        b"\r\n",
        b"no HTTP at all",
        b"fff\r\n",
    ],
)
def test_anything_else_is_taken_apart(kind: type[Any], data: bytes) -> None:
    assert events_in(kind, data) == -1


lines = st.lists(st.sampled_from([WORD, b"\n", b": ping\n\n", *BREAKING]), max_size=4)
streams = st.lists(lines.map(lambda parts: chunk(b"".join(parts) + b"\n")), max_size=4)
cuts = st.tuples(st.integers(0, 60), st.sampled_from([b"", *BREAKING]))


@given(streams, cuts, st.binary(max_size=12))
def test_both_say_the_same_of_any_bytes(
    compiled: ModuleType, chunks: list[bytes], cut: tuple[int, bytes], noise: bytes
) -> None:
    whole = b"".join(chunks)
    at, put = cut
    for data in (whole, whole[:at] + put + whole[at:], whole[at:], whole[: -at - 1], noise):
        assert events_in(compiled.Passage, data) == events_in(passage.PlainPassage, data)


def test_passes_only_where_it_may(kind: type[Any]) -> None:
    passed: list[bytes] = []
    parsed: list[bytes] = []

    class Connection(kind):  # type: ignore[misc, valid-type]
        def parse(self, data: bytes) -> None:
            parsed.append(data)

    connection = Connection()
    assert (connection.way, connection.clear) == (None, False)
    connection.data_received(chunk(WORD))
    connection.way = passed.append
    connection.data_received(chunk(WORD) * 2)
    connection.clear = True
    connection.data_received(chunk(WORD) * 3)
    connection.data_received(END)
    connection.way = None
    connection.data_received(chunk(WORD) * 4)
    assert passed == [chunk(WORD) * 3]
    assert parsed == [chunk(WORD), chunk(WORD) * 2, END, chunk(WORD) * 4]
    assert (connection.passed, connection.received) == (3, 5)


def test_what_the_way_raises_is_raised(kind: type[Any]) -> None:
    connection = kind()

    def refuse(data: bytes) -> None:
        connection.way = None  # the last that knew of it
        raise RuntimeError(f"no room for {len(data)} bytes")

    connection.way, connection.clear = refuse, True
    del refuse
    with pytest.raises(RuntimeError, match="no room"):
        connection.data_received(chunk(WORD))


def test_connection_that_knows_its_own_way_is_collected(kind: type[Any]) -> None:
    class Connection(kind):  # type: ignore[misc, valid-type]
        __slots__ = ("__weakref__", "known")

    connection = Connection()
    connection.way = connection.data_received
    gone = weakref.ref(connection)
    del connection
    gc.collect()
    assert gone() is None


def test_source_compiles_without_a_warning(tmp_path: Path) -> None:
    if not can_compile():
        pytest.skip("no C compiler with Python's headers is installed")
    assert {"-Wall", "-Wextra"} <= set(FLAGS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CC", "cc -Werror")
        compile_module(ROOT / SOURCE, tmp_path / "strict.so")


def test_compiler_that_fails_is_told_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CC", "false")
        with pytest.raises(subprocess.CalledProcessError):
            compile_module(ROOT / SOURCE, tmp_path / "none.so")
    assert list(tmp_path.iterdir()) == []
