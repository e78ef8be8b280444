import re

import pytest

from localhpo.analysis.records import summary_record
from localhpo.analysis.report import escape_cell, fence_block, render_report
from localhpo.analysis.summary import summarize_study
from localhpo.objective import Constraint, Objective
from localhpo.store import Event
from localhpo.task import Budget
from localhpo.trial import LLM, Cause, Failure, Proposal, State, Usage

CONFIG = {"learning_rate": 0.01, "depth": 3}


@pytest.fixture
def trials(make_trial):
    best = make_trial(1, CONFIG, value=0.25, usage=Usage(wall_s=61.0, cpu_s=50, peak_memory_mb=80))
    proposal = Proposal(
        CONFIG, LLM, rationale="lower | rate", rationale_by="computed", note="it replaced the model"
    )
    failure = Failure(Cause.EXIT_CODE, "exit code 1 | bad", "```\n# not a heading\x1b[0m")
    return [
        make_trial(0, {"learning_rate": 0.1, "depth": 8}, value=0.5, origin="default"),
        best.with_(proposal=proposal),
        make_trial(2, CONFIG, State.FAILED, failure=failure),
    ]


def test_a_report_has_every_section(make_task, trials):
    text = render_report(
        summarize_study(make_task(), "small/main", trials), reruns={1: "python train.py --depth 3"}
    )
    for line in (
        "# small/main",
        "loss (minimize); 3 trials: 2 complete, 1 failed. 3 of the 4 trials of the budget are "
        "used.",
        "Trial 1, loss = **0.25**, from the language model.",
        "| learning_rate | 1e-2 |",
        "Why it was proposed: lower \\| rate",
        "python train.py --depth 3",
        "█▁",
        "| 0 | 0.5 | the task's default configuration |",
        "| the language model | llm | 1 | 33 % | 1 | 0.25 |",
        "it replaced the model (1 trial: 1)",
        "| exit code | 1 | 2 | exit code 1 \\| bad |",
        "| trials, wall clock added up | 1 min 01 s |",
        "| peak memory of the largest trial | 80 MB |",
        "| trial | state | loss | seconds | origin | configuration |",
        "| 1 \\* | complete | 0.25 | 61.0 | llm | learning_rate=1e-2 depth=3 |",
    ):
        assert line in text.splitlines(), f"{line!r} is missing in\n{text}"


def test_a_budget_that_was_exceeded_is_left_out(make_task, trials):
    text = render_report(summarize_study(make_task(budget=Budget(trials=2)), "small/main", trials))
    assert "3 trials: 2 complete, 1 failed.\n" in text


def test_the_gpu_use_of_trials_and_model_is_reported(make_task, make_trial, trials):
    full = Usage(gpu_s=30.0, peak_gpu_memory_mb=900.0, gpu_utilization=0.9, energy_j=7_200.0)
    on_gpus = [
        make_trial(3, CONFIG, usage=full),
        make_trial(4, CONFIG, usage=Usage(gpu_s=1.5)),
    ]
    account = {"model_gpu_s": 5.0, "model_gpu_memory_mb": 800.0, "model_energy_j": 3_600.0}
    events = [Event(1.0, "accounts", "", data={"waited_s": {}, **account})]
    text = render_report(
        summarize_study(make_task(), "small/main", [*trials, *on_gpus], events=events)
    )
    for line in (
        "| 3 | 30.0 | 900 MB | 90 % | 7200 J |",
        "| 4 | 1.5 | - | - | - |",
        "| energy of the model's part of its GPUs | 3600 J |",
    ):
        assert line in text.splitlines(), f"{line!r} is missing in\n{text}"
    assert "seconds x GPUs" not in render_report(summarize_study(make_task(), "small/main", trials))


def test_fixed_values_are_reported(make_task, trials):
    task = make_task(fixed={"trees": 300, "method": "hi|st", "dart": False, "gamma": 1e-4})
    text = render_report(summarize_study(task, "small/main", trials))
    assert "Fixed in all trials: trees=300 method=hi\\|st dart=false gamma=0.0001\n" in text
    assert "Fixed" not in render_report(summarize_study(make_task(), "small/main", trials))


def test_no_line_of_a_script_escapes_its_block(make_task, trials):
    text = render_report(summarize_study(make_task(), "small/main", trials))
    assert "\x1b" not in text
    assert "````\n```\n# not a heading[0m\n````" in text


def test_tables_keep_their_columns(make_task, trials):
    text = render_report(
        summarize_study(make_task(objectives=(Objective("a|b"),)), "small/main", trials)
    )
    for block in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(columns) == 1, block


def test_layout_has_no_runs_of_blank_lines(make_task, trials):
    for shown in (trials, []):
        text = render_report(
            summarize_study(
                make_task(background="some *words*", fixed={"a": 1}), "small/main", shown
            )
        )
        assert "\n\n\n" not in text
        assert text.endswith("|\n") or text.endswith(".\n")


def test_a_study_without_a_complete_trial(make_task, trials):
    text = render_report(summarize_study(make_task(), "small/main", trials[2:]))
    assert "No trial is complete: there is no best configuration." in text


