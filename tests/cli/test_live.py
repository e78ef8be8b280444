import io
import re

import pytest
from rich.console import Console

from localhpo.analysis.summary import summarize_study
from localhpo.cli.study.live import EventLog, LiveDisplay
from localhpo.cli.study.views import failures_table, summary_view, trials_table
from localhpo.objective import Constraint, Objective, best_trials
from localhpo.scheduler.events import STOPPED_BY_USER, RunningTrial, Snapshot
from localhpo.store import Event
from localhpo.trial import Cause, Failure, Measurement, State, Usage

A = {"learning_rate": 0.01, "depth": 3}
B = {"learning_rate": 0.00031, "depth": 8}


@pytest.fixture
def draw():
    """Return a function that draws something on a terminal of some width, without colors."""

    def drawn(renderable, width=100):
        console = Console(file=io.StringIO(), width=width, color_system=None, markup=False)
        console.print(renderable)
        lines = console.file.getvalue().splitlines()
        assert all(len(line) <= width for line in lines)
        return "\n".join(line.rstrip() for line in lines)

    return drawn


@pytest.fixture
def make_snapshot(make_task):
    def make(trials, **changes):
        task = changes.get("task") or make_task()
        facts = {
            "task": task,
            "trials": tuple(trials),
            "best_trials": best_trials(trials, task.objectives),
            "running": (),
            "proposing": False,
            "stop_reason": "",
            "elapsed_s": 5.0,
            "trials_left": 3,
            "seconds_left": None,
            "gpu_seconds_left": None,
            "estimated_s": 42.0,
        }
        return Snapshot(**{**facts, **changes})

    return make


def display(width=100):
    console = Console(file=io.StringIO(), width=width, color_system=None, markup=False)
    return LiveDisplay(console, "small/main"), console.file


def running(trial, **changes):
    return RunningTrial(trial, **{"elapsed_s": 12.0, "latest": None, **changes})


def printed(file):
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_ended_trials_become_rows_once(make_snapshot, make_trial):
    shown, file = display()
    first = make_trial(0, A, value=0.5, usage=Usage(wall_s=61.0))
    second = make_trial(1, B, value=0.25, origin="llm")
    shown.on_change(make_snapshot([first]))
    shown.on_change(make_snapshot([first, second]))
    shown.on_change(make_snapshot([first, second]))
    assert printed(file) == [
        "small/main",
        "                         loss        time origin        configuration",
        "   0 * complete           0.5  1 min 01 s random        learning_rate=1e-2 depth=3",
        "   1 * complete          0.25       0.0 s llm           learning_rate=3.1e-4 depth=8",
    ]


def test_the_reason_of_a_failure_is_below_its_row(make_snapshot, make_trial):
    shown, file = display()
    failure = Failure(Cause.TIMEOUT, "it took\x1b[31m longer than 5 s")
    shown.on_change(make_snapshot([make_trial(0, A, State.FAILED, failure=failure)]))
    assert printed(file)[-1] == "     it took[31m longer than 5 s"


def test_the_reason_of_a_refusal_is_below_its_row(make_snapshot, make_trial):
    shown, file = display()
    refused = make_trial(0, A, State.INFEASIBLE, summary="300 MB is all there is")
    shown.on_change(make_snapshot([refused]))
    assert printed(file)[-1] == "     300 MB is all there is"


def test_a_resumed_study_shows_the_last_of_its_trials(make_snapshot, make_trial):
    shown, file = display()
    shown.on_change(make_snapshot([make_trial(n, A, value=1.0) for n in range(9)]))
    lines = printed(file)
    assert lines[2] == "     4 earlier trials"
    assert [line.split()[0] for line in lines[3:]] == ["4", "5", "6", "7", "8"]


