import json
import math
from dataclasses import replace

from localhpo.analysis.progress import by_score, improvements, incumbent
from localhpo.analysis.records import jsonable, summary_record, trial_record
from localhpo.analysis.summary import cost, failures, notes, origins, summarize
from localhpo.trial import Cause, Failure, Measurement, Proposal, State, Usage

CONFIG = {"learning_rate": 0.01, "depth": 3}


def failed(make_trial, number, cause, message="it died", **changes):
    failure = Failure(cause, message, "Traceback\nboom")
    return make_trial(number, CONFIG, State.FAILED, failure=failure, **changes)


def test_the_incumbent_goes_by_number_and_by_complete_trials_only(make_trial):
    trials = [
        make_trial(3, CONFIG, score=0.5),
        make_trial(0, CONFIG, score=2.0),
        make_trial(1, CONFIG, State.PRUNED, score=0.1),
        failed(make_trial, 2, Cause.TIMEOUT),
        make_trial(4, CONFIG, score=0.9),
    ]
    assert incumbent(trials, "minimize") == [(0, 2.0), (3, 0.5), (4, 0.5)]
    assert incumbent(trials, "maximize") == [(0, 2.0), (3, 2.0), (4, 2.0)]
    assert improvements(incumbent(trials, "minimize")) == [(0, 2.0), (3, 0.5)]


def test_by_score_puts_the_best_first_and_the_scoreless_last(make_trial):
    trials = [failed(make_trial, 0, Cause.TIMEOUT)]
    trials += [make_trial(n, CONFIG, score=score) for n, score in ((1, 2.0), (2, -1.0), (3, 2.0))]
    assert [t.number for t in by_score(trials, "minimize")] == [2, 1, 3, 0]
    assert [t.number for t in by_score(trials, "maximize")] == [1, 3, 2, 0]


def test_the_score_of_a_pruned_trial_comes_after_that_of_any_complete_one(make_trial):
    pruned = make_trial(0, CONFIG, State.PRUNED, score=0.1)
    trials = [pruned, make_trial(1, CONFIG, score=2.0), failed(make_trial, 2, Cause.TIMEOUT)]
    assert [t.number for t in by_score(trials, "minimize")] == [1, 0, 2]


def test_a_study_without_trials():
    assert incumbent([], "minimize") == []
    assert origins([], "minimize") == []
    assert failures([]) == []
    assert cost([]).trial_s == 0
    assert cost([]).peak_memory_mb is None


def test_origins_are_shares_of_all_trials(make_trial):
    trials = [
        make_trial(0, CONFIG, score=1.0, origin="default"),
        make_trial(1, CONFIG, score=0.5, origin="model"),
        make_trial(2, CONFIG, score=0.7, origin="model"),
        failed(make_trial, 3, Cause.TIMEOUT, origin="engine:tpe"),
    ]
    shares = origins(trials, "minimize")
    assert [(s.origin, s.trials, s.share, s.complete, s.best) for s in shares] == [
        ("model", 2, 0.5, 2, 0.5),
        ("default", 1, 0.25, 1, 1.0),
        ("engine:tpe", 1, 0.25, 0, None),
    ]


def test_failures_are_grouped_by_cause(make_trial):
    trials = [
        failed(make_trial, 0, Cause.TIMEOUT, "too slow"),
        failed(make_trial, 1, Cause.EXIT_CODE, "exit code 1"),
        failed(make_trial, 2, Cause.EXIT_CODE, "exit code 2"),
        make_trial(3, CONFIG, score=1.0),
    ]
    groups = failures(trials)
    assert [(g.cause, g.trials, g.message) for g in groups] == [
        ("exit code", (1, 2), "exit code 1"),
        ("timeout", (0,), "too slow"),
    ]
    assert groups[0].stderr_tail == "Traceback\nboom"


def test_a_trial_that_was_refused_is_listed_with_its_reason(make_task, make_trial):
    reason = "it needs 30000 MB of a device, and at most 24000 can be free"
    trials = [make_trial(n, CONFIG, State.INFEASIBLE, summary=reason) for n in range(2)]
    trials.append(failed(make_trial, 2, Cause.TIMEOUT, "too slow"))
    groups = failures(trials)
    assert [(g.cause, g.trials, g.message) for g in groups] == [
        ("infeasible", (0, 1), reason),
        ("timeout", (2,), "too slow"),
    ]
    assert groups[0].stderr_tail == ""
    record = summary_record(summarize(make_task(), "small/main", trials))
    assert [t["cause"] for t in record["trials"]] == ["infeasible", "infeasible", "timeout"]
    assert record["failures"][0]["message"] == reason


def test_notes_are_said_once_with_their_trials(make_trial):
    def noted(number, note):
        trial = make_trial(number, CONFIG, score=1.0)
        return trial.with_(proposal=replace(trial.proposal, note=note))

    trials = [noted(0, "an engine stood in"), noted(1, ""), noted(2, "an engine stood in")]
    assert [(n.text, n.trials) for n in notes(trials)] == [("an engine stood in", (0, 2))]


def test_cost_adds_up_and_keeps_the_largest(make_trial):
    def used(number, usage, **proposal):
        trial = make_trial(number, CONFIG, score=1.0, usage=usage)
        return trial.with_(proposal=Proposal(config=CONFIG, origin="model", **proposal))

    total = cost(
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
        make_trial(0, CONFIG, score=0.25),
        make_trial(2, CONFIG, State.RUNNING),
    ]
    summary = summarize(make_task(), "small/main", trials)
    record = json.loads(json.dumps(summary_record(summary), allow_nan=False))
    assert record["study"] == "small/main"
    assert record["budget"] == {"trials": 4, "used": 2}
    assert record["states"] == {"running": 1, "complete": 1, "failed": 1}
    assert record["best"]["number"] == 0
    assert [t["number"] for t in record["trials"]] == [0, 1, 2]
    assert record["trials"][1]["cause"] == "non-finite metric"


def test_a_full_record_has_everything_but_the_state_of_the_engine(make_trial):
    trial = make_trial(
        0, CONFIG, score=1.0, measurements=(Measurement(1, "loss", math.nan, 5.0),)
    ).with_(proposal=Proposal(CONFIG, "engine:tpe", engine_state={"big": 1}, answer="{}"))
    record = json.loads(json.dumps(trial_record(trial, full=True), allow_nan=False))
    assert record["measurements"] == [{"step": 1, "name": "loss", "value": "nan", "time": 5.0}]
    assert record["proposal"]["answer"] == "{}"
    assert "engine_state" not in record["proposal"]
    assert record["state"] == "complete"


def test_values_that_json_lacks():
    assert jsonable({"a": math.inf, "b": (1, True), 3: None}) == {
        "a": "inf",
        "b": [1, True],
        "3": None,
    }