def test_a_refused_trial_is_listed_with_the_reason(make_task, make_trial):
    refused = make_trial(0, {"depth": 3}, State.INFEASIBLE, summary="at most 24000 can be free")
    text = render_report(summarize_study(make_task(), "small/main", [refused]))
    assert "| infeasible | 1 | 0 | at most 24000 can be free |" in text
    assert "No trial failed." not in text


def test_memory_sharing_is_reported(make_task):
    def shared(message, **data):
        return Event(0.0, "sharing", message, None, data)

    events = [
        shared("resident: it fits", mode="resident"),
        shared("sleep: a trial needs | more", mode="sleep"),
        shared("it went to sleep", act="sleep", seconds=2.0, freed_mb=14_000.0, held_mb=1_500.0),
        shared("it was woken", act="wake", seconds=3.0, held_mb=16_000.0),
        shared("it went to sleep", act="sleep", seconds=2.5, freed_mb=14_500.0, held_mb=1_500.0),
    ]
    summary = summarize_study(make_task(), "small/main", [], events=events)
    text = render_report(summary)
    section = text.partition("## Memory shared with the model")[2].partition("##")[0]
    assert [line for line in section.splitlines() if line][2:] == [
        "| decisions on the mode of sharing | 2 |",
        r"| the last decision | sleep: a trial needs \| more |",
        "| the model's server freed memory | 2 times, 4.5 s |",
        "| memory freed the last time, as measured | 14.5 GB |",
        "| the model was brought back | 1 time, 3.0 s |",
    ]
    assert "\n\n\n" not in text
    record = summary_record(summary)["sharing"]
    assert (record["decisions"], record["last"]) == (2, "sleep: a trial needs | more")
    assert (record["rests"], record["freed_mb"], record["wakes"]) == (2, 14_500.0, 1)
    alone = summarize_study(make_task(), "small/main", [])
    assert "Memory shared" not in render_report(alone)
    assert summary_record(alone)["sharing"] is None


def test_an_empty_study(make_task):
    text = render_report(summarize_study(make_task(), "small/main", []))
    assert "There are no trials yet." in text
    assert "No trial failed." in text


def test_several_objectives_and_constraints(make_task, make_trial):
    task = make_task(
        objectives=(Objective("accuracy", "maximize"), Objective("latency_ms", "minimize")),
        constraints=(Constraint("latency_ms", max=200.0),),
    )
    trials = [
        make_trial(0, CONFIG, origin="nsga2").with_(values=(0.9, 150.0), violations=(-50.0,)),
        make_trial(1, CONFIG, origin="nsga2").with_(values=(0.99, 250.0), violations=(50.0,)),
    ]
    text = render_report(summarize_study(task, "small/main", trials), reruns={0: "python train.py"})
    goals = "maximize accuracy, minimize latency_ms; subject to latency_ms \\<= 200"
    for line in (
        f"{goals}; 2 trials: 2 complete. 2 of the 4 trials of the budget are used.",
        "| 0 | 0.9 | 150 | latency_ms 150 \\<= 200 | NSGA-II | learning_rate=1e-2 depth=3 |",
        "Run trial 0 again:",
        "| NSGA-II | nsga2 | 2 | 100 % | 2 | 1 |",
        "| 0 \\* | complete | 0.9 | 150 |  | 0.0 | nsga2 | learning_rate=1e-2 depth=3 |",
        "| 1 | complete | 0.99 | 250 | latency_ms 250 \\> 200 | 0.0 | nsga2 | "
        "learning_rate=1e-2 depth=3 |",
    ):
        assert line in text.splitlines(), f"{line!r} is missing in\n{text}"
    assert "1 of 2 trials form the Pareto front" in text
    assert "## Progress" not in text
    assert "\n\n\n" not in text
    text = render_report(summarize_study(task, "small/main", trials[1:]))
    assert "No trial meets every constraint. The least infeasible:" in text
    assert "\n\n\n" not in text


def test_a_violated_constraint_of_the_best_trial(make_task, make_trial):
    task = make_task(constraints=(Constraint("recall", min=0.9),))
    trial = make_trial(0, CONFIG, value=0.5, violations=(0.2,))
    text = render_report(summarize_study(task, "small/main", [trial]))
    assert "No trial meets every constraint. The least infeasible:" in text
    assert "Constraints: recall 0.7 \\< 0.9\n" in text
    assert "No trial meets every constraint yet." in text
    assert "\n\n\n" not in text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a|b", "a\\|b"),
        ("two\nlines", "two lines"),
        ("<b> *x* `y`", "\\<b\\> \\*x\\* \\`y\\`"),
        ("back\\slash", "back\\\\slash"),
        ("learning_rate", "learning_rate"),
        ("_x_", "\\_x\\_"),
        ("[a](b)", "\\[a\\](b)"),
    ],
)
def test_cells(text, escaped):
    assert escape_cell(text) == escaped


def test_fences_are_longer_than_those_within():
    assert fence_block("a ````` b").splitlines()[0] == "``````"
    assert fence_block("x", "sh").splitlines()[0] == "```sh"
