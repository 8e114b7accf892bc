"""What the driver tells, and what becomes of it where there is none, or it fails."""

import pytest

from serving.engine.nvml import STALE_S, GpuWatch, Nvml, NvmlError, open_nvml
from tests.serving.engine.fake_nvml import Device, FakeNvml


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Still(GpuWatch):
    """Reads only when it is told to."""

    def _read_forever(self) -> None:
        return


def test_device_is_read_in_units_of_the_platform() -> None:
    nvml = Nvml(FakeNvml(Device()))
    reading = nvml.read("0")
    assert (nvml.count(), nvml.driver()) == (1, "580.159.04")
    assert reading.name == "NVIDIA H200"
    assert reading.memory_used_bytes == 10 * 2**30
    assert reading.memory_total_bytes == 140 * 2**30
    assert reading.utilisation == 0.97
    assert (reading.power_w, reading.power_limit_w) == (650.5, 700.0)
    assert (reading.sm_mhz, reading.sm_max_mhz, reading.memory_mhz) == (1980, 1980, 3201)


def test_device_is_found_by_its_uuid_too() -> None:
    nvml = Nvml(FakeNvml(Device(uuid="GPU-a"), Device(uuid="GPU-b", used=7)))
    assert nvml.read("GPU-b").memory_used_bytes == 7


def test_what_a_device_does_not_tell_is_none() -> None:
    reading = Nvml(FakeNvml(Device(busy=None, power_mw=None))).read("0")
    assert reading.utilisation is None
    assert reading.power_w is None


def test_unknown_device_is_an_error_that_names_the_call() -> None:
    with pytest.raises(NvmlError, match="HandleByIndex"):
        Nvml(FakeNvml(Device())).read("3")


def test_driver_that_does_not_start_is_an_error() -> None:
    with pytest.raises(NvmlError, match="code 9"):
        Nvml(FakeNvml(init=9))


def test_machine_without_a_driver_has_none() -> None:
    assert open_nvml("libno-such-driver.so.1") is None


def test_closing_lets_go_of_the_driver() -> None:
    library = FakeNvml(Device())
    Nvml(library).close()
    assert not library.is_open


def test_watch_tells_nothing_before_the_first_reading_nor_of_a_driver_that_hangs() -> None:
    clock = Clock()
    watch = Still(Nvml(FakeNvml(Device())), ("0",), clock)
    assert watch.readings() == ()
    watch.read()
    assert [one.gpu for one in watch.readings()] == ["0"]
    assert watch.reports()[0].utilisation == 0.97
    clock.now_s += STALE_S + 0.1
    assert watch.readings() == ()


def test_lost_device_does_not_cost_the_others() -> None:
    watch = Still(Nvml(FakeNvml(Device(lost=True), Device())), ("0", "1"))
    watch.read()
    assert [one.gpu for one in watch.readings()] == ["1"]


@pytest.mark.parametrize("gpus", [(), ("0",)])
def test_watch_without_a_driver_or_without_devices_is_silent(gpus: tuple[str, ...]) -> None:
    watch = GpuWatch(None if gpus else Nvml(FakeNvml(Device())), gpus)
    watch.read()
    assert watch.readings() == ()
