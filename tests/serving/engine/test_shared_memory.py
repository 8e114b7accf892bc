"""Shared memory that an engine leaves is removed by its name."""

import subprocess
import sys
from pathlib import Path

from serving.engine import shared_memory

CREATE = """
import sys
from pathlib import Path
from multiprocessing import resource_tracker, shared_memory as python
from serving.engine import shared_memory
shared_memory.name_after(Path(sys.argv[1]))
made = python.SharedMemory(create=True, size=64)
resource_tracker.unregister(made._name, "shared_memory")  # as if killed with its tracker
print(made.name)
"""


def test_shared_memory_of_a_killed_engine_is_removed_and_no_other(tmp_path: Path) -> None:
    mine, other = tmp_path / "tmpabcd1234", tmp_path / "tmpabcd1235"
    made = {}
    for scratch in (mine, other):
        scratch.mkdir()
        command = [sys.executable, "-c", CREATE, str(scratch)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        made[scratch] = shared_memory.FOLDER / done.stdout.strip()
    assert made[mine].exists()
    shared_memory.remove(mine)
    assert not made[mine].exists()
    assert made[other].exists()
    shared_memory.remove(other)
    assert not made[other].exists()


def test_what_ranks_share_after_a_rendezvous_is_removed(tmp_path: Path) -> None:
    scratch, folder = tmp_path / "tmpabcd", tmp_path / "shm"
    for path in (scratch, folder):
        path.mkdir()
    (scratch / "vllm_dist_77aa").touch()
    name = shared_memory.rendezvous_of(scratch, "88bb").rpartition("/")[2]
    left = ("vllm_dist_77aa-tp:0-[0-1]-cpushm_0", f"{name}-tp:0-[0-1]-cpushm_1", "psm_another")
    left = (*left, "sem.penstock-tmpabcd-x")
    for file in left:
        (folder / file).touch()
    shared_memory.remove(scratch, folder)
    assert [path.name for path in folder.iterdir()] == ["psm_another"]
