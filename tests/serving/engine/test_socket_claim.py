"""Exactly one process serves a socket's path."""

import socket
from pathlib import Path

import pytest

from models.errors import BadRequestError, ConflictError
from serving.engine.socket_claim import claim_socket


def test_claimed_path_is_refused_to_a_second(tmp_path: Path) -> None:
    path = tmp_path / "l.sock"
    with claim_socket(path), pytest.raises(ConflictError, match="another launcher"):
        claim_socket(path).__enter__()


def test_path_is_free_again_afterwards_and_its_files_are_gone(tmp_path: Path) -> None:
    path = tmp_path / "l.sock"
    with claim_socket(path) as claim:
        claim.listen().close()
        scratch = claim.scratch_dir
        assert scratch.is_dir()
    assert not path.exists() and not scratch.exists()
    with claim_socket(path):
        pass


def test_stale_socket_and_scratch_of_a_killed_process_are_replaced(tmp_path: Path) -> None:
    path, scratch = tmp_path / "l.sock", tmp_path / "penstock-old"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    scratch.mkdir()
    path.with_name("l.sock.lock").write_text(str(scratch))
    with claim_socket(path) as claim, claim.listen(), socket.socket(socket.AF_UNIX) as caller:
        caller.connect(str(path))
        assert not scratch.exists()


def test_lock_file_that_names_something_else_removes_nothing(tmp_path: Path) -> None:
    path, precious = tmp_path / "l.sock", tmp_path / "precious"
    precious.mkdir()
    path.with_name("l.sock.lock").write_text(str(precious))
    with claim_socket(path):
        assert precious.is_dir()


def test_path_too_long_for_a_unix_socket_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadRequestError, match="107 bytes"):
        claim_socket(tmp_path / ("x" * 120)).__enter__()


def test_folder_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(BadRequestError, match="cannot use"):
        claim_socket(Path("/proc/no/such/l.sock")).__enter__()
