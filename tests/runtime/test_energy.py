"""Energy, by made-up counters of a machine."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from bigmodel.runtime.energy import EnergyMeter

CPU = torch.device("cpu")
SPAN = 262_143_328_850  # microjoules


def domain(powercap: Path, folder: str, name: str, energy: int) -> Path:
    """A RAPL domain of a fake sysfs; gives the file that counts."""
    place = powercap / folder
    place.mkdir(parents=True)
    (place / "name").write_text(f"{name}\n")
    (place / "max_energy_range_uj").write_text(f"{SPAN}\n")
    (place / "energy_uj").write_text(f"{energy}\n")
    return place / "energy_uj"


def test_packages_and_memory_add_up_and_parts_do_not(tmp_path: Path) -> None:
    files = {
        name: domain(tmp_path, folder, name, 10_000_000)
        for folder, name in [
            ("intel-rapl:0", "package-0"),
            ("intel-rapl:0:0", "core"),
            ("intel-rapl:0:1", "dram"),
            ("intel-rapl:1", "package-1"),
            ("intel-rapl:2", "psys"),
        ]
    }
    domain(tmp_path, "dtpm", "package-9", 1)
    meter = EnergyMeter(CPU, tmp_path)
    for file in files.values():
        file.write_text("12500000\n")
    assert meter.since_lap == {"cpu": pytest.approx(3 * 2.5)}
    assert meter.lap() == {"cpu": pytest.approx(3 * 2.5)}
    assert meter.lap() == {"cpu": 0.0}


def test_a_counter_that_begins_again_goes_on(tmp_path: Path) -> None:
    file = domain(tmp_path, "intel-rapl:0", "package-0", SPAN - 2_000_000)
    meter = EnergyMeter(CPU, tmp_path)
    file.write_text("1000000")
    meter.sample()
    file.write_text("4000000")
    assert meter.lap() == {"cpu": pytest.approx(6.0)}


def test_what_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    assert EnergyMeter(CPU, tmp_path / "nowhere").lap() == {}
    file = domain(tmp_path, "intel-rapl:0", "package-0", 0)
    file.write_text("not for you")  # as if only root could read it, which a test may be
    assert EnergyMeter(CPU, tmp_path).lap() == {}
    file.write_text("1000000")
    meter = EnergyMeter(CPU, tmp_path)
    file.unlink()
    assert meter.lap() == {"cpu": 0.0}


def test_a_gpu_is_asked_by_its_identity(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = [1000, 1000, 61_000]
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByUUID=lambda uuid: uuid,
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: {"GPU-ab-1": counts.pop()}[handle],
    )
    counts.reverse()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="ab-1"))
    meter = EnergyMeter(torch.device("cuda:1"), tmp_path)
    assert meter.lap() == {"gpu": 0.0}
    assert meter.lap() == {"gpu": pytest.approx(60.0)}
    monkeypatch.setitem(sys.modules, "pynvml", None)  # not installed
    assert EnergyMeter(torch.device("cuda:1"), tmp_path).lap() == {}
