"""An engine's adapters: loaded, withdrawn before they go, tried again; never the engine's end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from models.errors import SourceError, UpstreamError
from models.manifest import AdapterSpec, Manifest, parse_manifest
from models.sources import Have
from serving.engine.adapters import AdapterKeeper
from serving.protocol import AdapterReport
from tests.models.adapter_files import write_adapter, write_base
from tests.serving.engine.fakes import FakeWeights


class FakePort:
    """An engine that notes what it is asked, and refuses what it is told to."""

    def __init__(self) -> None:
        self.loaded: dict[str, Path] = {}
        self.refuses: set[str] = set()
        self.asked: list[str] = []

    async def load_adapter(self, name: str, folder: Path) -> None:
        self.asked.append(f"+{name}")
        if name in self.refuses:
            raise UpstreamError("the engine refused the adapter")
        assert name not in self.loaded
        self.loaded[name] = folder

    async def unload_adapter(self, name: str) -> None:
        self.asked.append(f"-{name}")
        del self.loaded[name]


class AdapterWeights(FakeWeights):
    """Counts the folders that are in use."""

    def __init__(self) -> None:
        super().__init__()
        self.in_use = 0

    async def have_adapter(self, manifest: Manifest, adapter: AdapterSpec) -> Have:
        folder = Path(adapter.source.removeprefix("file://"))
        if not folder.is_dir():
            raise SourceError("it is not there")
        self.in_use += 1
        return _Counted(folder, self)


class _Counted(Have):
    def __init__(self, folder: Path, weights: AdapterWeights) -> None:
        super().__init__(folder)
        self._weights = weights

    def release(self) -> None:
        self._weights.in_use -= 1


class Kept:
    """A keeper at work, whose reports the test waits for."""

    def __init__(self, tmp_path: Path) -> None:
        self.base = write_base(tmp_path / "base")
        self.port, self.weights = FakePort(), AdapterWeights()
        manifest = parse_manifest(
            {"name": "tiny", "source": "file:///weights", "engine": {"lora": {}}}
        )
        self.keeper = AdapterKeeper(manifest, self.weights, withdraw_s=0.0, retry_s=0.01)

    async def until(self, holds: Callable[[tuple[AdapterReport, ...]], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds(self.keeper.reports):
                await self.keeper.changed.wait()
                self.keeper.changed.clear()


@asynccontextmanager
async def keeping(tmp_path: Path) -> AsyncIterator[Kept]:
    kept = Kept(tmp_path)
    task = asyncio.create_task(kept.keeper.run(kept.port, kept.base))
    try:
        yield kept
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await kept.keeper.close()
        assert kept.weights.in_use == 0


def adapter(folder: Path, name: str = "pirate") -> AdapterSpec:
    return AdapterSpec(name=name, source=folder.as_uri())


def is_loaded(spec: AdapterSpec) -> Callable[[tuple[AdapterReport, ...]], bool]:
    return lambda told: AdapterReport(name=spec.name, source=spec.source) in told


async def test_adapters_come_and_go_as_they_are_wanted(tmp_path: Path) -> None:
    one, two = adapter(write_adapter(tmp_path / "1")), adapter(write_adapter(tmp_path / "2"), "cat")
    async with keeping(tmp_path) as kept:
        kept.keeper.want((one, two))
        await kept.until(lambda told: is_loaded(one)(told) and is_loaded(two)(told))
        async with asyncio.timeout(10):
            await kept.keeper.settled.wait()
        assert set(kept.port.loaded) == {"tiny:pirate", "tiny:cat"}
        kept.keeper.want((two,))
        assert [told.name for told in kept.keeper.reports] == ["cat"], "gateways know it first"
        async with asyncio.timeout(10):
            while "tiny:pirate" in kept.port.loaded:  # noqa: ASYNC110, the fake sets no event
                await asyncio.sleep(0.001)
        assert kept.weights.in_use == 1


async def test_other_source_takes_the_place_of_the_first(tmp_path: Path) -> None:
    old, new = adapter(write_adapter(tmp_path / "1")), adapter(write_adapter(tmp_path / "2"))
    async with keeping(tmp_path) as kept:
        kept.keeper.want((old,))
        await kept.until(is_loaded(old))
        kept.keeper.want((new,))
        await kept.until(is_loaded(new))
        assert kept.port.asked == ["+tiny:pirate", "-tiny:pirate", "+tiny:pirate"]
        assert kept.port.loaded["tiny:pirate"].name == "2"


async def test_adapter_that_does_not_fit_is_told_of_and_never_reaches_the_engine(
    tmp_path: Path,
) -> None:
    wrong, fits = adapter(write_adapter(tmp_path / "1", width=16)), write_adapter(tmp_path / "2")
    other = adapter(fits, "cat")
    async with keeping(tmp_path) as kept:
        kept.keeper.want((wrong, other))
        await kept.until(lambda told: is_loaded(other)(told) and len(told) == 2)
        (report,) = [told for told in kept.keeper.reports if told.name == "pirate"]
        assert not report.source and "another base model" in str(report.error) and report.hint
        assert kept.port.asked == ["+tiny:cat"]


async def test_adapter_that_could_not_be_had_is_tried_again(tmp_path: Path) -> None:
    late = adapter(tmp_path / "late")
    async with keeping(tmp_path) as kept:
        kept.keeper.want((late,))
        await kept.until(lambda told: any(one.error for one in told))
        assert kept.keeper.settled.is_set() or not kept.port.loaded
        write_adapter(tmp_path / "late")
        await kept.until(is_loaded(late))


async def test_refusal_of_the_engine_is_reported(tmp_path: Path) -> None:
    spec = adapter(write_adapter(tmp_path / "1"))
    async with keeping(tmp_path) as kept:
        kept.port.refuses.add("tiny:pirate")
        kept.keeper.want((spec,))
        await kept.until(lambda told: any("refused" in str(one.error) for one in told))
        kept.port.refuses.clear()
        await kept.until(is_loaded(spec))
