"""The `penstock` command: puts the commands together, and turns errors into exit codes.

Exit codes, the same for every command:

    0  done
    1  failed, for a reason of the platform
    2  bad input: a wrong flag, a manifest that cannot be accepted, a bad setting
    3  no key, or a key that may not do this
    4  no such model or engine
    5  conflict: a port or data directory in use, or somebody else's change
    6  not now: the platform is not reachable, a model failed, or a wait took too long
    130  interrupted
"""

import os
import sys
from contextlib import suppress

import typer
from typer.exceptions import TyperException

from models.errors import BadRequestError, PenstockError
from serving.cli import (
    adapter,
    audit,
    bench,
    cache,
    catalog,
    chat,
    cost,
    delete,
    deploy,
    describe,
    doctor,
    edit,
    explain,
    gateway,
    get,
    key,
    limits,
    logs,
    org,
    output,
    plan,
    prices,
    project,
    pull,
    rollout,
    scale,
    schema,
    simulate,
    status,
    trace,
    tune,
    up,
    usage,
    version,
)

INTERRUPTED = 130

app = typer.Typer(
    name="penstock",
    help="Managed LLM inference: deploy models, call them through one OpenAI-compatible endpoint.",
    epilog="Exit codes: 0 done, 1 failed, 2 bad input, 3 key, 4 not found, 5 conflict, "
    "6 not available, 130 interrupted.",
    invoke_without_command=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback()
def _help_where_nothing_is_asked(context: typer.Context) -> None:
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())


app.command("up")(up.up)
app.command("down")(up.down)
app.command("status")(status.status)
app.command("gateway")(gateway.gateway)
app.command("deploy")(deploy.deploy)
app.command("plan")(plan.plan)
app.command("catalog")(catalog.catalog)
app.command("schema")(schema.schema)
app.command("pull")(pull.pull)
app.add_typer(cache.app, name="cache")
app.command("describe")(describe.describe)
app.command("edit")(edit.edit)
app.command("delete")(delete.delete)
app.add_typer(get.app, name="get")
app.command("logs")(logs.logs)
app.command("trace")(trace.trace)
app.command("explain")(explain.explain)
app.command("scale")(scale.scale)
app.add_typer(rollout.app, name="rollout")
app.add_typer(adapter.app, name="adapter")
app.command("chat")(chat.chat)
# All flags of these two, --help too, are for the module that they hand over to.
passing_on = {"ignore_unknown_options": True, "help_option_names": []}
app.command("bench", context_settings=passing_on)(bench.bench)
app.command("simulate", context_settings=passing_on)(simulate.simulate)
app.command("tune")(tune.tune)
app.add_typer(org.app, name="org")
app.add_typer(project.app, name="project")
app.add_typer(key.app, name="key")
app.add_typer(limits.app, name="limits")
app.add_typer(prices.app, name="prices")
app.add_typer(usage.app, name="usage")
app.command("cost")(cost.cost)
app.command("audit")(audit.audit)
app.command("doctor")(doctor.doctor)
app.command("version")(version.version)


def run(arguments: list[str] | None = None) -> int:
    """Runs one command; returns its exit code and never raises."""
    try:
        result = app(args=arguments, prog_name="penstock", standalone_mode=False)
        return result if isinstance(result, int) else 0
    except PenstockError as exc:
        output.print_error(exc)
        return exc.exit_code
    except TyperException as exc:
        hint = "`penstock --help` lists the commands, `penstock COMMAND --help` its options"
        output.print_error(BadRequestError(exc.format_message(), hint=hint))
        return BadRequestError.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except BrokenPipeError:  # whoever reads the output, as `head`, has had enough
        with suppress(OSError, ValueError):  # at its end Python writes what is left, and fails too
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return PenstockError.exit_code
    except Exception as exc:
        if sys.flags.dev_mode:
            raise
        hint = "this is a bug; `python -X dev -m serving.cli.main ...` shows where"
        output.print_error(PenstockError(f"{type(exc).__name__}: {exc}", hint=hint))
        return PenstockError.exit_code


def main() -> None:
    """Entry point of the console script."""
    sys.exit(run())


if __name__ == "__main__":
    main()
