"""What of a vLLM is called by name here, read from its source: none of it is imported.

`python -m tests.serving.engine.vllm_surface FOLDER` prints it for a folder `vllm` of an unpacked
wheel, as `vllm-0.26.0.json` beside this file has it.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

FRONTEND = ("entrypoints/launchers/cli_args.py", "entrypoints/openai/cli_args.py")
"""The arguments of the server, newest place first."""
CLASSES = {
    "OutputProcessor": "v1/engine/output_processor.py",
    "RequestState": "v1/engine/output_processor.py",
    "EngineCoreRequest": "v1/engine/__init__.py",
    "EngineCoreOutput": "v1/engine/__init__.py",
    "IterationStats": "v1/metrics/stats.py",
    "ReasoningParserManager": "reasoning/abs_reasoning_parsers.py",
    "ServeSubcommand": "entrypoints/cli/serve.py",
    "FlexibleArgumentParser": "utils/argparse_utils.py",
}
METRICS = "v1/metrics/loggers.py"
ROUTE = re.compile(r"@(?:router|app)\.(?:get|post|head)\(\s*\"(/[^\"]*)\"")


@dataclass(frozen=True, slots=True)
class Surface:
    """Names, each list in order."""

    version: str
    modules: list[str]
    """Of those that are executed: the entry points."""
    flags: list[str]
    environment: list[str]
    classes: dict[str, list[str]]
    """Fields, attributes and methods; a method's arguments as `method(first, second)`."""
    metrics: list[str]
    routes: list[str]


def surface(folder: Path, version: str) -> Surface:
    """Reads it.

    Raises:
        OSError: If a file is not there.
    """
    entries = ("entrypoints.openai.api_server", "entrypoints.cli.serve")
    return Surface(
        version=version,
        modules=[f"vllm.{name}" for name in entries
                 if (folder / name.replace(".", "/")).with_suffix(".py").exists()],
        flags=sorted({*_engine_flags(folder), *_frontend_flags(folder)}),
        environment=sorted(_environment(_tree(folder / "envs.py"))),
        classes={name: sorted(set(_members(_class(_tree(folder / path), name))))
                 for name, path in CLASSES.items()},
        metrics=sorted(_texts(_tree(folder / METRICS), "vllm:")),
        routes=sorted({route for path in (folder / "entrypoints").rglob("*.py")
                       for route in ROUTE.findall(path.read_text("utf-8"))}),
    )  # fmt: skip


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def _class(tree: ast.Module, name: str) -> ast.ClassDef:
    return next(n for n in ast.walk(tree) if isinstance(n, ast.ClassDef) and n.name == name)


def _texts(tree: ast.AST, beginning: str) -> set[str]:
    values = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant))
    return {v for v in values if isinstance(v, str) and v.startswith(beginning) and " " not in v}


def _engine_flags(folder: Path) -> set[str]:
    """What `add_cli_args` of both classes of engine arguments names."""
    tree = _tree(folder / "engine/arg_utils.py")
    return {
        text
        for name in ("EngineArgs", "AsyncEngineArgs")
        for node in _class(tree, name).body
        if isinstance(node, ast.FunctionDef) and node.name == "add_cli_args"
        for text in _texts(node, "--")
    }


def _frontend_flags(folder: Path) -> set[str]:
    """Of the server: a flag is a field of a class here, or is named."""
    tree = _tree(next(folder / path for path in FRONTEND if (folder / path).exists()))
    fields = {
        "--" + node.target.id.replace("_", "-")
        for name in ("BaseFrontendArgs", "FrontendArgs")
        for node in _class(tree, name).body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    return fields | _texts(tree, "--")


def _environment(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if (isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Dict)
                and getattr(node.target, "id", "") == "environment_variables"):  # fmt: skip
            keys = (key.value for key in node.value.keys if isinstance(key, ast.Constant))
            yield from (key for key in keys if isinstance(key, str))


def _members(found: ast.ClassDef) -> Iterator[str]:
    for node in found.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            is_property = any(getattr(d, "id", "") == "property" for d in node.decorator_list)
            inner = ", ".join(argument.arg for argument in node.args.args)
            yield node.name if is_property else f"{node.name}({inner})"
            if node.name == "__init__":
                yield from _attributes(node)


def _attributes(init: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[str]:
    for node in ast.walk(init):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr


if __name__ == "__main__":
    print(json.dumps(asdict(surface(Path(sys.argv[1]), sys.argv[2])), indent=1))
