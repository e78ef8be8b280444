"""The gate: what is let through, and what it says of the rest."""

import pytest

from localhpo.finetune.evaluation import TaskComparison, evaluate_candidate


def pairs(count, *, loss=-0.1, regret=-0.1):
    return [
        TaskComparison(1.0 + i, 1.0 + i + loss, 0.5, 0.5 + regret * (1 + i)) for i in range(count)
    ]


def test_better_on_every_task_is_accepted():
    verdict = evaluate_candidate(pairs(5))
    assert verdict.gate == "accepted"
    assert verdict.numbers["held_out_tasks"] == 5
    assert verdict.numbers["tuned_regret"] < verdict.numbers["base_regret"]
    assert verdict.numbers["p"] == pytest.approx(1 / 32)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (pairs(6, regret=0.1), "replays are not better"),
        (pairs(6, loss=0.1), "not likelier"),
        ([*pairs(3), *pairs(3, regret=0.1)], "replays are not better"),
    ],
)
def test_what_does_not_beat_its_base_is_refused(given, why):
    verdict = evaluate_candidate(given)
    assert verdict.gate == "refused"
    assert why in verdict.why


@pytest.mark.parametrize("given", [pairs(4), [*pairs(4), *pairs(6, regret=0.0)], []])
def test_a_few_tasks_tell_nothing(given):
    verdict = evaluate_candidate(given)
    assert verdict.gate == "undecided"
    assert "cannot be told" in verdict.why


def test_force_says_what_it_overrode():
    verdict = evaluate_candidate(pairs(6, regret=0.1), force=True)
    assert verdict.gate == "forced"
    assert "replays are not better" in verdict.why
    assert evaluate_candidate(pairs(6), force=True).gate == "accepted"
