"""Both ways to put files on the disk: told when they are there, and when they cannot be."""

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.gateway.disk_sync import MOST_FILES, DiskSync, KernelSync, ThreadSync, make_disk_sync


@pytest.fixture(params=[ThreadSync, KernelSync])
async def disk(request: pytest.FixtureRequest) -> DiskSync:
    make: Callable[[], DiskSync] = request.param
    try:
        return make()
    except OSError as exc:
        pytest.skip(f"this kernel does not let us: {exc}")


async def synced(disk: DiskSync, *fds: int) -> OSError | None:
    """What the disk says in the end."""
    said: asyncio.Future[OSError | None] = asyncio.get_running_loop().create_future()
    disk.sync(fds, said.set_result)
    disk.poll()
    disk.watch()
    async with asyncio.timeout(30):
        return await said


async def test_disk_tells_each_time_that_files_are_synced(disk: DiskSync, tmp_path: Path) -> None:
    paths = [tmp_path / str(number) for number in range(3)]
    fds = [os.open(path, os.O_RDWR | os.O_CREAT, 0o600) for path in paths]
    for _ in range(5):
        for fd in fds:
            os.write(fd, b"x" * 100)
        assert await synced(disk, *fds) is None
    assert await synced(disk) is None
    for fd in fds:
        os.close(fd)
    disk.close()


async def test_disk_takes_more_files_than_the_kernel_does_at_once(
    disk: DiskSync, tmp_path: Path
) -> None:
    with (tmp_path / "one").open("wb") as file:
        assert await synced(disk, *[file.fileno()] * (MOST_FILES + 2)) is None
    disk.close()


async def test_disk_tells_what_cannot_be_synced(disk: DiskSync) -> None:
    reads, writes = os.pipe()
    assert isinstance(await synced(disk, writes), OSError)
    assert isinstance(await synced(disk, writes), OSError)
    os.close(reads)
    os.close(writes)
    disk.close()


async def test_file_may_be_closed_while_it_is_synced(disk: DiskSync, tmp_path: Path) -> None:
    fd = os.open(tmp_path / "one", os.O_RDWR | os.O_CREAT, 0o600)
    os.write(fd, b"x" * 100_000)
    said: list[OSError | None] = []
    disk.sync([fd], said.append)
    os.close(fd)
    disk.close()
    await asyncio.sleep(0)
    assert said in ([], [None])


async def test_disk_tells_when_it_is_asked(disk: DiskSync, tmp_path: Path) -> None:
    said: list[OSError | None] = []
    with (tmp_path / "one").open("wb") as file:
        file.write(b"x" * 5000)
        file.flush()
        disk.sync([file.fileno()], said.append)
        async with asyncio.timeout(30):
            while not said:
                await asyncio.sleep(0.001)
                disk.poll()
    assert said == [None]
    disk.close()


async def test_some_way_is_always_there() -> None:
    make_disk_sync().close()
