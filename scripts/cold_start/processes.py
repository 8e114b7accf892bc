"""What /proc tells of processes: which files they map, and how much memory is theirs."""

from pathlib import Path


def processes() -> list[int]:
    """All processes of this machine."""
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]


def maps_any(pid: int, folder: Path) -> bool:
    """Whether the process maps a file of weights below the folder."""
    try:
        text = Path(f"/proc/{pid}/maps").read_text("utf-8", "replace")
    except OSError:
        return False
    return any(str(folder) in line and ".safetensors" in line for line in text.splitlines())


def parent(pid: int) -> int | None:
    """Its parent; None: it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("ascii", "replace")
    except OSError:
        return None
    return int(status.split("PPid:")[1].split()[0])


def family(pid: int) -> list[int]:
    """A process and its children."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    except OSError:
        return []
    return [pid, *map(int, children)]


def private_mib(pid: int) -> float:
    """Memory that the process shares with none; 0 of one that is gone."""
    return _sum_kib(Path(f"/proc/{pid}/smaps_rollup"), "Private_") / 1024


def resident_mib(pid: int) -> float:
    """Memory of the process that is resident; 0 of one that is gone."""
    return _sum_kib(Path(f"/proc/{pid}/status"), "VmRSS:") / 1024


def _sum_kib(path: Path, prefix: str) -> int:
    try:
        lines = path.read_text("ascii", "replace").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith(prefix))
