"""Pods without Kubernetes: what the chart renders, run as processes with namespaces of their own.

A pod gets a network namespace with an address on a bridge, a hostname, processes that nobody else
sees, its volumes at their places, and a root file system that is read-only: all of it as the
kubelet would, from the rendered pod. What KubeRay adds to Ray's pods is added here too. Not done
here: the user (all run as the caller, who must be root), resource limits, network policies.
"""

import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.helm.chart import Resource


def path_of(python: Path) -> str:
    """PATH of an image with this Python."""
    return f"{python.parent}:/usr/bin:/bin:/usr/sbin:/sbin"


IMAGE_ENVIRONMENT = {
    "PATH": path_of(Path(sys.executable)), "HOME": "/tmp", "PYTHONUNBUFFERED": "1",
}  # fmt: skip
WORKDIR = "/srv"

SCRIPT = """
set -eu
ip link set lo up
hostname {name}
# Folders above the volumes' places, which an image would have.
mkdir -p {folder}/etc/upper {folder}/etc/work
mount -t overlay overlay -o lowerdir=/etc,upperdir={folder}/etc/upper,workdir={folder}/etc/work /etc
mount --bind {hosts} /etc/hosts
for folder in {above}; do mount -t tmpfs tmpfs "$folder"; done
{mounts}
mount -o remount,bind,ro /
cd {workdir}
exec "$@"
"""


def obstacle() -> str | None:
    """Why no pods can be run here; None where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for program in ("ip", "unshare", "nsenter", "mount", "hostname"):
        if shutil.which(program) is None:
            return f"there is no {program}"
    name = f"ps{secrets.token_hex(3)}"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode:
        return "network namespaces cannot be made here"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return None


@dataclass
class Network:
    """A bridge, and a namespace for each pod on it; the caller is at `.1`."""

    folder: Path
    tag: str = field(default_factory=lambda: secrets.token_hex(3))
    names: dict[str, str] = field(default_factory=dict)
    """Names of services and pods to addresses."""

    def __post_init__(self) -> None:
        self.prefix = f"10.213.{secrets.randbelow(250) + 1}"
        self.bridge = f"ps{self.tag}"
        ip("link", "add", self.bridge, "type", "bridge")
        ip("address", "add", f"{self.prefix}.1/24", "dev", self.bridge)
        ip("link", "set", self.bridge, "up")

    @property
    def gateway(self) -> str:
        """The caller's own address."""
        return f"{self.prefix}.1"

    def add(self, name: str) -> str:
        """A namespace for a pod; returns its address."""
        number = len([n for n in self.names.values() if n != self.gateway]) + 2
        address, space = f"{self.prefix}.{number}", f"{self.bridge}-{number}"
        outer, inner = f"v{self.tag}{number}", f"w{self.tag}{number}"
        ip("netns", "add", space)
        ip("link", "add", outer, "type", "veth", "peer", "name", inner)
        ip("link", "set", outer, "master", self.bridge, "up")
        ip("link", "set", inner, "netns", space)
        ip("-n", space, "address", "add", f"{address}/24", "dev", inner)
        ip("-n", space, "link", "set", inner, "up")
        ip("-n", space, "link", "set", "lo", "up")
        self.names[name] = address
        return address

    def space(self, name: str) -> str:
        """The name of a pod's namespace."""
        return f"{self.bridge}-{self.names[name].rpartition('.')[2]}"

    def hosts_file(self) -> Path:
        """All names, as the cluster's DNS would know them."""
        lines = ["127.0.0.1 localhost", *(f"{at} {name}" for name, at in self.names.items())]
        path = self.folder / "hosts"
        path.write_text("\n".join(lines) + "\n")
        return path

    def remove(self) -> None:
        """Takes all of it down."""
        for name in list(self.names):
            if self.names[name] != self.gateway:
                ip("netns", "delete", self.space(name), check=False)
        ip("link", "delete", self.bridge, check=False)


def ip(*arguments: str, check: bool = True) -> None:
    """Calls `ip`."""
    subprocess.run(["ip", *arguments], check=check, capture_output=True)


