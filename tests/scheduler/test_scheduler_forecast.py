"""The forecast of what is left: what it counts, and that the loop then takes as long."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from localhpo.scheduler.forecast import MOST, Plan, finish_s

AWAKE = Plan(beside=4, home=4, elsewhere=0, slots=4, ahead=4, trial_s=100, propose_s=1)
RESTS = replace(AWAKE, beside=1, rest_s=5, back_s=10)


def test_slots_share_the_work() -> None:
    assert finish_s(AWAKE, 40) == pytest.approx(40 * 100 / 4 + 50, rel=0.06)
    one = replace(AWAKE, beside=1, home=1, slots=1)
    assert finish_s(one, 40) == pytest.approx(40 * 100, rel=0.02)


def test_a_server_that_rests_delays_trials_by_what_it_takes() -> None:
    stays = finish_s(AWAKE, 40)
    assert finish_s(RESTS, 40) > stays + 2 * 16
    slow = replace(RESTS, back_s=110)  # it is woken for eight trials at once
    assert finish_s(slow, 40) - finish_s(RESTS, 40) == pytest.approx(4 * 100, rel=0.3)


def test_other_devices_go_on_meanwhile() -> None:
    """While the server is away, one slot of four waits, not all."""
    apart = finish_s(replace(RESTS, beside=0, home=1, elsewhere=3, back_s=60), 40)
    alone = finish_s(replace(RESTS, beside=0, back_s=60), 40)
    awake = finish_s(AWAKE, 40)
    assert awake < apart < alone - 100


def test_its_device_is_kept_free_for_a_server_that_is_to_be_woken() -> None:
    """Else trials would follow one another there, until the others had nothing in hand."""
    rests = replace(RESTS, beside=0, elsewhere=12, slots=16, ahead=16)
    stays = replace(rests, home=0, slots=12, ahead=12)
    assert finish_s(rests, 160) < 0.85 * finish_s(stays, 160)


def test_what_is_in_hand_needs_no_waking() -> None:
    asleep = replace(RESTS, wake_s=900, in_hand=4)
    assert finish_s(asleep, 4) < 2 * 100
    assert finish_s(asleep, 5) > 900


def test_a_server_at_rest_wakes_only_where_its_device_has_room() -> None:
    rested = replace(RESTS, home=2, wake_s=10, elsewhere=2)
    free = replace(rested, home_ages_s=(0.0,))
    full = replace(rested, beside=0, home_ages_s=(0.0,))
    assert finish_s(replace(free, trial_s=1_000), 1) < finish_s(replace(full, trial_s=1_000), 1)


def test_what_runs_counts_by_its_age() -> None:
    begun = replace(AWAKE, home_ages_s=(0.0,) * 4)
    nearly = replace(AWAKE, home_ages_s=(90.0,) * 4)
    assert finish_s(begun, 8) - finish_s(nearly, 8) == pytest.approx(80, abs=25)


def test_an_endless_study_takes_in_proportion() -> None:
    assert finish_s(RESTS, 10 * MOST) == pytest.approx(10 * finish_s(RESTS, MOST))


@pytest.mark.parametrize("left", [0, 1, 40])
@pytest.mark.parametrize("changes", [{}, {"propose_s": 0.0, "ahead": 0}, {"rest_s": 0.0}])
def test_a_forecast_ends_and_is_the_same_again(left: int, changes: dict[str, Any]) -> None:
    plan = replace(RESTS, **changes)
    assert finish_s(plan, left) == finish_s(replace(plan), left) >= 0
