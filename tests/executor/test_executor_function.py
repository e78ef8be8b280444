"""`localhpo.executor.function`: a Python function as a trial."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from localhpo.errors import TaskError
from localhpo.executor import FunctionExecutor, Job, Outcome, check_function
from localhpo.space import Categorical, Float, Int, Space
from localhpo.task import Task
from localhpo.trial import Cause, Measurement, State

CONFIG = {"learning_rate": 0.25, "depth": 3}
FACTOR = 10

Run = Callable[..., tuple[Outcome, list[Measurement]]]


@pytest.fixture
def task(make_task: Callable[..., Task]) -> Task:
    return make_task(command=())


@pytest.fixture
def run(task: Task, tmp_path: Path) -> Iterator[Run]:
    executors: list[FunctionExecutor] = []

    def runner(function: Callable[..., Any], **changes: Any) -> tuple[Outcome, list[Measurement]]:
        executors.append(FunctionExecutor(function))
        job = Job(task=task, number=0, config=CONFIG, seed=7, folder=tmp_path / "t", **changes)
        started = executors[-1].start(job)
        give_up = time.monotonic() + 60
        while (outcome := started.outcome) is None:
            assert time.monotonic() < give_up
            time.sleep(0.01)
        return outcome, list(started.poll())

    yield runner
    for executor in executors:
        executor.close()


def module_level(learning_rate: float, depth: int) -> float:
    return learning_rate * depth * FACTOR


class Model:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def score(self, config: Mapping[str, float]) -> float:
        return config["learning_rate"] * self.factor

    def __call__(self, learning_rate: float, depth: int) -> float:
        return learning_rate * self.factor


def test_functions_of_every_kind_run_in_another_process(run: Run) -> None:
    factor = 4

    def closure(learning_rate: float, depth: int) -> float:
        assert os.getpid() != parent
        return learning_rate * factor

    parent = os.getpid()
    data = list(range(1000))
    for function, score in (
        (module_level, 7.5),
        (closure, 1.0),
        (lambda config: config["depth"] + sum(data), 499503.0),
        (lambda **config: len(config), 2.0),
        (functools.partial(closure, depth=1), 1.0),
        (Model(8).score, 2.0),
        (Model(12), 3.0),
    ):
        outcome, _ = run(function)
        assert (outcome.state, outcome.value) == (State.COMPLETE, score), outcome


def test_return_value_counts_as_last_report(run: Run) -> None:
    def several(config: Mapping[str, Any]) -> Any:
        from localhpo.reporter import report

        report(step=5, loss=0.9)
        return {"loss": 0.5, "accuracy": 1}

    _, reported = run(several)
    found = [(m.step, m.name, m.value) for m in reported]
    assert found == [(5, "loss", 0.9), (6, "loss", 0.5), (6, "accuracy", 1.0)]


def test_a_function_may_report_and_return_nothing(run: Run) -> None:
    def silent(config: Mapping[str, Any]) -> None:
        from localhpo.reporter import report

        report(loss=0.9)

    assert run(silent)[0].value == 0.9
    outcome, _ = run(lambda config: None)
    assert outcome.failure is not None
    assert outcome.failure.cause is Cause.NOTHING_REPORTED
    assert "or return the number" in outcome.failure.message


def test_numpy_numbers_are_numbers(run: Run) -> None:
    import numpy as np

    assert run(lambda config: np.float32(0.5))[0].value == 0.5


def test_an_exception_is_a_failed_trial_with_its_traceback(run: Run) -> None:
    def broken(learning_rate: float, depth: int) -> float:
        raise ValueError("too deep")

    outcome, _ = run(broken)
    assert outcome.failure is not None
    assert outcome.failure.cause is Cause.EXIT_CODE
    assert "ValueError: too deep" in outcome.failure.message
    assert "in broken" in outcome.failure.stderr_tail


def test_non_numeric_return_value_is_explained(run: Run) -> None:
    outcome, _ = run(lambda config: [0.5])
    assert outcome.failure is not None
    assert "must return loss as a number" in outcome.failure.message


def test_limits_and_environment_are_those_of_any_trial(run: Run) -> None:
    outcome, _ = run(lambda config: time.sleep(60), timeout_s=0.3)
    assert outcome.failure is not None
    assert outcome.failure.cause is Cause.TIMEOUT
    outcome, _ = run(lambda config: float(os.environ["X"] + os.environ["LOCALHPO_SEED"]),
                     env={"X": "4"})  # fmt: skip
    assert outcome.value == 47.0


def test_unpicklable_function_error_gives_a_hint() -> None:
    lock = threading.Lock()
    with pytest.raises(TaskError, match="cannot be sent to a process of its own") as caught:
        FunctionExecutor(lambda config: lock.locked())
    assert "inside the function" in caught.value.hint


def test_a_module_that_others_cannot_import_travels_along(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "hidden_module.py"
    path.write_text("FACTOR = 3\ndef helper(x): return x * FACTOR\n"
                    "def objective(learning_rate, depth): return helper(depth)\n")  # fmt: skip
    spec = importlib.util.spec_from_file_location("hidden_module", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["hidden_module"] = module
    try:
        spec.loader.exec_module(module)
        assert run(module.objective)[0].value == 9.0
    finally:
        del sys.modules["hidden_module"]


SCRIPT = """
import sys, time
from pathlib import Path
import helper
from localhpo.objective import Objective
from localhpo.executor import FunctionExecutor, Job
from localhpo.space import Int, Space
from localhpo.task import Task
FACTOR = 2
class Local: value = 1
def objective(depth): return helper.double(depth) * FACTOR + Local().value
folder = Path(sys.argv[1])
goals = (Objective("loss", "minimize"),)
task = Task("small", (), goals, Space([Int("depth", 1, 8)]), folder=folder)
executor = FunctionExecutor(objective)
run = executor.start(Job(task=task, number=0, config={"depth": 3}, seed=1, folder=folder / "t"))
while run.outcome is None: time.sleep(0.01)
print(run.outcome.value, run.outcome.failure)
executor.close()
"""


@pytest.mark.parametrize("how", ["script", "stdin", "module"])
def test_a_plain_script_a_shell_and_a_module_work_without_a_guard(how: str, tmp_path: Path) -> None:
    (tmp_path / "helper.py").write_text("def double(x): return 2 * x\n")
    (tmp_path / "script.py").write_text(SCRIPT)
    work = tmp_path / "work"
    work.mkdir()
    command = {
        "script": [sys.executable, str(tmp_path / "script.py"), str(work)],
        "stdin": [sys.executable, "-", str(work)],
        "module": [sys.executable, "-m", "script", str(work)],
    }[how]
    done = subprocess.run(
        command, input=SCRIPT, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("13.0 None\n", "")


def test_nothing_is_left_in_the_temporary_folder(
    run: Run, task: Task, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    executor = FunctionExecutor(lambda config: 1.0)
    assert len(list(tmp_path.glob("localhpo-*"))) == 1
    executor.close()
    executor.close()
    assert list(tmp_path.glob("localhpo-*")) == []


# How the hyperparameters are taken


def _named(learning_rate, depth): ...  # type: ignore[no-untyped-def]
def _defaults(learning_rate, depth=3, verbose=False): ...  # type: ignore[no-untyped-def]
def _keyword_only(*, learning_rate, depth): ...  # type: ignore[no-untyped-def]
def _any(**config): ...  # type: ignore[no-untyped-def]
def _one(depth, **rest): ...  # type: ignore[no-untyped-def]
def _config(config): ...  # type: ignore[no-untyped-def]
def _config_and_more(c, verbose=False, *rest, **others): ...  # type: ignore[no-untyped-def]
def _positional(config, /): ...  # type: ignore[no-untyped-def]
def _nothing(): ...  # type: ignore[no-untyped-def]
def _unknown(learning_rate, dept): ...  # type: ignore[no-untyped-def]
def _missing(learning_rate): ...  # type: ignore[no-untyped-def]
def _positional_names(learning_rate, depth, /): ...  # type: ignore[no-untyped-def]


@pytest.mark.parametrize(
    ("function", "style"),
    [
        (_named, "keywords"),
        (_defaults, "keywords"),
        (_keyword_only, "keywords"),
        (_any, "keywords"),
        (_one, "keywords"),
        (_config, "config"),
        (_config_and_more, "config"),
        (_positional, "config"),
        (dict, "keywords"),
    ],
)
def test_the_signature_decides(task: Task, function: Callable[..., Any], style: str) -> None:
    assert check_function(function, task) == style


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (_nothing, "_nothing does not take learning_rate, depth, which the task holds"),
        (_unknown, "_unknown requires dept, and the task has learning_rate, depth"),
        (_missing, "_missing does not take depth"),
        (_positional_names, "_positional_names requires learning_rate, depth"),
    ],
)
def test_a_function_for_another_space_is_refused(
    task: Task, function: Callable[..., Any], message: str
) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        check_function(function, task)
    assert "def f(config)" in caught.value.hint


def test_fixed_values_are_arguments_like_tuned_ones(make_task: Callable[..., Task]) -> None:
    task = make_task(command=(), fixed={"trees": 300})

    def whole(learning_rate: float, depth: int, trees: int) -> None: ...
    def one(trees: Mapping[str, Any]) -> None: ...

    assert check_function(whole, task) == "keywords"
    assert check_function(_config, task) == "config"
    with pytest.raises(TaskError, match="_named does not take trees, which the task holds"):
        check_function(_named, task)
    with pytest.raises(TaskError, match="one does not take learning_rate, depth"):
        check_function(one, task)


def test_a_conditional_argument_needs_a_default(make_task: Callable[..., Task]) -> None:
    space = Space(
        [
            Categorical("booster", ("gbtree", "dart")),
            Float("rate", 0.0, 0.5, when={"booster": ("dart",)}),
            Int("depth", 1, 8),
        ]
    )
    task = make_task(command=(), space=space)

    def strict(booster: str, rate: float, depth: int) -> None: ...
    def kind(booster: str, depth: int, rate: float = 0.0) -> None: ...

    assert check_function(kind, task) == "keywords"
    with pytest.raises(TaskError, match="requires rate, which is active under a condition only"):
        check_function(strict, task)
