import json
import math
from dataclasses import replace

from localhpo.analysis.records import summary_record, to_jsonable, trial_record
from localhpo.analysis.summary import (
    failure_groups,
    find_improvements,
    incumbent_curve,
    origin_shares,
    proposal_notes,
    sorted_by_value,
    study_cost,
    summarize_study,
)
from localhpo.objective import Constraint, Objective
from localhpo.trial import LLM, Cause, Failure, Measurement, Origin, Proposal, State, Usage

MIN, MAX = Objective("loss", "minimize"), Objective("loss", "maximize")
CONFIG = {"learning_rate": 0.01, "depth": 3}


def failed(make_trial, number, cause, message="it died", **changes):
    failure = Failure(cause, message, "Traceback\nboom")
    return make_trial(number, CONFIG, State.FAILED, failure=failure, **changes)


def test_the_incumbent_goes_by_number_and_by_complete_trials_only(make_trial):
    trials = [
        make_trial(3, CONFIG, value=0.5),
        make_trial(0, CONFIG, value=2.0),
        make_trial(1, CONFIG, State.PRUNED, value=0.1),
        failed(make_trial, 2, Cause.TIMEOUT),
        make_trial(4, CONFIG, value=0.9),
    ]
    assert incumbent_curve(trials, MIN) == [(0, 2.0), (3, 0.5), (4, 0.5)]
    assert incumbent_curve(trials, MAX) == [(0, 2.0), (3, 2.0), (4, 2.0)]
    assert find_improvements(incumbent_curve(trials, MIN)) == [(0, 2.0), (3, 0.5)]


def test_sorting_puts_the_best_first_and_trials_without_values_last(make_trial):
    trials = [failed(make_trial, 0, Cause.TIMEOUT)]
    trials += [make_trial(n, CONFIG, value=value) for n, value in ((1, 2.0), (2, -1.0), (3, 2.0))]
    assert [t.number for t in sorted_by_value(trials, [MIN])] == [2, 1, 3, 0]
    assert [t.number for t in sorted_by_value(trials, [MAX])] == [1, 3, 2, 0]


def test_sorting_puts_pruned_trials_after_all_complete_ones(make_trial):
    pruned = make_trial(0, CONFIG, State.PRUNED, value=0.1)
    trials = [pruned, make_trial(1, CONFIG, value=2.0), failed(make_trial, 2, Cause.TIMEOUT)]
    assert [t.number for t in sorted_by_value(trials, [MIN])] == [1, 0, 2]


def test_a_study_without_trials():
    assert incumbent_curve([], MIN) == []
    assert origin_shares([], [MIN]) == []
    assert failure_groups([]) == []
    assert study_cost([]).trial_s == 0
    assert study_cost([]).peak_memory_mb is None


def test_origins_are_shares_of_all_trials(make_trial):
    trials = [
        make_trial(0, CONFIG, value=1.0, origin="default"),
        make_trial(1, CONFIG, value=0.5, origin="llm"),
        make_trial(2, CONFIG, value=0.7, origin="llm"),
        failed(make_trial, 3, Cause.TIMEOUT, origin="tpe"),
    ]
    shares = origin_shares(trials, [MIN])
    assert [(str(s.origin), s.trials, s.share, s.complete, s.best) for s in shares] == [
        ("llm", 2, 0.5, 2, 0.5),
        ("default", 1, 0.25, 1, 1.0),
        ("tpe", 1, 0.25, 0, None),
    ]


def test_failures_are_grouped_by_cause(make_trial):
    trials = [
        failed(make_trial, 0, Cause.TIMEOUT, "too slow"),
        failed(make_trial, 1, Cause.EXIT_CODE, "exit code 1"),
        failed(make_trial, 2, Cause.EXIT_CODE, "exit code 2"),
        make_trial(3, CONFIG, value=1.0),
    ]
    groups = failure_groups(trials)
    assert [(g.cause, g.trials, g.message) for g in groups] == [
        ("exit code", (1, 2), "exit code 1"),
        ("timeout", (0,), "too slow"),
    ]
    assert groups[0].stderr_tail == "Traceback\nboom"


