"""`penstock edit`: a deployed manifest in the operator's editor, and back."""

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

from models.errors import BadRequestError, ManifestError, PenstockError
from models.manifest_files import parse_yaml, to_yaml
from serving.cli import client, output
from serving.cli.deploy import apply, say_applied
from serving.cli.inputs import ModelArgument

HEAD = (
    "# The manifest of {name}, revision {revision}. Save and leave to deploy it; leave it as it\n\
# is to change nothing.\n"
)


def edit(
    model: ModelArgument,
) -> None:
    """Edit a deployed manifest in $VISUAL or $EDITOR, and deploy it."""
    with client.connect() as admin:
        seen = admin.model(model)
        text = HEAD.format(name=seen.name, revision=seen.revision) + to_yaml(seen.manifest)
        with tempfile.NamedTemporaryFile(
            "w", prefix=f"penstock-{seen.name}-", suffix=".yaml", delete=False
        ) as file:
            file.write(text)
        path = Path(file.name)
        edited = _edited(path)
        if edited == text:
            path.unlink()
            output.stderr().print(f"model {model}: nothing changed")
            return
        try:
            manifests = parse_yaml(edited, "the edited manifest")
            if [manifest.name for manifest in manifests] != [model]:
                raise ManifestError(
                    "the name cannot be edited: it would be another model",
                    param="name",
                    hint="`penstock deploy -f` deploys it beside this one",
                )
            say_applied(apply(admin, manifests[0], seen))
        except PenstockError as exc:
            kept = f"what you wrote is kept in {path}"
            raise type(exc)(
                str(exc), param=exc.param, hint=f"{exc.hint}; {kept}" if exc.hint else kept
            ) from exc
        path.unlink()


def _edited(path: Path) -> str:
    """What the operator's editor makes of a file.

    Raises:
        BadRequestError: If there is no editor, or it fails.
    """
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    try:
        done = subprocess.run([*shlex.split(editor), str(path)], check=False)
    except (OSError, ValueError) as exc:
        raise BadRequestError(f"cannot start the editor {editor!r}", hint="set EDITOR") from exc
    if done.returncode != 0:
        raise BadRequestError(
            f"the editor {editor!r} ended with status {done.returncode}; nothing was deployed",
            hint=f"what you wrote is kept in {path}",
        )
    return path.read_text("utf-8")
