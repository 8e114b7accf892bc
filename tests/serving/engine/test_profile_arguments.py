"""vLLM's own parser takes the arguments of every profile, and reads them as they are meant."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from models import catalog
from models.manifest import Goal
from models.profile import manifest_with_goal, settings_of, with_profile
from serving.engine.arguments import vllm_arguments

pytestmark = pytest.mark.engine

PARSE = """
import json, os, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser, read = make_arg_parser(FlexibleArgumentParser()), []
for arguments, names in json.load(sys.stdin):
    args = parser.parse_args(arguments)
    validate_parsed_serve_args(args)
    read.append({name: getattr(args, name) for name in names})
print("read" + json.dumps(read), flush=True)
os._exit(0)
"""


def test_vllm_takes_the_arguments_of_every_profile() -> None:
    """Unknown names and impossible values end the parser, and so the test."""
    asked, meant = [], []
    for entry in catalog.entries():
        for variant in entry.variants:
            for goal in get_args(Goal):
                manifest = manifest_with_goal(entry.manifest(variant), goal)
                values = {name: one.value for name, one in settings_of(manifest).items()}
                arguments = vllm_arguments(with_profile(manifest), Path("/weights"))
                asked.append((arguments, list(values)))
                meant.append(values)
    done = subprocess.run(
        [sys.executable, "-c", PARSE], input=json.dumps(asked), capture_output=True, text=True,
        timeout=240, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert "\nread" in "\n" + done.stdout, done.stdout + done.stderr
    for read, values in zip(json.loads(done.stdout.rpartition("read")[2]), meant, strict=True):
        given = {k: json.loads(v) if str(v).startswith("{") else v for k, v in values.items()}
        assert read == given
