"""Measuring trials on simulated devices, and running again alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest

from localhpo.executor.clock import SimulatedClock
from localhpo.resources.broker import MODEL_CLAIM, ResourceBroker
from localhpo.resources.meter import Meter, Owner, process_owner
from localhpo.resources.nvml import DeviceReading
from localhpo.resources.placement import Assignment, Inventory

A, B = Path("/trials/0"), Path("/trials/1")
OWNERS: dict[int, Owner] = {1: A, 2: B, 3: "model", 4: None, 5: "others"}


@dataclass
class Card:
    """One device that a test moves by hand."""

    used_mb: float = 0.0
    processes: dict[int, float | None] = field(default_factory=dict)
    utilization: float | None = None
    power_w: float | None = None
    energy_j: float | None = None

    def read(self) -> Sequence[DeviceReading]:
        used_mb = max(self.used_mb, sum(mb or 0.0 for mb in self.processes.values()))
        measured = (self.utilization, self.power_w, self.energy_j)
        return [DeviceReading("GPU-a", 0, "A", 80_000, used_mb, dict(self.processes), *measured)]


class Bench:
    def __init__(self) -> None:
        self.card, self.clock = Card(), SimulatedClock()
        self.owners = dict(OWNERS)
        self.meter = Meter(self.card.read, self.clock.monotonic, self.owners.get)

    def later(self, seconds: float = 1.0) -> None:
        self.clock.sleep(seconds)
        self.meter.refresh()


def test_memory_is_attributed_by_process() -> None:
    bench = Bench()
    bench.meter.begin(A, ["0"])
    bench.meter.begin(B, ["GPU-a"])
    bench.card.processes = {1: 3000.0, 2: 500.0, 3: 9000.0, 4: 7.0}
    bench.later()
    bench.card.processes = {1: 2000.0, 2: 800.0, 3: 100.0}
    bench.later()
    assert (bench.meter.end(A).peak_mb, bench.meter.end(B).peak_mb) == (3000.0, 800.0)
    assert (bench.meter.model.peak_mb, bench.meter.model.gpu_s) == (9000.0, 2.0)


def test_a_lone_trial_is_measured_where_processes_are_unknown() -> None:
    bench = Bench()
    bench.card.used_mb = 1000
    bench.meter.begin(A, ["0"])
    bench.card.used_mb, bench.card.processes = 4500, {77: None}
    bench.later()
    assert bench.meter.end(A).peak_mb == 3500


def test_two_trials_with_unknown_processes_are_not_measured() -> None:
    bench = Bench()
    bench.meter.begin(A, ["0"])
    bench.meter.begin(B, ["0"])
    bench.card.used_mb = 4500
    bench.later()
    assert (bench.meter.end(A).peak_mb, bench.meter.end(B).peak_mb) == (None, None)


def test_energy_of_a_shared_device_is_divided() -> None:
    bench = Bench()
    bench.card.energy_j, bench.card.utilization = 100.0, 0.5
    bench.meter.begin(A, ["0"])
    bench.card.energy_j = 160.0
    bench.later()
    bench.meter.begin(B, ["0"])
    bench.card.energy_j, bench.card.utilization = 200.0, 1.0
    bench.later()
    a, b = bench.meter.end(A), bench.meter.end(B)
    assert (a.energy_j, b.energy_j) == (80.0, 20.0)
    assert (a.utilization, b.utilization) == (0.75, 1.0)


def test_the_model_gets_its_share_of_the_energy() -> None:
    bench = Bench()
    bench.card.energy_j = 100.0
    bench.meter.begin(A, ["0"])
    bench.card.energy_j, bench.card.processes = 160.0, {1: 2000.0, 3: 5000.0}
    bench.later()
    bench.card.energy_j, bench.card.processes = 200.0, {1: 2000.0}
    bench.later()
    assert (bench.meter.end(A).energy_j, bench.meter.model.energy_j) == (70.0, 30.0)
    bench.card.energy_j, bench.card.processes = 210.0, {3: 5000.0}
    bench.later()
    assert bench.meter.model.energy_j == 40.0


def test_a_reused_process_id_is_looked_up_again() -> None:
    bench = Bench()
    bench.meter.begin(A, ["0"])
    bench.card.processes = {1: 3000.0}
    bench.later()
    bench.card.processes = {}
    bench.later()
    bench.owners[1] = "others"
    bench.card.processes = {1: 9000.0}
    bench.later()
    assert bench.meter.end(A).peak_mb == 3000


def test_a_server_counts_as_the_model_once_it_is_known() -> None:
    bench = Bench()
    bench.card.processes = {5: 6000.0}
    bench.later()
    assert bench.meter.model.peak_mb is None
    bench.owners[5] = "model"
    bench.later()
    assert bench.meter.model.peak_mb == 6000


def test_a_server_of_another_study_counts_as_the_model(tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    nested = [sys.executable, "-c", "import subprocess, sys; subprocess.run(sys.argv[1:])"]
    with subprocess.Popen([*nested, sys.executable, "-c", "input()"], stdin=pipe) as server:
        while not (children := psutil.Process(server.pid).children()):
            time.sleep(0.01)
        # Another study has started it: this process does not descend from us.
        family = [os.getppid(), os.getpid()]
        assert process_owner(os.getpid()) == "model"
        assert process_owner(family[0]) == "others"
        study = ResourceBroker("a", Inventory(cpus=1), server_pid=lambda: family[0])
        study.update_claim(MODEL_CLAIM, Assignment(0.0))
        assert process_owner(family[0]) == "model"
        study.close()
        assert process_owner(family[0]) == "others"
        assert process_owner(children[0].pid) == "model"
        server.communicate(b"\n")
    assert process_owner(server.pid) is None


def test_energy_is_power_times_time_without_a_counter() -> None:
    bench = Bench()
    bench.card.power_w = 250.0
    bench.meter.begin(A, ["0"])
    bench.later(4.0)
    assert bench.meter.end(A).energy_j == 1000.0


def test_nothing_is_measured_without_devices() -> None:
    meter = Meter(None)
    meter.begin(A, ["0"])
    use = meter.end(A)
    assert (use.peak_mb, use.energy_j, use.utilization) == (None, None, None)


@pytest.mark.parametrize(
    ("ours", "other", "expected"),
    [(["0"], ["0"], True), (["0"], ["1"], False), ([], [], True), ([], ["0"], False)],
)
def test_trials_share_only_a_common_device(
    ours: list[str], other: list[str], expected: bool
) -> None:
    bench = Bench()
    bench.meter.begin(A, ours)
    bench.meter.begin(B, other)
    bench.meter.end(B)  # it was there
    assert bench.meter.has_shared(A) is expected


def test_a_trial_beside_the_model_shares_its_device() -> None:
    bench = Bench()
    bench.meter.begin(A, ["0"])
    bench.card.processes = {1: 10.0, 3: 5000.0}
    bench.later()
    assert bench.meter.has_shared(A)


def test_a_trial_without_memory_shares_with_other_programs() -> None:
    bench = Bench()
    bench.meter.begin(A, ["0"])
    bench.card.processes = {5: 70_000.0}  # and the trial found nothing left
    assert bench.meter.has_shared(A)
    assert bench.meter.end(A).peak_mb is None  # what grew is theirs


def test_a_process_that_cannot_be_looked_up_counts_as_the_trial() -> None:
    bench = Bench()
    bench.meter.begin(A, ["0"])
    bench.card.processes = {4: 70_000.0}
    assert not bench.meter.has_shared(A)
    assert bench.meter.end(A).peak_mb == 70_000


# The second chance.


def test_only_a_device_that_tells_its_power_measures_energy() -> None:
    assert Meter(Card(power_w=200.0).read).measures_energy
    assert not Meter(Card().read).measures_energy
    assert not Meter(None).measures_energy
