"""Evaluation of fine-tuned models: which are accepted, and the reasons for the others."""

import pytest

from localhpo.finetune.evaluation import TaskComparison, evaluate_candidate


def pairs(count, *, loss=-0.1, regret=-0.1):
    return [
        TaskComparison(1.0 + i, 1.0 + i + loss, 0.5, 0.5 + regret * (1 + i)) for i in range(count)
    ]


def test_better_on_every_task_is_accepted():
    result = evaluate_candidate(pairs(5))
    assert result.status == "accepted"
    assert result.numbers["held_out_tasks"] == 5
    assert result.numbers["tuned_regret"] < result.numbers["base_regret"]
    assert result.numbers["p"] == pytest.approx(1 / 32)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (pairs(6, regret=0.1), "its studies are not better"),
        (pairs(6, loss=0.1), "does not predict good configurations"),
        ([*pairs(3), *pairs(3, regret=0.1)], "its studies are not better"),
    ],
)
def test_a_model_that_does_not_beat_its_base_is_refused(given, why):
    result = evaluate_candidate(given)
    assert result.status == "refused"
    assert why in result.reason


@pytest.mark.parametrize("given", [pairs(4), [*pairs(4), *pairs(6, regret=0.0)], []])
def test_too_few_tasks_are_undecided(given):
    result = evaluate_candidate(given)
    assert result.status == "undecided"
    assert "too few tasks to decide" in result.reason


def test_force_keeps_the_reason():
    result = evaluate_candidate(pairs(6, regret=0.1), force=True)
    assert result.status == "forced"
    assert "its studies are not better" in result.reason
    assert evaluate_candidate(pairs(6), force=True).status == "accepted"
