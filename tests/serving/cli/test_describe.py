"""`penstock describe` and `penstock edit`, and the schema that is shipped."""

import json
from pathlib import Path

import pytest

from serving.cli.schema import schema_text
from serving.protocol import ModelState
from serving.views import FetchView
from tests.serving.cli.conftest import Run
from tests.serving.cli.fake_platform import FakePlatform

ROOT = Path(__file__).parents[3]


def test_describe_shows_state_weights_manifest_and_events(run: Run, platform: FakePlatform) -> None:
    platform.deploy("guide", ModelState.ASLEEP)
    fetch = FetchView(node="n1", done_bytes=1, total_bytes=4, done=False, error=None)
    platform.fetches = [[fetch]]
    outcome = run("describe", "guide")
    assert outcome.code == 0
    assert "guide: asleep" in outcome.out
    assert "weights come to n1: 25%" in outcome.out
    assert "source: builtin://guide" in outcome.out
    assert "engine_failed" in outcome.out
    document = json.loads(run("describe", "guide", "-o", "json").out)
    assert set(document) == {"model", "revisions", "events"}
    assert run("describe", "nobody").code == 4


def editor(folder: Path, body: str) -> str:
    """An editor that runs a line of Python over the file; `path` and `text` are given."""
    script = folder / "editor.py"
    script.write_text(
        "import sys, pathlib\npath = pathlib.Path(sys.argv[1])\ntext = path.read_text()\n" + body
    )
    return f"python {script}"


def test_edit_deploys_what_was_changed(
    run: Run, platform: FakePlatform, settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    platform.deploy("guide", ModelState.READY)
    settings.setenv("EDITOR", editor(tmp_path, "path.write_text(text + 'scaling: {max: 2}\\n')"))
    settings.delenv("VISUAL", raising=False)
    outcome = run("edit", "guide")
    assert outcome.code == 0, outcome.err
    assert platform.models["guide"].manifest.scaling.max == 2
    assert platform.asked[-1][2] == {"if_revision": ["1"]}


def test_edit_that_changes_nothing_deploys_nothing(
    run: Run, platform: FakePlatform, settings: pytest.MonkeyPatch
) -> None:
    platform.deploy("guide", ModelState.READY)
    settings.setenv("EDITOR", "true")
    outcome = run("edit", "guide")
    assert (outcome.code, "nothing changed" in outcome.err) == (0, True)
    assert [call[0] for call in platform.asked] == ["GET"]


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ("path.write_text(text + 'colour: red\\n')", 2, "colour"),
        ("path.write_text(text.replace('name: guide', 'name: other'))", 2, "cannot be edited"),
        ("path.write_text('a: [')", 2, "not valid YAML"),
        ("sys.exit(3)", 2, "status 3"),
    ],
)
def test_edit_keeps_what_cannot_be_deployed(
    run: Run,
    platform: FakePlatform,
    settings: pytest.MonkeyPatch,
    tmp_path: Path,
    body: str,
    code: int,
    says: str,
) -> None:
    platform.deploy("guide", ModelState.READY)
    settings.setenv("EDITOR", editor(tmp_path, body))
    settings.setenv("TMPDIR", str(tmp_path))
    outcome = run("edit", "guide")
    assert outcome.code == code
    assert says in outcome.err
    kept = Path(outcome.err.rpartition("kept in ")[2].strip())
    assert kept.exists()
    kept.unlink()
    assert "POST" not in [call[0] for call in platform.asked]


def test_edit_loses_against_who_was_faster(
    run: Run, platform: FakePlatform, settings: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    platform.deploy("guide", ModelState.READY)
    # While the editor is open, somebody else deploys.
    faster = (
        "import urllib.request\n"
        f"r = urllib.request.Request({platform.url!r} + '/admin/v1/models', method='POST',"
        ' data=b\'{"name": "guide", "source": "builtin://guide",'
        ' "scaling": {"max": 9}}\','
        " headers={'Authorization': 'Bearer pa-of-the-tests'})\n"
        "urllib.request.urlopen(r)\n"
        "path.write_text(text + 'scaling: {max: 2}\\n')"
    )
    settings.setenv("EDITOR", editor(tmp_path, faster))
    outcome = run("edit", "guide")
    assert outcome.code == 5
    assert "somebody else" in outcome.err
    assert platform.models["guide"].manifest.scaling.max == 9


def test_no_editor_is_told(run: Run, platform: FakePlatform, settings: pytest.MonkeyPatch) -> None:
    platform.deploy("guide", ModelState.READY)
    settings.setenv("EDITOR", "no-such-editor-here")
    outcome = run("edit", "guide")
    assert (outcome.code, "cannot start the editor" in outcome.err) == (2, True)


def test_schema_is_printed_and_shipped(run: Run) -> None:
    shown = run("schema").out
    assert shown == schema_text() == (ROOT / "models" / "manifest.schema.json").read_text()
    schema = json.loads(shown)
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) <= set(schema["properties"])
