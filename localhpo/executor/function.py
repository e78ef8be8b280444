"""Runs a Python function as a trial, in a process of its own.

The function is called with the hyperparameters, fixed ones included, as keywords, or, where its
only required argument is not the name of one, with all of them as one dict:

    def objective(learning_rate, depth): ...      # keywords
    def objective(config): ...                    # config["learning_rate"]

What it returns is its last report: a number is the task's metric, a dict holds several. It may
also call `localhpo.report(step=..., **metrics)` on its way, and end when that says True. An
exception is a failed trial.

The function travels by cloudpickle, so that one from a notebook, a script without
`if __name__ == "__main__"` or a local closure works, and each trial begins in a fresh
interpreter. A fork would begin with copies of locks that threads (torch's, say) were holding,
and a spawn as `multiprocessing` does it cannot send closures. What it captures is sent as it
is at the first moment: later changes in this process do not reach it.
"""

from __future__ import annotations

import inspect
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from localhpo.errors import TaskError
from localhpo.executor.process import ProcessExecutor, ProcessRun
from localhpo.executor.protocol import Job
from localhpo.task import Task

CALL = str(Path(__file__).with_name("call.py"))
"""The program that calls the function."""

_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


class FunctionExecutor:
    """Runs one function, trial after trial. Not for several threads at once."""

    def __init__(self, function: Callable[..., Any], *, log_limit_mb: float = 64.0) -> None:
        """Make the function ready to be sent.

        Raises:
            TaskError: it cannot be sent to another process.
            ExecutorError: see `ProcessExecutor`.
        """
        self._function = function
        self._processes = ProcessExecutor(log_limit_mb=log_limit_mb)
        pickled = _pickled(function)
        self._folder = tempfile.TemporaryDirectory(prefix="localhpo-", ignore_cleanup_errors=True)
        self._payload = Path(self._folder.name, "function.pickle")
        # A REPL looks modules up in "", which is another folder in another process.
        module_path = [entry or os.getcwd() for entry in sys.path]  # noqa: PTH109 - text
        self._payload.write_bytes(pickle.dumps((module_path, pickled)))

    def start(self, job: Job) -> ProcessRun:
        """Start a process that calls the function.

        Raises:
            TaskError: the function does not take this task's hyperparameters.
            ExecutorError: see `ProcessExecutor.start`.
        """
        style = check_function(self._function, job.task)
        program = [sys.executable, "-P", CALL]
        objectives = [objective.name for objective in job.task.objectives]
        argv = [*program, str(self._payload), style, *objectives]
        return self._processes.launch(job, argv)

    def close(self) -> None:
        """End whatever still runs, as interrupted; takes to the grace period."""
        self._processes.close()
        self._folder.cleanup()


def check_function(function: Callable[..., Any], task: Task) -> str:
    """Return how the function takes its hyperparameters: `config` (a dict) or `keywords`.

    Raises:
        TaskError: it takes them in neither way.
    """
    names = task.names
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some builtins do not tell
        return "keywords"
    required = [p for p in parameters if p.default is p.empty and p.kind not in _VARIADIC]
    if len(required) == 1 and required[0].name not in names and required[0].kind in _POSITIONAL:
        return "config"
    title = f"the function {getattr(function, '__name__', function)!s}"
    unknown = [p.name for p in required if p.name not in names or p.kind not in _NAMED]
    if unknown:
        raise TaskError(
            f"{title} requires {', '.join(unknown)}, and the task has {', '.join(names)}",
            hint="give it a default, or take all hyperparameters as one dict: def f(config)",
        )
    taken = {p.name for p in parameters if p.kind in _NAMED}
    missing = [name for name in names if name not in taken]
    if missing and not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
        raise TaskError(
            f"{title} does not take {', '.join(missing)}, which the task holds",
            hint="add the argument, or take all hyperparameters as one dict: def f(config)",
        )
    tuned = [p.name for p in required if p.name in task.space]
    conditional = [name for name in tuned if task.space[name].when]
    if conditional:
        raise TaskError(
            f"{title} requires {', '.join(conditional)}, which is active under a condition only",
            hint="give the argument a default: it is left out where it is inactive",
        )
    return "keywords"


def _pickled(function: Callable[..., Any]) -> bytes:
    import cloudpickle  # type: ignore[import-untyped]

    module = inspect.getmodule(function)
    by_value = module is not None and not _can_be_imported(module)
    if by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(function))
    except Exception as exc:  # whatever the __reduce__ of a captured object raises
        raise TaskError(
            f"the function cannot be sent to a process of its own: {exc}",
            hint="open files, connections and locks inside the function, not outside",
        ) from exc
    finally:
        if by_value:
            cloudpickle.unregister_pickle_by_value(module)


def _can_be_imported(module: ModuleType) -> bool:
    """Return whether a fresh interpreter finds the module by its name."""
    name = module.__name__.partition(".")[0]
    if name == "__main__":
        return True  # cloudpickle sends what is defined there by value anyway
    # Not importlib.util.find_spec: it believes sys.modules.
    return any(finder.find_spec(name, None) for finder in sys.meta_path)