def test_running_trials_are_below_the_rows(make_snapshot, make_trial, draw):
    shown, _ = display()
    latest = Measurement(3, "loss", 0.75, 0.0)
    trials = [make_trial(0, A, value=0.5), make_trial(1, B, State.RUNNING)]
    shown.on_change(
        make_snapshot(trials, running=(running(trials[1], latest=latest),), proposing=True)
    )
    row, proposing, status = draw(shown).splitlines()
    assert row.startswith("   1 ")
    assert row[7:] == (
        "running           0.75        12 s random        step 3  learning_rate=3.1e-4 depth=8"
    )
    assert proposing.endswith("choosing the next configuration")
    assert status.endswith("1 of 4 trials   best 0.5 (trial 0)   about 42 s left")


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_nothing_is_wider_than_the_terminal(make_snapshot, make_trial, draw, width):
    shown, file = display(width)
    config = {"learning_rate": 0.01, "depth": 3, **{f"more_{i}": "words" for i in range(20)}}
    trials = [make_trial(0, config, value=0.5), make_trial(1, config, State.RUNNING)]
    shown.on_change(make_snapshot(trials, running=(running(trials[1]),)))
    assert all(len(line) <= width for line in printed(file))
    assert len(draw(shown, width).splitlines()) == 2


def test_the_cause_of_waiting_is_shown(make_snapshot, make_trial, draw):
    shown, _ = display()
    shown.on_change(make_snapshot([make_trial(0, A, State.QUEUED)], blocked_by="cpus"))
    assert "the next trial waits for CPUs that another study uses" in draw(shown)


def test_before_the_first_snapshot_the_study_is_being_opened(draw):
    shown, _ = display()
    assert draw(shown).endswith("opening small/main")


def test_while_stopping_it_shows_how_to_kill(make_snapshot, make_trial, draw):
    shown, _ = display()
    trials = [make_trial(n, A, State.RUNNING) for n in (0, 1)]
    shown.on_change(
        make_snapshot(trials, running=tuple(map(running, trials)), stop_reason=STOPPED_BY_USER)
    )
    assert draw(shown).splitlines()[-1] == (
        "     stopping 2 trials; press Ctrl-C again to kill them"
    )


def test_the_reason_of_another_end_is_shown(make_snapshot, make_trial, draw):
    shown, _ = display()
    trial = make_trial(0, A, State.RUNNING)
    shown.on_change(
        make_snapshot([trial], running=(running(trial),), stop_reason="the model failed")
    )
    assert draw(shown).endswith("waiting for 1 trial to end: the model failed")


def test_notes_and_warnings_get_a_line(draw):
    shown, file = display()
    shown.on_event(Event(0.0, "warning", "MyCallback raised\nsomething"))
    shown.on_event(Event(0.0, "pruning", "worse than the median", trial=3))
    shown.on_event(Event(0.0, "finished", "loss 0.5", trial=3))
    assert printed(file) == [
        "     MyCallback raised something",
        "     trial 3: worse than the median",
    ]


def test_a_study_without_a_budget_of_trials_has_no_bar(make_snapshot, draw):
    shown, _ = display()
    shown.on_change(make_snapshot([], trials_left=None, estimated_s=None))
    assert draw(shown) == "     no complete trial yet"


def test_the_event_log_goes_to_standard_error(capsys):
    EventLog().on_event(Event(0.0, "finished", "loss 0.5\x1b[2J", trial=3))
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.endswith(" trial 3 finished: loss 0.5[2J\n")


@pytest.fixture
def study(make_task, make_trial):
    failure = Failure(Cause.EXIT_CODE, "exit code 1", "Traceback\n  boom\x1b[0m [red]\n")
    trials = [
        make_trial(0, A, value=0.5, origin="default", usage=Usage(wall_s=2.0, peak_memory_mb=80)),
        make_trial(1, B, value=0.25, origin="llm"),
        make_trial(2, A, State.FAILED, failure=failure),
    ]
    return make_task(), trials


def test_the_summary(study, draw, tmp_path):
    task, trials = study
    summary = summarize_study(task, "small/main", trials, elapsed_s=12.0)
    assert draw(summary_view(summary, tmp_path)) == (
        f"""small/main   3 of 4 trials: 2 complete, 1 failed

best       loss 0.25   trial 1, from the language model
           learning_rate  3.1e-4
           depth          8
progress   0.5 █▁ 0.25
proposals  1 trial from the task's default configuration (default)
           1 trial from the language model (llm)
           1 trial from random search (random)
failed     exit code (1 trial: 2): exit code 1: boom[0m [red]
cost       12 s in total; trials 2.0 s; proposals 0.0 s, 0 tokens; peak memory 80 MB
report     {tmp_path}"""
    )


