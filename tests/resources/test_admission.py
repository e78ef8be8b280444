"""Tasks that can never run on a machine are refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from localhpo.errors import TaskError
from localhpo.objective import Constraint, Objective
from localhpo.resources.admission import (
    admit_task,
    check_budget,
    check_measurable,
    check_resources,
)
from localhpo.resources.placement import Gpu, Inventory
from localhpo.task import Budget, Resources, Task

TWO_GPUS = Inventory(cpus=8, memory_mb=32_000, gpus=(Gpu("0"), Gpu("1")))
LOSS = Objective("loss")
MakeTask = Callable[..., Task]


def test_a_task_is_admitted_on_a_machine_that_can_run_it(make_task: MakeTask) -> None:
    task = make_task(resources=Resources(gpus=1))
    assert admit_task(task, TWO_GPUS) is TWO_GPUS
    with pytest.raises(TaskError, match="this machine offers 0"):
        admit_task(task, Inventory(cpus=8))


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (Resources(gpus=3), "[resources] gpus = 3 per trial, but this machine offers 2"),
        (Resources(cpus=9), "[resources] cpus = 9 per trial, but this machine offers 8"),
        (Resources(memory_mb=64_000), "memory_mb = 64000 per trial, but this machine offers 32000"),
        (Resources(gpus=1.5), "gpus must be a fraction below 1 or a whole number, got 1.5"),
    ],
)
def test_a_task_that_never_fits_is_refused(resources: Resources, message: str) -> None:
    with pytest.raises(TaskError) as error:
        check_resources(resources, TWO_GPUS)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("resources", "offers"),
    [
        (Resources(gpus=1, gpu_memory_mb=30_000), 24_000),
        (Resources(gpus=0.25, gpu_memory_mb=30_000), 24_000),
        (Resources(gpus=2, gpu_memory_mb=10_000), 8_000),
    ],
)
def test_memory_above_every_devices_size_is_refused(resources: Resources, offers: int) -> None:
    gpus = (Gpu("0", memory_mb=8_000), Gpu("1", memory_mb=24_000, foreign_mb=20_000))
    with pytest.raises(TaskError) as error:
        check_resources(resources, Inventory(cpus=8, gpus=gpus))
    assert f"gpu_memory_mb = {resources.gpu_memory_mb:g} per trial" in str(error.value)
    assert f"this machine offers {offers}" in str(error.value)
    assert error.value.hint == f"set [resources] gpu_memory_mb to {offers} or less"


def test_memory_that_some_device_may_have_is_admitted() -> None:
    gpus = (Gpu("0", memory_mb=8_000), Gpu("1", memory_mb=24_000, foreign_mb=20_000))
    check_resources(Resources(gpus=1, gpu_memory_mb=24_000), Inventory(cpus=8, gpus=gpus))
    check_resources(Resources(gpus=0, gpu_memory_mb=99_000), Inventory(cpus=8, gpus=gpus))
    check_resources(Resources(gpus=1, gpu_memory_mb=99_000), TWO_GPUS)


def test_a_missing_gpu_is_explained() -> None:
    with pytest.raises(TaskError) as error:
        check_resources(Resources(gpus=1), Inventory(cpus=2))
    assert "offers 0" in str(error.value)
    assert "localhpo doctor" in error.value.hint


def test_gpu_minutes_without_gpus_are_refused() -> None:
    with pytest.raises(TaskError, match="gpu_minutes has no effect"):
        check_budget(Budget(trials=None, gpu_minutes=5), Resources())
    check_budget(Budget(trials=None, gpu_minutes=5), Resources(gpus=0.5))


@pytest.mark.parametrize(
    ("name", "gpus", "measures_energy", "error"),
    [
        ("gpu_s", 0, True, "gpu_s: must .* trials must hold a GPU"),
        ("energy_j", 0, True, "energy_j: must .* trials must hold a GPU"),
        ("energy_j", 1, False, "energy_j: must be measured by the GPU driver"),
        ("energy_j", 1, True, ""),
        ("gpu_s", 0.5, False, ""),
        ("peak_memory_mb", 0, False, ""),
    ],
)
def test_what_cannot_be_measured_here_is_refused(
    make_task: MakeTask, name: str, gpus: float, measures_energy: bool, error: str
) -> None:
    task = make_task(resources=Resources(gpus=gpus))
    for named in (
        replace(task, objectives=(LOSS, Objective(name))),
        replace(task, constraints=(Constraint(name, max=1.0),)),
    ):
        if not error:
            check_measurable(named, measures_energy=measures_energy)
            continue
        with pytest.raises(TaskError, match=error):
            check_measurable(named, measures_energy=measures_energy)
