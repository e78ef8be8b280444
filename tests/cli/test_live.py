import io

import pytest
from rich.console import Console

from localhpo.analysis.summary import summarize
from localhpo.cli._lines import Lines
from localhpo.cli._live import LiveDisplay
from localhpo.cli._views import failures_table, summary_view, trials_table
from localhpo.scheduler.observer import STOPPED_BY_USER, Running, Snapshot
from localhpo.store import Event
from localhpo.trial import Cause, Failure, Measurement, State, Usage, best_trial

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
        task = make_task()
        facts = {
            "task": task,
            "trials": tuple(trials),
            "best": best_trial(trials, task.direction),
            "running": (),
            "proposing": False,
            "closing": "",
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
    return Running(trial, **{"elapsed_s": 12.0, "latest": None, **changes})


def printed(file):
    return [line.rstrip() for line in file.getvalue().splitlines()]


def test_ended_trials_become_rows_once(make_snapshot, make_trial):
    shown, file = display()
    first = make_trial(0, A, score=0.5, usage=Usage(wall_s=61.0))
    second = make_trial(1, B, score=0.25, origin="model")
    shown.on_change(make_snapshot([first]))
    shown.on_change(make_snapshot([first, second]))
    shown.on_change(make_snapshot([first, second]))
    assert printed(file) == [
        "small/main",
        "                         loss        time origin        configuration",
        "   0 * complete           0.5  1 min 01 s engine:random learning_rate=1e-2 depth=3",
        "   1 * complete          0.25       0.0 s model         learning_rate=3.1e-4 depth=8",
    ]


def test_a_failed_trial_says_why_below_its_row(make_snapshot, make_trial):
    shown, file = display()
    failure = Failure(Cause.TIMEOUT, "it took\x1b[31m longer than 5 s")
    shown.on_change(make_snapshot([make_trial(0, A, State.FAILED, failure=failure)]))
    assert printed(file)[-1] == "     it took[31m longer than 5 s"


def test_a_refused_trial_says_why_below_its_row(make_snapshot, make_trial):
    shown, file = display()
    refused = make_trial(0, A, State.INFEASIBLE, summary="300 MB is all there is")
    shown.on_change(make_snapshot([refused]))
    assert printed(file)[-1] == "     300 MB is all there is"


def test_a_resumed_study_shows_the_last_of_its_trials(make_snapshot, make_trial):
    shown, file = display()
    shown.on_change(make_snapshot([make_trial(n, A, score=1.0) for n in range(9)]))
    lines = printed(file)
    assert lines[2] == "     4 earlier trials"
    assert [line.split()[0] for line in lines[3:]] == ["4", "5", "6", "7", "8"]


def test_what_runs_now_stands_below(make_snapshot, make_trial, draw):
    shown, _ = display()
    latest = Measurement(3, "loss", 0.75, 0.0)
    trials = [make_trial(0, A, score=0.5), make_trial(1, B, State.RUNNING)]
    shown.on_change(
        make_snapshot(trials, running=(running(trials[1], latest=latest),), proposing=True)
    )
    row, proposing, status = draw(shown).splitlines()
    assert row.startswith("   1 ")
    assert row[7:] == (
        "running           0.75        12 s engine:random step 3  learning_rate=3.1e-4 depth=8"
    )
    assert proposing.endswith("proposing what to try next")
    assert status.endswith("1 of 4 trials   best 0.5 (trial 0)   about 42 s left")


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_nothing_is_wider_than_the_terminal(make_snapshot, make_trial, draw, width):
    shown, file = display(width)
    config = {"learning_rate": 0.01, "depth": 3, **{f"more_{i}": "words" for i in range(20)}}
    trials = [make_trial(0, config, score=0.5), make_trial(1, config, State.RUNNING)]
    shown.on_change(make_snapshot(trials, running=(running(trials[1]),)))
    assert all(len(line) <= width for line in printed(file))
    assert len(draw(shown, width).splitlines()) == 2


def test_what_a_trial_waits_for_is_said(make_snapshot, make_trial, draw):
    shown, _ = display()
    shown.on_change(make_snapshot([make_trial(0, A, State.QUEUED)], held_up="cpus"))
    assert "a trial waits for CPUs that another study holds" in draw(shown)


def test_before_the_first_snapshot_it_says_what_it_waits_for(draw):
    shown, _ = display()
    assert draw(shown).endswith("opening small/main")


def test_stopping_says_how_to_stop_at_once(make_snapshot, make_trial, draw):
    shown, _ = display()
    trials = [make_trial(n, A, State.RUNNING) for n in (0, 1)]
    shown.on_change(
        make_snapshot(trials, running=tuple(map(running, trials)), closing=STOPPED_BY_USER)
    )
    assert draw(shown).splitlines()[-1] == (
        "     stopping 2 trials; press Ctrl-C again to kill them"
    )


def test_another_end_says_what_it_is(make_snapshot, make_trial, draw):
    shown, _ = display()
    trial = make_trial(0, A, State.RUNNING)
    shown.on_change(make_snapshot([trial], running=(running(trial),), closing="the model failed"))
    assert draw(shown).endswith("waiting for 1 trial: the model failed")


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
    assert draw(shown) == "     no good trial yet"


def test_lines_go_to_standard_error(capsys):
    with Lines() as lines:
        lines.on_event(Event(0.0, "finished", "loss 0.5\x1b[2J", trial=3))
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.endswith(" trial 3 finished: loss 0.5[2J\n")


@pytest.fixture
def study(make_task, make_trial):
    failure = Failure(Cause.EXIT_CODE, "exit code 1", "Traceback\n  boom\x1b[0m [red]\n")
    trials = [
        make_trial(0, A, score=0.5, origin="default", usage=Usage(wall_s=2.0, peak_memory_mb=80)),
        make_trial(1, B, score=0.25, origin="model"),
        make_trial(2, A, State.FAILED, failure=failure),
    ]
    return make_task(), trials


def test_the_summary(study, draw, tmp_path):
    task, trials = study
    summary = summarize(task, "small/main", trials, elapsed_s=12.0)
    assert draw(summary_view(summary, tmp_path)) == (
        f"""small/main   3 of 4 trials: 2 complete, 1 failed

best         loss 0.25   trial 1, by model
             learning_rate  3.1e-4
             depth          8
progress     0.5 █▁ 0.25
proposed by  default 33 % (1), engine:random 33 % (1), model 33 % (1)
failed       exit code (1 trial: 2): exit code 1: boom[0m [red]
cost         12 s in all; trials 2.0 s; proposals 0.0 s, 0 tokens; memory 80 MB
report       {tmp_path}"""
    )


def test_the_summary_of_nothing(make_task, draw):
    assert "no trial is complete" in draw(summary_view(summarize(make_task(), "small/main", [])))


def test_the_table_of_trials_marks_the_best(study, draw):
    task, trials = study
    lines = draw(trials_table(task, trials, trials[1], width=100)).splitlines()
    assert lines[0].split() == ["trial", "state", "loss", "time", "origin", "configuration"]
    assert "* 0.25" in lines[3]
    assert "failed (exit code)" in lines[4]


def test_a_narrow_table_leaves_more_room_for_the_configuration(study, draw):
    task, trials = study
    lines = draw(trials_table(task, trials, trials[1], width=60), width=60).splitlines()
    assert lines[0].split() == ["trial", "state", "loss", "configuration"]
    assert any(line.endswith(" learning_rate=3.1e-4") for line in lines)


def test_the_table_of_failures_shows_the_last_line(study, draw):
    _, trials = study
    assert draw(failures_table(trials)).splitlines()[-1].endswith("boom[0m [red]")
