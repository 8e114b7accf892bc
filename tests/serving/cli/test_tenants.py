"""`penstock org|project|key|limits|prices|cost|audit` against a controller that runs."""

import asyncio
import json
import re
import shlex
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tests.serving.cli.conftest import Outcome, Run
from tests.serving.controller.served import ADMIN_KEY, serve
from tests.serving.controller.world import settings as controller_settings

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "tenants.md"

Call = Callable[..., Awaitable[Outcome]]


@pytest.fixture
async def call(tmp_path: Path, settings: pytest.MonkeyPatch, run: Run) -> AsyncIterator[Call]:
    """Runs a command beside a controller that the settings point at."""
    database_url = f"sqlite+aiosqlite:///{tmp_path / 'penstock.db'}"
    async with serve(controller_settings(database_url=database_url)) as served:
        settings.setenv("PENSTOCK_URL", str(served.admin.base_url))
        settings.setenv("PENSTOCK_ADMIN_KEY", ADMIN_KEY)

        async def call(*arguments: str) -> Outcome:
            return await asyncio.to_thread(run, *arguments)

        yield call


async def test_tenants_life_on_the_command_line(call: Call) -> None:
    """One run through everything: each command as `docs/guides/tenants.md` shows it."""
    assert (await call("org", "create", "acme")).code == 0
    assert "acme" in (await call("org", "list")).out
    assert (await call("org", "create", "acme")).code == 5
    assert (await call("project", "create", "acme/web", "--model", "guide")).code == 0
    assert "acme/web" in (await call("project", "list", "--org", "acme")).out
    made = await call("key", "create", "frontend", "--project", "acme/web", "--expires-in", "30d")
    assert made.code == 0
    secret = made.out.strip()
    assert secret.startswith("pk-")
    assert "shown this once" in made.err
    listed = await call("key", "list", "--project", "acme/web")
    assert "frontend" in listed.out
    assert secret not in listed.out
    rotated = await call("key", "rotate", "frontend", "--overlap", "10m")
    assert rotated.out.strip() != secret
    assert "rotated; the old one until" in (await call("key", "list")).out
    program = await call(
        "key", "create", "nightly", "--project", "acme/web", "--service-account", "batch"
    )
    assert program.code == 0
    assert "batch" in (await call("project", "accounts", "acme/web")).out

    limits = await call(
        "limits", "set", "--key", "frontend", "--requests-per-min", "60", "--max-tokens", "512",
        "--budget-month", "25",
    )  # fmt: skip
    assert limits.code == 0, limits.err
    (limit,) = json.loads((await call("limits", "list", "-o", "json")).out)["items"]
    assert (limit["requests_per_min"], limit["budget_month"]) == (60, "25")
    assert (await call("limits", "delete", "--key", "frontend")).code == 0
    assert (await call("limits", "delete", "--key", "frontend")).code == 4

    assert (await call("prices", "set", "guide", "--input", "0.10", "--output", "0.40")).code == 0
    assert (await call("prices", "set-gpu", "h200", "--per-hour", "3.50")).code == 0
    book = json.loads((await call("prices", "list", "-o", "json")).out)
    assert [price["output"] for price in book["tokens"]] == ["0.4"]
    assert {price["accelerator"] for price in book["gpus"]} == {"h100", "h200", "cpu"}
    assert (await call("prices", "delete", book["tokens"][0]["price_id"])).code == 0
    assert "revenue $0.00" in (await call("cost", "--hours", "24")).out

    assert (await call("key", "revoke", "frontend")).code == 0
    assert "frontend" not in (await call("key", "list")).out
    assert "revoked" in (await call("key", "list", "--revoked")).out
    assert (await call("org", "delete", "acme")).code == 0
    assert "nightly" not in (await call("key", "list")).out
    told = await call("audit", "--limit", "100")
    assert all(act in told.out for act in ("org.create", "key.rotate", "limit.set", "org.delete"))


async def test_bad_input_is_one_clear_error(call: Call) -> None:
    for arguments, code, word in (
        (("org", "create", "x" * 200), 2, "128"),
        (("org", "create", "two\nlines"), 2, "control"),
        (("org", "delete", "nobody"), 4, "no organisation"),
        (("project", "create", "noslash"), 2, "organisation/project"),
        (("key", "create", "k", "--expires-in", "soon"), 2, "duration"),
        (("key", "create", "k", "--model", "No Model"), 2, "models"),
        (("key", "create", "k", "--service-account", "a"), 2, "project"),
        (("limits", "set", "--requests-per-min", "1"), 2, "exactly one"),
        (("limits", "set", "--org", "default", "--budget-day", "-1"), 2, "budget_day"),
        (("prices", "set", "guide", "--input", "-1", "--output", "1"), 2, "input"),
        (("prices", "set-gpu", "h100", "--per-hour", "free"), 2, "per_hour"),
    ):
        outcome = await call(*arguments)
        assert outcome.code == code, (arguments, outcome.err)
        assert word in outcome.err, (arguments, outcome.err)
        assert outcome.out == ""


async def test_commands_of_the_guide_run(call: Call) -> None:
    blocks = re.findall(r"```bash\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) > 10
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "penstock"
        outcome = await call(*arguments)
        assert outcome.code == 0, (command, outcome.err)