def test_the_summary_of_nothing(make_task, draw):
    assert "no trial is complete" in draw(
        summary_view(summarize_study(make_task(), "small/main", []))
    )


def test_the_table_of_trials_marks_the_best(study, draw):
    task, trials = study
    lines = draw(trials_table(task, trials, {1}, width=100)).splitlines()
    assert lines[0].split() == ["trial", "state", "loss", "time", "origin", "configuration"]
    assert "* 0.25" in lines[3]
    assert "failed (exit code)" in lines[4]


def test_a_narrow_table_leaves_out_time_and_origin(study, draw):
    task, trials = study
    lines = draw(trials_table(task, trials, {1}, width=60), width=60).splitlines()
    assert lines[0].split() == ["trial", "state", "loss", "configuration"]
    assert any(line.endswith(" learning_rate=3.1e-4") for line in lines)


def test_the_table_of_failures_shows_the_last_line(study, draw):
    _, trials = study
    assert draw(failures_table(trials)).splitlines()[-1].endswith("boom[0m [red]")


@pytest.fixture
def trade_off(make_task, make_trial):
    """A task with two objectives and a constraint, and three trials: two form the front."""
    task = make_task(
        objectives=(Objective("accuracy", "maximize"), Objective("latency_ms", "minimize")),
        constraints=(Constraint("latency_ms", max=200.0),),
    )
    values = ((0.9, 150.0), (0.8, 100.0), (0.99, 250.0))
    trials = [
        make_trial(number, A, origin="nsga2").with_(values=pair, violations=(pair[1] - 200.0,))
        for number, pair in enumerate(values)
    ]
    return task, trials


def test_the_summary_of_several_objectives_shows_the_pareto_front(trade_off, draw):
    task, trials = trade_off
    lines = draw(summary_view(summarize_study(task, "small/main", trials)), 120).splitlines()
    goals = "maximize accuracy, minimize latency_ms; subject to latency_ms <= 200"
    assert f"goals        {goals}" in lines
    assert "best trials  2 of 3 complete trials form the Pareto front:" in lines
    rows = [line.split() for line in lines]
    assert ["trial", "accuracy", "latency_ms", "constraints", "origin", "configuration"] in rows
    assert [
        "0",
        "0.9",
        "150",
        "latency_ms",
        "150",
        "<=",
        "200",
        "nsga2",
        "learning_rate=1e-2",
        "depth=3",
    ] in rows
    assert not any(line.startswith("progress") for line in lines)


def test_the_summary_without_a_feasible_trial_shows_the_least_infeasible(
    make_task, make_trial, draw
):
    task = make_task(constraints=(Constraint("latency_ms", max=200.0),))
    trial = make_trial(0, A, value=0.5, violations=(50.0,))
    shown = draw(summary_view(summarize_study(task, "small/main", [trial])))
    assert "no trial meets every constraint; the least infeasible:" in shown
    assert "latency_ms 250 > 200" in shown


def test_the_table_of_several_objectives_marks_the_front_and_violations(trade_off, draw):
    task, trials = trade_off
    lines = draw(trials_table(task, trials, {0, 1}, width=140), 140).splitlines()
    assert lines[0].split()[:4] == ["trial", "state", "accuracy", "latency_ms"]
    assert lines[2].split()[:4] == ["0", "complete", "*", "0.9"]
    assert "complete (latency_ms 250 > 200)" in lines[4]
    assert "*" not in lines[4]


def test_the_live_display_of_several_objectives(trade_off, make_snapshot, draw):
    task, trials = trade_off
    shown, file = display()
    shown.on_change(make_snapshot(trials, task=task))
    lines = printed(file)
    assert "accuracy latency_ms" in lines[1]
    assert lines[2].startswith("   0 * complete")
    assert re.search(r"0.9 +150", lines[2])
    assert lines[-1] == "     constraint violated: latency_ms 250 > 200"
    assert "2 trials on the Pareto front" in draw(shown)
