"""The paper's figures: complete, and those that its text draws its averages from."""

from __future__ import annotations

import re
import statistics
from pathlib import Path

import pytest

from scripts.benchmarks.agenthpo import paper

TEXT = Path(__file__).parents[2].parent / "shared/papers/agenthpo.md"
COLUMNS = (1, 3, 5, 10)


def test_twelve_tasks_with_all_columns():
    reported = paper.tasks()
    assert len(reported) == 12
    for row in reported.values():
        assert set(row.best) == {paper.RANDOM, paper.GPT_3, paper.GPT_4}
        assert all(tuple(columns) == COLUMNS for columns in row.best.values())
        assert 0 < row.human < 100
        assert row.scale in (1, 100)
    assert [name for name, row in reported.items() if row.scale == 1] == ["opus-t5"]  # BLEU
    assert set(paper.run_counts()) == set(paper.METHODS)


def improvement(method: str, over: str, trial: int) -> float:
    """Mean improvement over the tasks, in per cent."""
    ratios = [
        row.best[method][trial][0] / (row.human if over == "human" else row.best[over][trial][0])
        for row in paper.tasks().values()
    ]
    return 100 * (statistics.mean(ratios) - 1)


@pytest.mark.parametrize(
    ("method", "over", "trial", "says"),
    [
        (paper.GPT_3, paper.RANDOM, 10, 3.83),
        (paper.GPT_4, paper.RANDOM, 10, 6.66),
        (paper.GPT_3, "human", 10, -1.18),
        (paper.GPT_4, "human", 10, 1.52),
        (paper.GPT_3, paper.RANDOM, 1, 56.81),
        (paper.GPT_4, paper.RANDOM, 1, 61.29),
        (paper.GPT_4, paper.GPT_3, 1, 4.65),
        (paper.GPT_4, paper.GPT_3, 10, 3.08),
    ],
)
def test_the_averages_of_section_5_1_follow(method, over, trial, says):
    assert improvement(method, over, trial) == pytest.approx(says, abs=0.025)


def test_the_mean_deviations_of_section_5_1_follow():
    for method, says in ((paper.GPT_3, 0.994), (paper.GPT_4, 0.358)):
        deviations = [row.best[method][t][1] for row in paper.tasks().values() for t in COLUMNS]
        assert statistics.mean(deviations) == pytest.approx(says, abs=0.015)


def test_tokens_add_up():
    for cost in paper.costs().values():
        assert cost.prompt + cost.completion == pytest.approx(cost.total, abs=0.011)


@pytest.mark.skipif(not TEXT.is_file(), reason="needs the text of the paper")
def test_every_figure_is_in_the_papers_tables():
    text = TEXT.read_text(encoding="utf-8")
    said = set(re.findall(r"\d+\.\d+", text[text.index("Table 3:") :]))
    for name, row in paper.tasks().items():
        means = [f"{m:.2f}" for best in row.best.values() for m, _ in best.values()]
        deviations = [f"{d:.2f}" for best in row.best.values() for _, d in best.values()]
        missing = {*means, *deviations, f"{row.human:g}"} - said - {"71.26"}  # overlined there
        assert not missing, f"{name}: {missing}"
