"""Functions and tasks, tuned in one call; real child processes."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import localhpo
from localhpo.errors import InputError, NoGoodTrialError, StudyInterruptedError
from localhpo.study import Study
from localhpo.task import Budget, CreatorSettings, Task
from localhpo.trial import State, Trial

SPACE = {
    "x": {"type": "float", "low": -5.0, "high": 5.0},
    "y": {"type": "int", "low": -3, "high": 3},
}


def bowl(x: float, y: int) -> float:
    return (x - 2) ** 2 + (y - 1) ** 2


def with_steps(x: float, y: int) -> dict[str, float]:
    for step in range(3):
        localhpo.report(step=step, score=bowl(x, y) / (step + 1))
    return {"score": bowl(x, y), "other": 1.0}


def half_fails(x: float, y: int) -> float:
    if y > 0:
        raise ValueError(f"no good: {y}")
    return x


def always_fails(x: float, y: int) -> float:
    raise ValueError("never")


def test_a_function_is_tuned() -> None:
    told: list[tuple[int, float | None]] = []

    def callback(study: Study, trial: Trial) -> None:
        told.append((trial.number, trial.value))

    study = localhpo.tune(bowl, SPACE, creator="tpe", trials=3, callbacks=[callback])
    assert [trial.state for trial in study.trials] == [State.COMPLETE] * 3
    for trial in study.trials:
        assert trial.value == pytest.approx(bowl(**trial.config))  # type: ignore[arg-type]
    assert sorted(told) == [(trial.number, trial.value) for trial in study.trials]
    before = study.trials
    again = localhpo.tune(bowl, SPACE, creator="tpe", trials=5, parallel=2)
    assert len(again.trials) == 5
    assert again.trials[:3] == before


def threads(x: float, y: int) -> float:
    return float(os.environ["OMP_NUM_THREADS"])


def test_a_function_has_the_resources_that_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)  # it would stand
    asked = localhpo.Resources(cpus=2, priority=2.0)
    study = localhpo.tune(threads, SPACE, creator="tpe", trials=1, resources=asked)
    assert [trial.value for trial in study.trials] == [2.0]
    assert study.task.resources == asked
    with pytest.raises(InputError, match="a function runs on this machine; got executor = 'ray'"):
        localhpo.tune(bowl, SPACE, resources=localhpo.Resources(executor="ray"))


def test_a_function_gets_what_is_fixed_and_the_study_keeps_it() -> None:
    def scaled(x: float, scale: int, shape: str) -> float:
        return x * scale * len(shape)

    space, fixed = {"x": SPACE["x"]}, {"scale": 10, "shape": "abc"}
    study = localhpo.tune(scaled, space, fixed=fixed, creator="random", trials=2)
    assert study.task.fixed == fixed
    for trial in study.trials:
        assert list(trial.config) == ["x"]
        assert trial.value == pytest.approx(30 * float(trial.config["x"]))
    with pytest.raises(InputError, match=r"fixed was .*'scale': 10.*, is .*'scale': 20"):
        localhpo.tune(scaled, space, fixed={**fixed, "scale": 20}, creator="random", trials=3)


def test_a_function_may_report_steps() -> None:
    (trial,) = localhpo.tune(with_steps, SPACE, creator="random", trials=1).trials
    assert trial.value == pytest.approx(bowl(**trial.config))  # type: ignore[arg-type]
    assert [m.step for m in trial.measurements if m.name == "score"][:3] == [0, 1, 2]


def test_failures_do_not_end_a_study() -> None:
    study = localhpo.tune(half_fails, SPACE, creator="random", trials=4, direction="maximize")
    failed = [trial for trial in study.trials if trial.state is State.FAILED]
    assert failed
    assert all(trial.value is None for trial in failed)
    assert all("no good" in trial.failure.stderr_tail for trial in failed if trial.failure)
    assert study.best_trial is not None


def test_no_good_trial_is_an_error_of_its_own() -> None:
    with pytest.raises(NoGoodTrialError) as caught:
        localhpo.tune(always_fails, SPACE, creator="random", trials=1)
    assert caught.value.exit_code == 3
    assert str(caught.value) == "always_fails/main has no complete trial: 1 failed"
    assert "`localhpo trials always_fails/main --failed`" in caught.value.hint


def test_a_study_whose_trials_were_all_pruned_has_no_hint_about_failures(
    make_task: Callable[..., Task],
) -> None:
    study = Study.open(make_task(creator=CreatorSettings("random"), budget=Budget(trials=2)))
    for _ in range(2):
        study.tell(study.ask(), 1.0, pruned=True)
    with pytest.raises(NoGoodTrialError, match="no complete trial: 2 pruned") as caught:
        study.run()
    assert caught.value.hint == ""


def test_a_callback_may_interrupt_and_set_attributes() -> None:
    def callback(study: Study, trial: Trial) -> None:
        study.set_user_attrs(trial, {"seen": trial.number})
        if trial.number == 1:
            study.interrupt()

    with pytest.raises(StudyInterruptedError):
        localhpo.tune(bowl, SPACE, creator="random", trials=9, callbacks=[callback])
    study = localhpo.tune(bowl, SPACE, creator="random", trials=3)
    assert len(study.trials) == 3
    assert [trial.user_attrs for trial in study.trials[:2]] == [{"seen": n} for n in range(2)]


def test_a_callback_that_raises_costs_no_trial_and_no_other_callback() -> None:
    told: list[int] = []

    def faulty(study: Study, trial: Trial) -> None:
        raise RuntimeError("no good")

    def good(study: Study, trial: Trial) -> None:
        told.append(trial.number)

    study = localhpo.tune(bowl, SPACE, creator="random", trials=2, callbacks=[faulty, good])
    assert sorted(told) == [0, 1]
    (warning,) = [event.message for event in study.events if event.kind == "warning"]
    assert "RuntimeError('no good')" in warning


def test_a_callback_may_enqueue() -> None:
    def callback(study: Study, trial: Trial) -> None:
        if trial.number == 0:
            study.enqueue({"x": 2.0, "y": 1})

    study = localhpo.tune(bowl, SPACE, creator="random", trials=3, callbacks=[callback])
    assert study.best_trial is not None
    assert study.best_trial.value == 0.0
    assert str(study.best_trial.proposal.origin) == "user"


def test_a_task_file_is_tuned(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text(
        "import argparse\n"
        "from localhpo import report\n"
        "parser = argparse.ArgumentParser()\n"
        "parser.add_argument('--x', type=float)\n"
        "report(loss=(parser.parse_args().x - 1) ** 2)\n"
    )
    (tmp_path / "task.toml").write_text(
        '[task]\nname = "line"\ncommand = ["python", "train.py"]\nmetric = "loss"\n'
        'direction = "minimize"\n[space]\nx = {type = "float", low = -4, high = 4}\n'
        '[creator]\nname = "random"\n'
    )
    study = localhpo.tune(tmp_path / "task.toml", trials=2)
    assert [trial.value for trial in study.trials] == [
        pytest.approx((float(trial.config["x"]) - 1) ** 2) for trial in study.trials
    ]


def test_arguments_must_fit_together(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="in a space"):
        localhpo.tune(bowl)
    with pytest.raises(InputError, match="space of its own"):
        localhpo.tune(tmp_path / "task.toml", SPACE)
    with pytest.raises(InputError, match="says itself what is fixed"):
        localhpo.tune(tmp_path / "task.toml", fixed={"z": 1})
    with pytest.raises(InputError, match="must be a function, a task or a path; got 3"):
        localhpo.tune(3, SPACE)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="one form; got `objectives` beside `metric`"):
        localhpo.tune(bowl, SPACE, metric="loss", objectives={"loss": "minimize"})
    with pytest.raises(InputError, match="directions by name; got \\['loss'\\]"):
        localhpo.tune(bowl, SPACE, objectives=["loss"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"directions by name; got \{\}"):
        localhpo.tune(bowl, SPACE, objectives={})
    with pytest.raises(InputError, match=r"bounds by name; got \{'size': 3\}"):
        localhpo.tune(bowl, SPACE, constraints={"size": 3})  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"trials": 0}, r"\[budget\].* must bound the study"),
        ({"trials": -1}, r"\[budget\] trials: must be greater than 0; got -1"),
        ({"parallel": 0}, r"\[resources\] parallel: must be greater than 0; got 0"),
        ({"timeout_s": float("nan")}, r"\[budget\] timeout_s.*finite"),
        ({"direction": "max"}, r"direction: must be one of 'minimize', 'maximize'; got 'max'"),
        ({"metric": ""}, "metric: must be given"),
        ({"fixed": {"y": 1}}, r"\[fixed\] y: must not be in"),
    ],
)
def test_arguments_are_held_to_what_a_task_file_is(
    changes: dict[str, Any], says: str, home: Path
) -> None:
    with pytest.raises(InputError, match=says):
        localhpo.tune(bowl, SPACE, creator="random", **changes)
    assert not home.exists()
