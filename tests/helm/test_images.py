"""The images: their Dockerfiles by hadolint's rules, and their build's steps without Docker."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import (
    Distribution,
    PackageNotFoundError,
    distribution,
    distributions,
    packages_distributions,
)
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from hatch_build import can_compile
from tests.helm.chart import CHART, ROOT
from tests.helm.clean_environment import install

IMAGES = ROOT / "helm" / "images"
DOCKERFILES = sorted(IMAGES.glob("*.Dockerfile"))
hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent))


@pytest.mark.skipif(hadolint is None, reason="hadolint is not installed")
@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_dockerfile_is_clean(path: Path) -> None:
    done = subprocess.run(
        [hadolint or "", "-c", IMAGES / "hadolint.yaml", path],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_dockerfile_runs_as_the_charts_user_from_a_base_that_can_be_pinned(path: Path) -> None:
    text = path.read_text()
    chart_user = re.search(r"runAsUser: (\d+)", (CHART / "templates" / "_pods.tpl").read_text())
    assert chart_user is not None
    assert re.findall(r"^USER (\d+)", text, re.M) == [chart_user[1]]
    assert set(re.findall(r"^FROM (\S+)", text, re.M)) == {"${BASE}", "scratch"}
    assert " AS sbom" in text


def test_the_context_holds_what_the_wheel_is_built_from() -> None:
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().split() if line[0] == "!"}
    pyproject = (ROOT / "pyproject.toml").read_text()
    (packages,) = re.findall(r"wheel\]\npackages = \[(.*)\]", pyproject)
    assert set(re.findall(r'"(\w+)"', packages)) <= kept
    assert {"pyproject.toml", "hatch_build.py", "constraints.txt", "README.md", "LICENSE"} <= kept


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of a clean environment with the wheel alone, as the Dockerfiles make it."""
    return install(ROOT, tmp_path_factory.mktemp("image"))


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(python: Path, tmp_path: Path) -> Run:
    """Runs in an empty folder, as the image's WORKDIR is."""

    def start(*args: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [python, *args], cwd=tmp_path, env={"PATH": os.environ["PATH"], **variables},
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip

    return start


def test_wheel_brings_our_packages_from_its_own_folder(run: Run, python: Path) -> None:
    code = "import serving, models, autoscaler; print(serving.__file__)"
    assert str(python.parents[1]) in run("-c", code).stdout


def test_wheel_has_the_command(python: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [python.with_name("penstock"), "--help"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and "deploy" in done.stdout


@pytest.mark.parametrize("module", ["serving.cli.node", "serving.controller.keys"])
def test_wheel_has_the_modules_with_help(run: Run, module: str) -> None:
    assert run("-m", module, "--help").returncode == 0


@pytest.mark.parametrize("module", ["serving.gateway.app", "serving.controller.app"])
def test_wheel_has_the_servers_which_ask_for_their_settings(run: Run, module: str) -> None:
    done = run("-m", module)
    assert done.returncode == 2
    assert "PENSTOCK_INTERNAL_TOKEN" in done.stderr


@pytest.mark.skipif(not can_compile(), reason="no C compiler with Python's headers is installed")
def test_wheel_has_the_compiled_way_of_a_chunk(run: Run) -> None:
    code = "from serving.gateway import passage; print(passage.COMPILED)"
    assert run("-c", code).stdout == "True\n"


def test_wheel_has_the_data_of_its_packages(run: Run) -> None:
    listing = "import models, pathlib; print(*pathlib.Path(models.__file__).parent.rglob('*'))"
    found = run("-c", listing).stdout
    for part in ("model.safetensors", "tokenizer.json", "catalog/"):
        assert part in found


def test_wheel_migrates_a_database(run: Run, tmp_path: Path) -> None:
    url = f"sqlite+aiosqlite:///{tmp_path / 'p.db'}"
    done = run("-m", "serving.controller.keys", PENSTOCK_DATABASE_URL=url)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["admin_key"].startswith("pa-")


def brought_by(wheel: Distribution, extras: set[str]) -> set[str]:
    """What an installer brings along for a wheel with extras: names of distributions."""
    found, left = set[str](), [(wheel, extras)]
    while left:
        here, asked = left.pop()
        for line in here.requires or []:
            wanted = Requirement(line)
            if wanted.marker is not None and not any(
                wanted.marker.evaluate({"extra": extra}) for extra in asked or {""}
            ):
                continue
            name = canonicalize_name(wanted.name)
            if name not in found or wanted.extras:
                found.add(name)
                with suppress(PackageNotFoundError):
                    left.append((distribution(name), wanted.extras | {""}))
    return found


def test_platform_image_needs_nothing_but_what_its_extras_bring(run: Run, python: Path) -> None:
    """No vLLM and no torch, and nothing else that only this environment happens to have."""
    (site,) = (python.parents[1] / "lib").glob("python*/site-packages")
    (wheel,) = distributions(name="penstock", path=[str(site)])
    (extras,) = re.findall(r"\[([a-z,]+)\]\"", (IMAGES / "platform.Dockerfile").read_text())
    brought = brought_by(wheel, {"", *extras.split(",")}) | {"penstock"}
    rays_own = Path(str(distribution("ray").locate_file("ray/thirdparty_files")))
    missing = [
        name
        for name, owners in packages_distributions().items()
        if not brought & {canonicalize_name(owner) for owner in owners}
        and not (rays_own / name).exists()
    ]
    assert {"vllm", "torch", "pytest", "matplotlib"} <= set(missing)
    code = (
        "import json, os, sys\n"
        "for name in json.loads(os.environ['MISSING']): sys.modules[name] = None\n"
        "import serving.gateway.app, serving.controller.app, serving.controller.keys\n"
        "import serving.cli.main, serving.cli.node, serving.gateway.request_spans\n"
        "import serving.controller.spans, serving.engine.host, asyncpg\n"
    )
    done = run("-c", code, MISSING=json.dumps(missing))
    assert done.returncode == 0, done.stderr


def test_bill_of_materials_lists_what_is_installed(run: Run, tmp_path: Path) -> None:
    assert run(str(IMAGES / "sbom.py"), str(tmp_path / "sbom.json")).returncode == 0
    bill = json.loads((tmp_path / "sbom.json").read_text())
    assert bill["bomFormat"] == "CycloneDX"
    names = {c["name"] for c in bill["components"]}
    assert {"penstock", "fastapi", "ray"} <= names
    assert all(c["purl"].startswith("pkg:pypi/") for c in bill["components"])
