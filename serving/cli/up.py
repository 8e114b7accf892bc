"""`penstock up` and `penstock down`: a platform on this machine."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from signal import SIGINT, SIGTERM
from typing import Annotated

import typer
from pydantic import Field, SecretStr

from models.errors import UnavailableError
from models.hardware import device_named
from serving.cli import leftovers, output
from serving.cli.parts import Change, PartEvent
from serving.cli.platform import Layout, read_state
from serving.cli.session import Options, Reporter, Session, Started
from serving.engine.nvml import Nvml, open_nvml
from serving.settings import Settings, UpSettings

DEFAULT_PORT = 8000
DOWN_SLACK_S = 45.0
"""Beyond the gateway's drain, what all the other parts may take to end."""


class _DrainSettings(Settings):
    """What `up` needs of the gateway's settings."""

    drain_timeout_s: float = Field(default=30.0, ge=0)


DataDirOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder that the platform keeps everything in; by default PENSTOCK_DATA_DIR, or "
        ".penstock in the current folder.",
    ),
]


def up(
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the endpoint; 0 for any free one.")
    ] = DEFAULT_PORT,
    data_dir: DataDirOption = None,
    hosts: Annotated[int, typer.Option(min=1, max=64, help="Engines that may run at once.")] = 2,
    gpus: Annotated[
        int,
        typer.Option(
            min=0,
            max=64,
            help="Serve on so many GPUs of this machine, one for each "
            "engine, in place of the CPU; the built-in model is not deployed then.",
        ),
    ] = 0,
    deploy: Annotated[bool, typer.Option(help="Deploy and wake the built-in model.")] = True,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Return when the platform is ready.")
    ] = False,
    ready_fd: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> int:
    """Start a platform on this machine and serve until Ctrl-C or `penstock down`."""
    settings = UpSettings.load()
    layout = Layout.of(data_dir or settings.data_dir)
    if detach:
        return _detach(layout, port, hosts, gpus, deploy)
    options = Options(
        port=port,
        hosts=gpus or hosts,
        deploy=deploy and not gpus,
        drain_timeout_s=_DrainSettings.load().drain_timeout_s,
        admin_key=_plain(settings.admin_key),
        api_key=_plain(settings.api_key),
        builds=settings.builds,
        pool=gpu_pool(open_nvml(), gpus) if gpus else "cpu",
    )
    outcome: list[int] = [0]

    def started(what: Started) -> None:
        _print_summary(what, layout)
        if what.trouble is not None:
            output.print_error(what.trouble)
            outcome[0] = what.trouble.exit_code
        if ready_fd is not None:
            _let_go(layout, ready_fd, outcome[0])

    Session(layout, options, _reporter(layout, started)).run()
    return outcome[0]


def down(data_dir: DataDirOption = None) -> int:
    """Stop the platform of a data directory, and whatever an earlier one left behind."""
    layout = Layout.of(data_dir or UpSettings.load().data_dir)
    console = output.stderr()
    state = read_state(layout)
    if state is None:
        console.print(f"no platform runs in {layout.data_dir}")
        return 0
    if state.supervisor.is_alive():
        console.print(f"stopping the platform at {state.url}")
        leftovers.signal_all([state.supervisor], SIGTERM)
        timeout_s = _DrainSettings.load().drain_timeout_s + DOWN_SLACK_S
        if not leftovers.wait_gone(state.supervisor, timeout_s):
            raise UnavailableError(
                f"the platform (pid {state.pid}) did not stop within {timeout_s:.0f} s",
                hint=f"see {layout.logs_dir}",
            )
    if ended := leftovers.end(read_state(layout) or state):
        console.print(f"ended {ended} processes that were left over")
    shutil.rmtree(state.runtime_dir, ignore_errors=True)
    layout.state_file.unlink(missing_ok=True)
    console.print("stopped")
    return 0