def test_a_trial_that_was_refused_is_listed_with_its_reason(make_task, make_trial):
    reason = "it needs 30000 MB of a device, and at most 24000 can be free"
    trials = [make_trial(n, CONFIG, State.INFEASIBLE, summary=reason) for n in range(2)]
    trials.append(failed(make_trial, 2, Cause.TIMEOUT, "too slow"))
    groups = failure_groups(trials)
    assert [(g.cause, g.trials, g.message) for g in groups] == [
        ("infeasible", (0, 1), reason),
        ("timeout", (2,), "too slow"),
    ]
    assert groups[0].stderr_tail == ""
    record = summary_record(summarize_study(make_task(), "small/main", trials))
    assert [t["cause"] for t in record["trials"]] == ["infeasible", "infeasible", "timeout"]
    assert record["failures"][0]["message"] == reason


def test_each_note_is_listed_once_with_its_trials(make_trial):
    def noted(number, note):
        trial = make_trial(number, CONFIG, value=1.0)
        return trial.with_(proposal=replace(trial.proposal, note=note))

    trials = [
        noted(0, "an engine replaced the model"),
        noted(1, ""),
        noted(2, "an engine replaced the model"),
    ]
    assert [(n.text, n.trials) for n in proposal_notes(trials)] == [
        ("an engine replaced the model", (0, 2))
    ]


def test_cost_adds_up_and_keeps_the_largest(make_trial):
    def used(number, usage, **proposal):
        trial = make_trial(number, CONFIG, value=1.0, usage=usage)
        return trial.with_(proposal=Proposal(config=CONFIG, origin=LLM, **proposal))

    total = study_cost(
        [
            used(0, Usage(wall_s=2.0, cpu_s=1.0, peak_memory_mb=100.0), prompt_tokens=500),
            used(1, Usage(wall_s=3.0, peak_memory_mb=300.0), completion_tokens=70, seconds=0.5),
        ]
    )
    assert (total.trial_s, total.cpu_s, total.proposal_s) == (5.0, 1.0, 0.5)
    assert (total.prompt_tokens, total.completion_tokens) == (500, 70)
    assert (total.peak_memory_mb, total.peak_gpu_memory_mb) == (300.0, None)


def test_a_summary_is_json(make_task, make_trial):
    trials = [
        failed(make_trial, 1, Cause.NOT_FINITE),
        make_trial(0, CONFIG, value=0.25),
        make_trial(2, CONFIG, State.RUNNING),
    ]
    summary = summarize_study(make_task(), "small/main", trials)
    record = json.loads(json.dumps(summary_record(summary), allow_nan=False))
    assert record["study"] == "small/main"
    assert record["budget"] == {"trials": 4, "used": 2}
    assert record["states"] == {"running": 1, "complete": 1, "failed": 1}
    assert record["best"]["number"] == 0
    assert [t["number"] for t in record["trials"]] == [0, 1, 2]
    assert record["trials"][1]["cause"] == "non-finite metric"


def test_a_full_record_has_everything_but_the_state_of_the_engine(make_trial):
    trial = make_trial(
        0, CONFIG, value=1.0, measurements=(Measurement(1, "loss", math.nan, 5.0),)
    ).with_(proposal=Proposal(CONFIG, Origin.parse("tpe"), engine_state={"big": 1}, answer="{}"))
    record = json.loads(json.dumps(trial_record(trial, full=True), allow_nan=False))
    assert record["measurements"] == [{"step": 1, "name": "loss", "value": "nan", "time": 5.0}]
    assert record["proposal"]["answer"] == "{}"
    assert "engine_state" not in record["proposal"]
    assert record["proposal"]["origin"] == "tpe"
    assert record["state"] == "complete"
    assert (record["values"], record["value"], record["score"]) == ([1.0], 1.0, 1.0)
    assert record["feasible"] is True