@dataclass
class Pod:
    """One pod of the chart."""

    name: str
    spec: Resource
    network: Network
    given: Mapping[str, Mapping[str, str]]
    """Secrets and ConfigMaps by name."""
    added: Mapping[str, str] = field(default_factory=dict)
    """Environment that an operator adds, and PATH where it is that of another image."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> Path:
        return self.network.folder / self.name

    @property
    def log(self) -> Path:
        return self.folder / "log"

    def run_to_end(self, container: Resource, timeout_s: float = 120) -> str:
        """Runs an init container or a job; returns what it says.

        Raises:
            AssertionError: If it fails.
        """
        done = subprocess.run(
            self.command(container), env=self.environment(container), timeout=timeout_s,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{self.name}/{container['name']}: {done.stderr}"
        return done.stdout

    def start(self) -> None:
        """Runs the init containers to their end, then starts the container."""
        for container in self.spec.get("initContainers", []):
            self.run_to_end(container)
        (container,) = self.spec["containers"]
        command, environment = self.command(container), self.environment(container)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )

    def ask_to_end(self) -> None:
        """SIGTERM to its first process, as the kubelet does."""
        assert self.process is not None
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        first = children.read_text().split() if children.exists() else []
        for pid in first:
            os.kill(int(pid), signal.SIGTERM)

    def kill(self) -> None:
        """Ends all of it at once: its processes die with the first one of their namespace."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def command(self, container: Resource) -> list[str]:
        """The container's command within the pod's namespaces."""
        self.folder.mkdir(exist_ok=True)
        places = {str(Path(m["mountPath"]).parent) for m in container.get("volumeMounts", [])}
        above = places & {"/var/lib", "/var/cache", "/var/log", "/run"}
        script = SCRIPT.format(
            name=self.name,
            hosts=self.network.hosts_file(),
            folder=self.folder,
            above=" ".join(above),
            mounts="\n".join(self._mounts(container)),
            workdir=WORKDIR,
        )  # fmt: skip
        return [
            "nsenter", f"--net=/var/run/netns/{self.network.space(self.name)}",
            "unshare", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc",
            "bash", "-c", script, "pod", *container["command"], *container.get("args", []),
        ]  # fmt: skip

    def _mounts(self, container: Resource) -> list[str]:
        volumes = {volume["name"]: volume for volume in self.spec.get("volumes", [])}
        lines = []
        # /tmp at last: the volumes' sources are below it.
        mounts = sorted(container.get("volumeMounts", []), key=lambda m: m["mountPath"] == "/tmp")
        for mount in mounts:
            where = shlex.quote(mount["mountPath"])
            source = shlex.quote(str(self._source(mount["name"], volumes)))
            flags = "--options bind,ro" if mount.get("readOnly") else "--bind"
            lines.append(f"mkdir -p {where} && mount {flags} {source} {where}")
        return lines

    def _source(self, name: str, volumes: Mapping[str, Resource]) -> Path:
        source = self.folder / "volumes" / name
        source.mkdir(parents=True, exist_ok=True)
        volume = volumes.get(name, {})
        if "secret" in volume:
            secret = self.given[volume["secret"]["secretName"]]
            for item in volume["secret"]["items"]:
                (source / item["path"]).write_text(secret[item["key"]])
        elif "configMap" in volume:
            for key, text in self.given[volume["configMap"]["name"]].items():
                (source / key).write_text(text)
        return source

    def environment(self, container: Resource) -> dict[str, str]:
        """The image's, the operator's, and the container's own."""
        own = {entry["name"]: self._value(entry) for entry in container.get("env", [])}
        return (
            IMAGE_ENVIRONMENT | dict(self.added) | {k: v for k, v in own.items() if v is not None}
        )

    def _value(self, entry: dict[str, Any]) -> str | None:
        if "value" in entry:
            return str(entry["value"])
        source = entry["valueFrom"]
        if "fieldRef" in source:
            assert source["fieldRef"]["fieldPath"] == "status.podIP"
            return self.network.names[self.name]
        wanted = source["secretKeyRef"]
        found = self.given.get(wanted["name"], {}).get(wanted["key"])
        assert found is not None or wanted.get("optional"), f"no secret {wanted}"
        return found


def ray_environment(start: Mapping[str, str], token: str, head: str | None) -> dict[str, str]:
    """What KubeRay adds to a pod of Ray: its token, and the command it has made.

    Args:
        start: The group's rayStartParams.
        token: Ray's token, by authOptions.
        head: Name of the head's service; None for the head itself.
    """
    options = [f"--{name}={value}" for name, value in sorted(start.items())]
    options += ["--dashboard-agent-listen-port=52365", "--block"]
    who = ["--head"] if head is None else [f"--address={head}:6379"]
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": token,
        "RAY_PORT": "6379",
        "RAY_ADDRESS": "127.0.0.1:6379" if head is None else f"{head}:6379",
        "KUBERAY_GEN_RAY_START_CMD": " ".join(["ray", "start", *who, *options]),
    }