def gpu_pool(nvml: Nvml | None, gpus: int) -> str:
    """The pool of this machine's GPUs, one a host: `h200x1`.

    Raises:
        UnavailableError: If it has not so many, or none that the hardware table knows.
    """
    count = 0 if nvml is None else nvml.count()
    if nvml is None or count < gpus:
        raise UnavailableError(
            f"{gpus} GPUs are asked for, and NVIDIA's driver tells of {count}",
            hint="nvidia-smi shows what the driver sees",
        )
    name = nvml.read("0").name
    hardware = device_named(name)
    if hardware is None:
        raise UnavailableError(f"the hardware table has no {name}", hint="`penstock plan --help`")
    return f"{hardware.name}x1"


def _detach(layout: Layout, port: int, hosts: int, gpus: int, deploy: bool) -> int:
    """Runs the platform in a session of its own and waits until it is ready or has failed.

    The child prints to this terminal until it is ready, then to `logs/up.log`.
    """
    reading, writing = os.pipe()
    command = [
        sys.executable, "-P", "-m", "serving.cli.main", "up",
        "--port", str(port), "--data-dir", str(layout.data_dir),
        "--hosts", str(hosts), "--gpus", str(gpus),
        "--deploy" if deploy else "--no-deploy", "--ready-fd", str(writing),
    ]  # fmt: skip
    child = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, pass_fds=(writing,), start_new_session=True
    )
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        try:
            told = pipe.read()
        except KeyboardInterrupt:
            child.send_signal(SIGINT)
            child.wait()
            raise
    return int(told) if told else child.wait() or 1


def _let_go(layout: Layout, ready_fd: int, outcome: int) -> None:
    """Ends the wait of the caller of `up --detach`, and uses its terminal no more."""
    log = os.open(layout.log("up"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    sys.stdout.flush()
    sys.stderr.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    with suppress(BrokenPipeError), os.fdopen(ready_fd, "wb") as pipe:
        pipe.write(str(outcome).encode())


def _reporter(layout: Layout, started: Callable[[Started], None]) -> Reporter:
    console = output.stderr()

    def say(text: str, style: str | None = None) -> None:
        with suppress(OSError):  # the terminal may be gone, and the platform is still to be stopped
            console.print(text, style=style)

    def event(what: PartEvent) -> None:
        match what.change:
            case Change.READY:
                say(f"  {what.part:<10} ready     {what.after_s:5.1f} s")
            case Change.DIED:
                more = ": all hosts and engines start again" if what.part == "ray" else ""
                say(f"  {what.part:<10} {what.message}{more}", style="yellow")
            case Change.RESTARTED:
                say(f"  {what.part:<10} restarted")

    def log(part: str, lines: list[str]) -> None:
        say(f"the last lines of {layout.log(part)}:")
        for line in lines:
            say(f"  {line}")

    return Reporter(line=say, event=event, log=log, started=started)


def _print_summary(what: Started, layout: Layout) -> None:
    out = output.stdout()
    out.print(
        f"\nPenstock serves at {what.url} after {what.took_s:.1f} s; data in {layout.data_dir}"
    )
    if what.new_api_key or what.new_admin_key:
        out.print("\nKeys, shown this once:")
    if what.new_admin_key:
        out.print(f"  export PENSTOCK_ADMIN_KEY={what.new_admin_key}")
    if what.new_api_key:
        out.print(f"  export PENSTOCK_API_KEY={what.new_api_key}")
    if what.url != f"http://127.0.0.1:{DEFAULT_PORT}":
        out.print(f"  export PENSTOCK_URL={what.url}")
    if what.model:
        key = what.new_api_key or "$PENSTOCK_API_KEY"
        body = (
            f'{{"model": "{what.model}", "stream": true, '
            '"messages": [{"role": "user", "content": "What is Penstock?"}]}'
        )
        out.print(
            f"\nTalk to it:\n  curl -N {what.url}/v1/chat/completions "
            f'-H "Authorization: Bearer {key}" '
            f"-H 'Content-Type: application/json' -d '{body}'\n",
            soft_wrap=True,
        )


def _plain(key: SecretStr | None) -> str | None:
    return key.get_secret_value() if key else None