def test_values_that_json_lacks():
    assert to_jsonable({"a": math.inf, "b": (1, True), 3: None}) == {
        "a": "inf",
        "b": [1, True],
        "3": None,
    }


ACCURACY, LATENCY = Objective("accuracy", "maximize"), Objective("latency_ms", "minimize")
LIMIT = Constraint("latency_ms", max=200.0)


def measured(make_trial, number, accuracy, latency_ms, **changes):
    violations = (latency_ms - 200.0,)
    trial = make_trial(number, CONFIG, **changes)
    return trial.with_(values=(accuracy, latency_ms), violations=violations)


def test_several_objectives_have_a_pareto_front_instead_of_a_best_trial(make_task, make_trial):
    task = make_task(objectives=(ACCURACY, LATENCY), constraints=(LIMIT,))
    trials = [
        measured(make_trial, 0, 0.9, 150.0),
        measured(make_trial, 1, 0.8, 100.0),
        measured(make_trial, 2, 0.7, 120.0),  # dominated by trial 1
        measured(make_trial, 3, 0.99, 250.0),  # infeasible
    ]
    summary = summarize_study(task, "small/main", trials)
    assert [trial.number for trial in summary.best_trials] == [0, 1]
    assert (summary.best_trial, summary.incumbent, summary.is_feasible) == (None, (), True)
    assert [share.best_trials for share in summary.origins] == [2]
    record = summary_record(summary)
    assert record["objectives"] == [
        {"name": "accuracy", "direction": "maximize"},
        {"name": "latency_ms", "direction": "minimize"},
    ]
    assert record["constraints"] == [{"name": "latency_ms", "min": None, "max": 200.0}]
    assert (record["best"], record["metric"]) == (None, "accuracy")
    assert [trial["number"] for trial in record["best_trials"]] == [0, 1]
    last = record["trials"][3]
    assert (last["values"], last["value"], last["score"]) == ([0.99, 250.0], None, None)
    assert (last["feasible"], last["violations"]) == (False, [50.0])


def test_without_a_feasible_trial_the_least_infeasible_are_best(make_task, make_trial):
    task = make_task(constraints=(LIMIT,))
    trials = [
        make_trial(0, CONFIG, value=0.1, violations=(80.0,)),
        make_trial(1, CONFIG, value=0.5, violations=(50.0,)),
    ]
    summary = summarize_study(task, "small/main", trials)
    assert [trial.number for trial in summary.best_trials] == [1]
    assert not summary.is_feasible
    assert summary.incumbent == ()
    assert summary_record(summary)["feasible"] is False


def test_infeasible_trials_do_not_count_as_the_best_so_far(make_trial):
    trials = [
        make_trial(0, CONFIG, value=0.1, violations=(1.0,)),
        make_trial(1, CONFIG, value=0.5, violations=(-1.0,)),
        make_trial(2, CONFIG, value=0.2, violations=(1.0,)),
    ]
    assert incumbent_curve(trials, MIN) == [(1, 0.5), (2, 0.5)]


def test_sorting_puts_the_front_first_and_infeasible_trials_after_feasible_ones(make_trial):
    trials = [
        measured(make_trial, 0, 0.99, 250.0),
        measured(make_trial, 1, 0.7, 120.0),
        measured(make_trial, 2, 0.8, 100.0),
        measured(make_trial, 3, 0.9, 150.0),
    ]
    assert [t.number for t in sorted_by_value(trials, [ACCURACY, LATENCY])] == [3, 2, 1, 0]


def test_an_unknown_violation_is_null_in_json(make_trial):
    record = trial_record(make_trial(0, CONFIG, value=1.0, violations=(math.nan,)))
    assert (record["violations"], record["feasible"]) == ([None], None)
