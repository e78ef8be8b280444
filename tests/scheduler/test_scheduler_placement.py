from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localhpo.errors import TaskError
from localhpo.resources.admission import check_resources
from localhpo.resources.placement import (
    Assignment,
    Gpu,
    Inventory,
    MemoryNeed,
    make_environment,
    place_trial,
)
from localhpo.resources.trial_slots import count_concurrent_trials, count_slots
from localhpo.task import Resources

TWO_GPUS = Inventory(cpus=8, memory_mb=32_000, gpus=(Gpu("0"), Gpu("1")))


def fill(resources: Resources, inventory: Inventory) -> list[Assignment]:
    held: list[Assignment] = []
    while (assignment := place_trial(resources, inventory, held)) is not None:
        held.append(assignment)
    return held


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        (Resources(parallel=3), 3),
        (Resources(parallel=20), 8),
        (Resources(parallel=20, cpus=3), 2),
        (Resources(parallel=20, cpus=0.5), 16),
        (Resources(parallel=20, gpus=1), 2),
        (Resources(parallel=20, gpus=2), 1),
        (Resources(parallel=20, gpus=0.5, cpus=0.1), 4),
        (Resources(parallel=20, gpus=1 / 3, cpus=0.1), 6),
        (Resources(parallel=20, gpus=0.6), 2),
        (Resources(parallel=20, memory_mb=10_000), 3),
    ],
)
def test_as_many_trials_run_as_fit(resources: Resources, expected: int) -> None:
    assert count_slots(resources, TWO_GPUS) == expected


def test_trials_of_mixed_sizes_run_in_turn() -> None:
    resources, host = Resources(parallel=20), Inventory(cpus=8, memory_mb=10_000)
    small, large = MemoryNeed(memory_mb=1_000), MemoryNeed(memory_mb=8_000)
    assert count_concurrent_trials(resources, host, [small]) == [8]  # cores
    assert count_concurrent_trials(resources, host, [large, large, small]) == [1, 2, 2]
    assert count_concurrent_trials(resources, host, [small, MemoryNeed(memory_mb=11_000)]) == [0]


def test_unknown_memory_limits_nothing() -> None:
    assert count_slots(Resources(parallel=3, memory_mb=10_000), Inventory(cpus=8)) == 3


def test_whole_gpus_belong_to_one_trial() -> None:
    assert [a.gpus for a in fill(Resources(parallel=9, gpus=1), TWO_GPUS)] == [("0",), ("1",)]
    assert [a.gpus for a in fill(Resources(parallel=9, gpus=2), TWO_GPUS)] == [("0", "1")]


def test_fractions_share_devices_and_spread_over_them() -> None:
    held = fill(Resources(parallel=9, gpus=0.5), TWO_GPUS)
    assert [a.gpus for a in held] == [("0",), ("1",), ("0",), ("1",)]
    assert [a.gpu_total for a in held] == [0.5] * 4


def test_a_freed_device_is_assigned_again() -> None:
    resources = Resources(parallel=9, gpus=1)
    held = fill(resources, TWO_GPUS)
    again = place_trial(resources, TWO_GPUS, held[1:])
    assert again is not None
    assert again.gpus == ("0",)


@given(
    parallel=st.integers(1, 20),
    cpus=st.floats(0.1, 10),
    gpus=st.one_of(st.floats(0.05, 1.0), st.integers(0, 4)),
    memory_mb=st.one_of(st.none(), st.floats(100, 40_000)),
)
def test_nothing_is_ever_assigned_twice(
    parallel: int, cpus: float, gpus: float, memory_mb: float | None
) -> None:
    resources = Resources(parallel=parallel, cpus=cpus, gpus=gpus, memory_mb=memory_mb)
    held = fill(resources, TWO_GPUS)
    assert len(held) <= parallel
    assert sum(a.cpus for a in held) <= TWO_GPUS.cpus + 1e-6
    assert sum(a.memory_mb for a in held) <= 32_000
    for gpu in TWO_GPUS.gpus:
        assert sum(a.gpu_share for a in held if gpu.id in a.gpus) <= 1 + 1e-6
    assert all(len(set(a.gpus)) == len(a.gpus) for a in held)


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


def test_a_trial_sees_only_its_assigned_devices() -> None:
    assignment = Assignment(cpus=2.5, gpus=("GPU-a", "GPU-b"))
    expected = {"OMP_NUM_THREADS": "2", "CUDA_VISIBLE_DEVICES": "GPU-a,GPU-b"}
    assert make_environment(assignment, {}) == expected


@pytest.mark.parametrize(
    ("ids", "user", "order"),
    [
        (("1",), {}, "PCI_BUS_ID"),
        (("1",), {"CUDA_DEVICE_ORDER": "FASTEST_FIRST"}, None),
        (("GPU-a",), {}, None),  # which is the same in any order
        (("abc/0",), {}, None),  # of a cluster, which sets it for its trials
        ((), {}, None),
    ],
)
def test_devices_are_indexed_as_in_nvidia_smi(
    ids: tuple[str, ...], user: dict[str, str], order: str | None
) -> None:
    assert make_environment(Assignment(1.0, gpus=ids), user).get("CUDA_DEVICE_ORDER") == order


def test_a_number_of_threads_set_by_the_user_is_kept() -> None:
    assert make_environment(Assignment(cpus=1), {"OMP_NUM_THREADS": "4"}) == {}


def test_a_fraction_of_a_cpu_is_one_thread() -> None:
    assert make_environment(Assignment(cpus=0.25), {}) == {"OMP_NUM_THREADS": "1"}
