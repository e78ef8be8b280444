"""The forecast of how long the remaining trials take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from localhpo.scheduler.forecast import MAX_SIMULATED, SharingPlan, estimate_remaining_s

STAYS = SharingPlan(
    slots_resident=4,
    slots_offloaded=4,
    slots_elsewhere=0,
    slots=4,
    prefetch=4,
    trial_s=100,
    propose_s=1,
)
OFFLOADS = replace(STAYS, slots_resident=1, offload_s=5, restore_s=10)


def test_slots_share_the_trials() -> None:
    assert estimate_remaining_s(STAYS, 40) == pytest.approx(40 * 100 / 4 + 50, rel=0.06)
    one = replace(STAYS, slots_resident=1, slots_offloaded=1, slots=1)
    assert estimate_remaining_s(one, 40) == pytest.approx(40 * 100, rel=0.02)


def test_offloading_delays_trials_by_its_duration() -> None:
    stays = estimate_remaining_s(STAYS, 40)
    assert estimate_remaining_s(OFFLOADS, 40) > stays + 2 * 16
    slow = replace(OFFLOADS, restore_s=110)  # it is restored for eight trials at once
    assert estimate_remaining_s(slow, 40) - estimate_remaining_s(OFFLOADS, 40) == pytest.approx(
        4 * 100, rel=0.3
    )


def test_other_devices_continue_meanwhile() -> None:
    """While the server is being restored, one slot of four waits, not all."""
    apart = estimate_remaining_s(
        replace(OFFLOADS, slots_resident=0, slots_offloaded=1, slots_elsewhere=3, restore_s=60), 40
    )
    alone = estimate_remaining_s(replace(OFFLOADS, slots_resident=0, restore_s=60), 40)
    stays = estimate_remaining_s(STAYS, 40)
    assert stays < apart < alone - 100


def test_the_device_is_kept_free_for_a_server_that_is_to_be_restored() -> None:
    """Otherwise trials would follow one another there, until the others had nothing to run."""
    offloads = replace(OFFLOADS, slots_resident=0, slots_elsewhere=12, slots=16, prefetch=16)
    stays = replace(offloads, slots_offloaded=0, slots=12, prefetch=12)
    assert estimate_remaining_s(offloads, 160) < 0.85 * estimate_remaining_s(stays, 160)


def test_buffered_proposals_need_no_restore() -> None:
    asleep = replace(OFFLOADS, first_restore_s=900, buffered=4)
    assert estimate_remaining_s(asleep, 4) < 2 * 100
    assert estimate_remaining_s(asleep, 5) > 900


def test_an_offloaded_server_is_restored_only_once_its_memory_is_free() -> None:
    offloaded = replace(OFFLOADS, slots_offloaded=2, first_restore_s=10, slots_elsewhere=2)
    free = replace(offloaded, server_device_ages_s=(0.0,))
    full = replace(offloaded, slots_resident=0, server_device_ages_s=(0.0,))
    assert estimate_remaining_s(replace(free, trial_s=1_000), 1) < estimate_remaining_s(
        replace(full, trial_s=1_000), 1
    )


def test_running_trials_count_by_their_age() -> None:
    begun = replace(STAYS, server_device_ages_s=(0.0,) * 4)
    nearly = replace(STAYS, server_device_ages_s=(90.0,) * 4)
    assert estimate_remaining_s(begun, 8) - estimate_remaining_s(nearly, 8) == pytest.approx(
        80, abs=25
    )


def test_time_is_proportional_for_many_trials() -> None:
    assert estimate_remaining_s(OFFLOADS, 10 * MAX_SIMULATED) == pytest.approx(
        10 * estimate_remaining_s(OFFLOADS, MAX_SIMULATED)
    )


@pytest.mark.parametrize("left", [0, 1, 40])
@pytest.mark.parametrize("changes", [{}, {"propose_s": 0.0, "prefetch": 0}, {"offload_s": 0.0}])
def test_a_forecast_ends_and_is_reproducible(left: int, changes: dict[str, Any]) -> None:
    plan = replace(OFFLOADS, **changes)
    assert estimate_remaining_s(plan, left) == estimate_remaining_s(replace(plan), left) >= 0
