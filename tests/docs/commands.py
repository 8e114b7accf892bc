"""The shell commands that the pages show, and why some of them cannot be run beside a platform.

`test_pages.py` runs all others beside a running platform whose engines are played.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.M | re.S)
INLINE = re.compile(r"`(penstock [^`]+)`")
NOT_SHOWN = ("reference", "decisions")
"""Folders whose pages are generated, or speak of the past."""


@dataclass(frozen=True)
class Command:
    """One command of a block, its continued lines joined, without a comment."""

    page: str
    text: str


def pages() -> Iterator[Path]:
    """The pages that tell people what to type."""
    yield ROOT / "README.md"
    for page in sorted((ROOT / "docs").rglob("*.md")):
        if not set(NOT_SHOWN) & set(page.parts):
            yield page


def blocks(page: Path, *kinds: str) -> list[str]:
    """The blocks of a page that are of these kinds."""
    return [text for kind, text in BLOCK.findall(page.read_text()) if kind in kinds]


def commands_in(page: Path) -> Iterator[Command]:
    """The commands of a page's shell blocks, in their order; settings of variables are none."""
    name = str(page.relative_to(ROOT))
    for block in blocks(page, "bash", "sh", "console"):
        for line in re.sub(r"\\\n\s*", "", block).splitlines():
            text = re.sub(r"\s+# .*$", "", line).strip().removeprefix("$ ")
            if text and not text.startswith(("export ", "#")):
                yield Command(name, text)


def inline_commands(page: Path) -> set[str]:
    """The commands of `penstock` that stand within the text of a page."""
    return set(INLINE.findall(BLOCK.sub("", page.read_text())))


BY_HAND = "a process of its own that takes minutes; "
ELSEWHERE: tuple[tuple[str, str, str], ...] = (
    # page, how the command begins, why it is not run beside a platform (and what runs it instead)
    ("README.md", "make ", "starts the platform, or is all tests"),
    ("README.md", ".venv/bin/penstock logs", "an engine's log; tests/serving/cli/test_logs.py"),
    ("docs/install/laptop.md", "make up", "starts the platform"),
    ("docs/install/gpu-host.md", "", "root, systemd and a GPU; see tests/docs/test_site.py"),
    ("docs/install/kubernetes.md", "docker ", "Docker; tests/helm/test_images.py runs the steps"),
    ("docs/install/kubernetes.md", "kubectl ", "a Kubernetes cluster"),
    ("docs/install/kubernetes.md", "helm ", "a Kubernetes cluster; tests/helm renders the chart"),
    ("docs/guides/adapters.md", "penstock adapter", "vLLM; tests/platform/test_adapters.py"),
    ("docs/guides/adapters.md", "curl ", "vLLM; tests/platform/test_adapters.py"),
    ("docs/guides/deploying.md", "penstock deploy qwen3-8b", "weights of the hub, and a GPU"),
    ("docs/guides/deploying.md", "penstock deploy hf://", "the hub; tests/platform/test_weights"),
    ("docs/guides/deploying.md", "penstock cache rm", "weights of the hub; test_weights.py"),
    ("docs/guides/gpu-check.md", "loadtests/gpu/wheels.sh", "downloads gigabytes"),
    ("docs/guides/gpu-check.md", "loadtests/gpu/check.sh", BY_HAND + "`make check-machine`"),
    ("docs/guides/gpu-check.md", ".venv/bin/python -m venv", "a second vLLM: gigabytes"),
    ("docs/guides/gpu-check.md", "other/bin/pip ", "downloads gigabytes"),
    ("docs/guides/gpu-check.md", "echo ", "for the second vLLM"),
    ("docs/guides/gpu-check.md", "TEST_VLLM_PYTHON=", "a second vLLM, where it is at hand"),
    ("docs/guides/load-tests.md", "penstock bench", "an engine with a tokenizer; tests/loadtests"),
    ("docs/guides/load-tests.md", "locust ", "runs until it is stopped; tests/loadtests"),
    ("docs/guides/tenants.md", "penstock ", "tests/serving/cli/test_tenants.py runs the page"),
    ("docs/guides/tuning.md", "penstock tune", BY_HAND + "tests/serving/cli/test_tune.py"),
    ("docs/operations/backup.md", "pg_dump ", "PostgreSQL; tests/docs/test_restore.py"),
    ("docs/operations/upgrade.md", "kubectl ", "a Kubernetes cluster"),
    ("docs/concepts/autoscaling.md", "python -m autoscaler", BY_HAND + "tests/autoscaler"),
    ("docs/concepts/metering.md", "penstock usage reconcile", "1 after kills; tests/metering"),
)  # fmt: skip


def why_elsewhere(command: Command) -> str | None:
    """Why a command is not run beside a platform; None where it is."""
    for page, beginning, why in ELSEWHERE:
        if fnmatch(command.page, page) and command.text.startswith(beginning):
            return why
    return None
