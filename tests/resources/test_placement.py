from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localhpo.resources.placement import (
    Assignment,
    Gpu,
    Inventory,
    MemoryNeed,
    compute_memory_need,
    make_environment,
    place_trial,
)
from localhpo.resources.trial_slots import SlotCounter, count_concurrent_trials, count_slots
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


def test_a_trial_of_unknown_size_waits_for_a_full_device() -> None:
    full = Inventory(2, None, (Gpu("0", "", 24_000.0, 24_000.0),))
    wanted = compute_memory_need(Resources(gpus=1), full, None)
    assert place_trial(Resources(gpus=1), full, [], need=wanted) is None
    assert place_trial(Resources(gpus=1), full.without_foreign, [], need=wanted) is not None


def test_slots_follow_foreign_memory() -> None:
    inventory = Inventory(8, None, (Gpu("0", "", 24_000.0),))
    counter, nothing = SlotCounter(Resources(parallel=8, gpus=0.125), inventory), Assignment(0.0)
    wanted = MemoryNeed(gpu_memory_mb={"0": 6_000.0})
    counts = []
    for foreign_mb in (0.0, 12_000.0):
        inventory.gpus = (replace(inventory.gpus[0], foreign_mb=foreign_mb),)
        slots = counter.count_beside({"resident": nothing}, [wanted], nothing)["resident"]
        counts.append((counter.count(wanted, nothing), slots.most))
    assert counts == [(4, 4), (2, 2)]


# Exclusive trials.

GPU = Inventory(cpus=8, memory_mb=32_000, gpus=(Gpu("0", memory_mb=24_000),))
HALF, WHOLE = Resources(parallel=9, gpus=0.5), Resources(parallel=9, gpus=1)


def model(mb: float) -> Assignment:
    return Assignment(0.0, gpus=("0",), gpu_share=0.0, gpu_memory_mb=mb)


@pytest.mark.parametrize("resources", [HALF, WHOLE])
@pytest.mark.parametrize("memory_mb", [24_000.0, None])
def test_an_exclusive_trial_shares_its_device_with_no_trial(
    resources: Resources, memory_mb: float | None
) -> None:
    inventory = replace(GPU, gpus=(Gpu("0", memory_mb=memory_mb),))
    wanted = compute_memory_need(resources, inventory, math.inf)
    exclusive = place_trial(resources, inventory, [], need=wanted)
    assert exclusive == Assignment(1.0, gpus=("0",), gpu_memory_mb=memory_mb or 0.0)
    small = compute_memory_need(HALF, inventory, 10.0)
    assert place_trial(HALF, inventory, [exclusive], need=small) is None
    beside = place_trial(HALF, inventory, [], need=small)
    assert beside is not None
    assert place_trial(resources, inventory, [], need=wanted, others=[beside]) is None


def test_an_exclusive_trial_gets_what_models_leave_of_at_least_half_a_device() -> None:
    own, other = model(8_000), model(4_000)
    wanted = compute_memory_need(WHOLE, GPU, math.inf, own, [other])
    place = place_trial(WHOLE, GPU, [], need=wanted, others=[own, other])
    assert place is not None and place.gpu_memory_mb == 12_000
    large = model(9_000)  # of the 16 GB beside its own model
    wanted = compute_memory_need(WHOLE, GPU, math.inf, own, [large])
    assert place_trial(WHOLE, GPU, [], need=wanted, others=[own, large]) is None
    assert place_trial(WHOLE, GPU, [], need=wanted, others=[own]) is not None


@pytest.mark.parametrize(("foreign_mb", "starts"), [(10_000, True), (14_000, False)])
def test_an_exclusive_trial_waits_for_a_device_that_is_mostly_foreign(
    foreign_mb: float, starts: bool
) -> None:
    inventory = replace(GPU, gpus=(replace(GPU.gpus[0], foreign_mb=foreign_mb),))
    wanted = compute_memory_need(WHOLE, inventory, math.inf)
    assert (place_trial(WHOLE, inventory, [], need=wanted) is not None) is starts
    assert place_trial(WHOLE, inventory.without_foreign, [], need=wanted) is not None
