"""From trials to the table: means, paired comparisons, test values, the paper's unit."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from localhpo.errors import InputError
from localhpo.objective import Objective
from scripts.benchmarks import creators, figures
from scripts.benchmarks.agenthpo import results, runner, table
from scripts.benchmarks.agenthpo.runner import ExperimentPlan
from scripts.benchmarks.agenthpo.subjects import Subject
from scripts.benchmarks.results import TrialRow, UnitKey, UnitRow

TPE, RANDOM = creators.parse_name("tpe"), runner.RANDOM
VALUES = {
    "tpe": [[0.2, 0.6, 0.5], [0.4, 0.3, 0.8]],
    "random": [[0.1, 0.1, 0.7], [None, 0.5, 0.5], [0.9, 0.0, 0.0]],
}


@pytest.fixture
def plan(make_task, monkeypatch):
    task = dataclasses.replace(
        make_task(), name="water-xgboost", objectives=(Objective("val_f1", "maximize"),)
    )
    monkeypatch.setattr(runner, "_open", lambda name, **_: Subject(task, None))
    return ExperimentPlan(
        ("made",), (TPE, RANDOM), runs=2, trials=3, best_of=8, jobs=1, home=Path("none")
    )


def trial(number: int, value: float | None) -> TrialRow:
    state, test = ("failed", None) if value is None else ("complete", value - 0.05)
    config = f'{{"learning_rate":1e-3,"depth":{number + 1}}}'
    return TrialRow(
        number, state, value, config, "tpe", 1, 0.1, 30, 20, False, False, "", 2.0, test
    )


@pytest.fixture
def studies():
    return {
        ("water-xgboost", creator, run): UnitRow(
            UnitKey("water-xgboost", "", creator, "", run, 3),
            "",
            1.0,
            tuple(trial(number, value) for number, value in enumerate(values)),
        )
        for creator, runs in VALUES.items()
        for run, values in enumerate(runs)
    }


def test_only_runs_of_all_creators_count(plan, studies):
    (task,) = results.collect(plan, studies).tasks
    tpe, random = task.lines
    assert tpe.best.tolist() == [[0.2, 0.6, 0.6], [0.4, 0.4, 0.8]]
    assert np.isnan(random.best[1, 0])
    assert results.describe_runs(random.best[:, 0]) == results.RunStatistics(0.1, None, 1)
    last = results.describe_runs(tpe.best[:, 2])
    assert (last.mean, last.runs) == (pytest.approx(0.7), 2)
    assert last.deviation == pytest.approx(math.sqrt(2) * 0.1)

    del studies["water-xgboost", "tpe", 0]
    (task,) = results.collect(plan, studies).tasks
    assert task.runs == (1,)
    del studies["water-xgboost", "tpe", 1]
    with pytest.raises(InputError, match="no task has a run"):
        results.collect(plan, studies)


def test_the_best_of_random_search_counts_trials_beyond_the_runs(plan, studies):
    (task,) = results.collect(plan, studies).tasks
    assert (task.human, task.human_trials) == (0.9, 8)  # of nine, the ninth is left out
    fewer = dataclasses.replace(plan, best_of=5)
    (task,) = results.collect(fewer, studies).tasks
    assert (task.human, task.human_trials) == (0.7, 5)


def test_the_test_value_is_that_of_the_best_trial(plan, studies):
    tpe, random = results.collect(plan, studies).tasks[0].lines
    assert tpe.test.tolist() == [pytest.approx(0.55), pytest.approx(0.75)]
    assert random.test.tolist() == [pytest.approx(0.65), pytest.approx(0.45)]
    assert (tpe.prompt_tokens, tpe.completion_tokens, tpe.training_s) == (90.0, 60.0, 6.0)


def test_a_gap_is_in_the_direction_of_the_metric(plan, studies):
    (task,) = results.collect(plan, studies).tasks
    ahead = results.compute_gap(task, 1, 3)
    assert ahead.ahead == pytest.approx(0.7 - 0.6)
    assert (ahead.test.wins, ahead.test.losses) == (1, 1)
    first = results.compute_gap(task, 1, 1)  # random has no value in run 1, so it loses
    assert (first.test.wins, first.test.losses) == (2, 0)
    down = dataclasses.replace(task.subject.task, objectives=(Objective("val_f1"),))
    turned = dataclasses.replace(task, subject=Subject(down, None))
    assert results.compute_gap(turned, 1, 3).ahead == pytest.approx(-0.1)
    first = results.compute_gap(turned, 1, 1)
    assert (first.test.wins, first.test.losses) == (1, 1)


def test_values_are_in_the_unit_of_the_paper(plan, studies):
    result = results.collect(plan, studies)
    rows = {row.who: row for row in table.make_rows(result, result.tasks[0])}
    assert rows["tpe"].best == ("30.00 ±14.14", "70.00 ±14.14")
    assert rows["tpe"].is_best
    assert rows["random"].best[0] == "10.00 (1)"
    assert rows["random"].ahead == "+10.00"
    assert rows["best of 8"].best == ("", "90.00")
    assert rows["paper: GPT-4"].best == ("69.33 ±0.12", "71.57 ±0.17")
    assert rows["paper: human"].best == ("", "72.30")
    brief = next(iter(table.make_rows(result, result.tasks[0], brief=True)))
    assert brief.best == ("30.00", "70.00 ±14.14")


def test_the_record_is_json(plan, studies):
    result = results.collect(plan, studies)
    record = json.loads(json.dumps(results.to_record(result), allow_nan=False))
    task = record["tasks"]["water-xgboost"]
    assert task["creators"]["random"]["runs"] == [[0.1, 0.1, 0.7], [None, 0.5, 0.5]]
    assert task["creators"]["tpe"]["best_so_far"]["3"]["mean"] == pytest.approx(0.7)
    assert task["tpe against"]["random"]["3"]["ahead"] == pytest.approx(0.1)
    assert task["human"] == {"best": 0.9, "of_trials": 8}
    assert task["paper"]["best"]["GPT-4"]["10"] == [72.01, 0.35]
    assert record["paper"]["tokens_k"]["GPT-4"]["prompt"] == 266.61


def test_markdown_has_every_row(plan, studies):
    result = results.collect(plan, studies)
    text = table.markdown(result)
    assert all(f"| {row.who} |" in text for row in table.make_rows(result, result.tasks[0]))
    assert "2402.01881" in text
    assert "| paper: GPT-4 | 266.61 k | 14.70 k |" in text


def test_the_figure_has_a_panel_per_task(plan, studies):
    result = results.collect(plan, studies)
    drawn = figures.draw_trajectories(result)
    titles = [note.text for note in drawn.layout.annotations]
    assert titles == [task.subject.name for task in result.tasks]
    lines = {trace.name: list(trace.y) for trace in drawn.data if trace.xaxis == "x" and trace.name}
    for creator, line in zip(result.creators, result.tasks[0].lines, strict=True):
        assert lines[creator] == pytest.approx(np.nanmean(line.best, axis=0).tolist())
    assert figures.draw_contours(plan, studies) is None
