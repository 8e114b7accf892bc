"""One node of a cluster in one container: its launcher, and Ray's worker beside it.

    python -m serving.cli.node [COMMAND...]

runs Ray's command (by default what KubeRay has left in KUBERAY_GEN_RAY_START_CMD) and, started
before it, the launcher, whose imports take the longest. Ends when Ray ends, with its status; starts
the launcher again when that dies, and hosts then get new engines from it. Asked to end, it first
has Ray take the node out of service and waits until its engines are gone, which drain meanwhile;
asked twice, it waits no more. As the first process of a container it reaps whatever is left to it.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from models.errors import BadRequestError, PenstockError
from serving import logs
from serving.cli.parts import restart_delay_s
from serving.open_files import allow_many
from serving.settings import HostSettings

COMMAND_VARIABLE = "KUBERAY_GEN_RAY_START_CMD"
LAUNCHER = (sys.executable, "-m", "serving.engine.launcher")
TICK_S = 0.1
STEADY_S = 60.0
"""A launcher that ran this long has started well: its earlier deaths are forgotten."""
STOP_TIMEOUT_S = 30.0
DRAIN_SLACK_S = 10.0
"""Beyond the drain itself, from Ray's being asked to the last process of an engine."""
ASK_TIMEOUT_S = 15.0

log = logs.get_logger("penstock.node")


@dataclass(slots=True)
class Node:
    """The two processes; times are monotonic seconds."""

    ray_command: Sequence[str]
    launcher_command: Sequence[str] = LAUNCHER
    drain_command: Sequence[str] | None = None
    """Has Ray take the node out of service; None where that is not possible."""
    drain_timeout_s: float = 0.0
    ray: subprocess.Popen[bytes] | None = None
    launcher: subprocess.Popen[bytes] | None = None
    launcher_deaths: int = 0
    launcher_start_s: float = 0.0
    stop_asked: int = 0
    statuses: dict[int, int] = field(default_factory=dict)

    def run(self) -> int:
        """Runs until Ray ends or the process is told to; returns the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask_to_stop)
        self._start_launcher()
        self.ray = subprocess.Popen(self.ray_command)
        log.info("started", launcher=self.launcher.pid if self.launcher else None, ray=self.ray.pid)
        while not self.stop_asked:
            self._reap()
            if self.ray.pid in self.statuses:
                break
            self._look_after_launcher()
            time.sleep(TICK_S)
        return self._end()

    def _ask_to_stop(self, _number: int, _frame: object) -> None:
        self.stop_asked += 1

    def _start_launcher(self) -> None:
        self.launcher = subprocess.Popen(self.launcher_command)
        self.launcher_start_s = time.monotonic()

    def _look_after_launcher(self) -> None:
        now_s = time.monotonic()
        if self.launcher is None:
            if now_s >= self.launcher_start_s:
                self._start_launcher()
        elif self.launcher.pid in self.statuses:
            steady = now_s - self.launcher_start_s > STEADY_S
            self.launcher_deaths = 1 if steady else self.launcher_deaths + 1
            delay_s = restart_delay_s(self.launcher_deaths)
            log.warning("launcher_died", status=self.statuses[self.launcher.pid], again_in=delay_s)
            self.launcher, self.launcher_start_s = None, now_s + delay_s

    def _reap(self, helper: "subprocess.Popen[bytes] | None" = None) -> None:
        """Takes in every child that has ended, also those that were left to us."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            for child in (self.ray, self.launcher, helper):
                if child is not None and child.pid == pid:
                    child.returncode = os.waitstatus_to_exitcode(status)
                    self.statuses[pid] = child.returncode

    def _drain(self) -> None:
        """Has the engines drained, and waits until they are gone."""
        if self.drain_command is None or self.launcher is None:
            return
        asking = subprocess.Popen(self.drain_command)
        if not self._wait(lambda: asking.pid in self.statuses, ASK_TIMEOUT_S, asking):
            asking.kill()
        elif self.statuses[asking.pid] == 0:
            launcher = self.launcher.pid
            within_s = self.drain_timeout_s + DRAIN_SLACK_S
            drained = self._wait(lambda: not _has_children(launcher), within_s)
            log.info("drained", whole=drained)

    def _wait(
        self,
        done: Callable[[], bool],
        within_s: float,
        helper: "subprocess.Popen[bytes] | None" = None,
    ) -> bool:
        """Whether it is done in time; reaps meanwhile, and gives up when it is asked again."""
        deadline_s = time.monotonic() + within_s
        while not done() and time.monotonic() < deadline_s and self.stop_asked < 2:
            self._reap(helper)
            time.sleep(TICK_S)
        return done()

    def _end(self) -> int:
        """Ray first, whose hosts give their engines back; then the launcher, with what is left."""
        if self.stop_asked:
            self._drain()
        for child in (self.ray, self.launcher):
            if child is None:
                continue
            if child.pid not in self.statuses:
                child.send_signal(signal.SIGTERM)
            deadline_s = time.monotonic() + STOP_TIMEOUT_S
            while child.pid not in self.statuses and time.monotonic() < deadline_s:
                self._reap()
                time.sleep(TICK_S)
            if child.pid not in self.statuses:
                child.kill()
                child.wait()
        if self.stop_asked or self.ray is None:
            return 0
        status = self.statuses.get(self.ray.pid, 1)
        return status if status > 0 else 1  # Ray ended by itself: the node has failed


def ray_command(arguments: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Ray's command line.

    Raises:
        BadRequestError: If there is none.
    """
    command = list(arguments) or shlex.split(environment.get(COMMAND_VARIABLE, ""))
    if not command:
        raise BadRequestError(
            "no command for Ray was given",
            hint=f"KubeRay sets {COMMAND_VARIABLE}; elsewhere give it as arguments, as "
            "`python -m serving.cli.node ray start --address HOST:6379 --block`",
        )
    return command


def drain_command(settings: HostSettings) -> list[str]:
    """Has Ray take this node out of service; imported in a process of its own, as Ray is large."""
    # No longer than the drain itself: Serve stops replicas at once where a node has less time left
    # than their own way down takes.
    seconds = str(settings.drain_timeout_s)
    return [sys.executable, "-m", "serving.cli.ray_drain", settings.engine_address, seconds]


def _has_children(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).children())
    except psutil.NoSuchProcess:
        return False


def make_folders(settings: HostSettings, environment: Mapping[str, str]) -> None:
    """Makes the folders of a node, which may be fresh volumes.

    Raises:
        BadRequestError: If one cannot be made, as where a host path is not ours.
    """
    home = environment.get("HOME")
    for folder in (settings.cache_dir, settings.log_dir, *([Path(home)] if home else [])):
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as exc:
            raise BadRequestError(
                f"cannot make the folder {folder}: {exc.strerror}",
                hint=f"it must be writable for user {os.getuid()}",
            ) from exc


def main() -> int:
    """The process; returns its exit status."""
    logs.configure("node")
    allow_many()
    try:
        if sys.argv[1:] in (["--help"], ["-h"]):
            sys.stdout.write(__doc__ or "")
            return 0
        command = ray_command(sys.argv[1:], os.environ)
        settings = HostSettings.load()
        make_folders(settings, os.environ)
        node = Node(command)
        if "RAY_ADDRESS" in os.environ:
            node.drain_timeout_s = settings.drain_timeout_s
            node.drain_command = drain_command(settings)
        return node.run()
    except PenstockError as exc:
        log.error("cannot_start", error=str(exc), hint=exc.hint)
        return exc.exit_code


if __name__ == "__main__":
    sys.exit(main())
