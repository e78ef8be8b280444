"""A Creator that is told no names: what is left is optimization, what is lost was knowledge.

Hyperparameters, their choices in words, task and metric get names that mean nothing, and
background and help are gone. Ranges, scales, conditions and defaults stay.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from localhpo.creator import Creator, History
from localhpo.space import Categorical, Ordinal, Parameter, Space
from localhpo.task import Task
from localhpo.trial import Config, Proposal, Trial, Value


class Anonymous:
    """A Creator for a task whose names are hidden.

    Args:
        task: the task as it is.
        make: returns the Creator for the hidden one.
        name: what it is called.
    """

    def __init__(self, task: Task, make: Callable[[Task], Creator], name: str) -> None:
        self.name = name
        self._names = _Names(task.space)
        self._creator = make(self._hidden(task))

    def propose(self, history: History, n: int) -> Sequence[Proposal]:
        """Return up to `n` new proposals. Raises as the Creator does."""
        trials = tuple(self._hide(trial) for trial in history.trials)
        hidden = dataclasses.replace(history, task=self._hidden(history.task), trials=trials)
        return [
            dataclasses.replace(proposal, config=self._names.shown(proposal.config))
            for proposal in self._creator.propose(hidden, n)
        ]

    def close(self) -> None:
        """Close the Creator."""
        self._creator.close()

    def _hidden(self, task: Task) -> Task:
        return dataclasses.replace(
            task, name="task", metric="score", background="", fixed={}, space=self._names.space
        )

    def _hide(self, trial: Trial) -> Trial:
        config = self._names.hidden(trial.config)
        # A failure, or the write-up of a run, may speak of what it was.
        failure = trial.failure and dataclasses.replace(
            trial.failure, message=str(trial.failure.cause), stderr_tail=""
        )
        return trial.with_(
            proposal=dataclasses.replace(trial.proposal, config=config), summary="", failure=failure
        )


class _Names:
    """From the names of a space to others, and back."""

    def __init__(self, space: Space) -> None:
        self._new = {parameter.name: f"x{i + 1}" for i, parameter in enumerate(space)}
        self._old = {new: old for old, new in self._new.items()}
        self._labels = {parameter.name: _labels(parameter) for parameter in space}
        self._words = {
            name: {label: value for value, label in labels.items()}
            for name, labels in self._labels.items()
        }
        self.space = Space([self._renamed(parameter) for parameter in space])

    def hidden(self, config: Config) -> Config:
        """Return a configuration of the hidden space."""
        return {self._new[name]: self._label(name, value) for name, value in config.items()}

    def shown(self, config: Config) -> Config:
        """Return a configuration as the task names it."""
        return {self._old[new]: self._value(self._old[new], v) for new, v in config.items()}

    def _label(self, name: str, value: Value) -> Value:
        return self._labels[name].get(value, value) if isinstance(value, str) else value

    def _value(self, name: str, label: Value) -> Value:
        return self._words[name].get(label, label) if isinstance(label, str) else label

    def _renamed(self, parameter: Parameter) -> Parameter:
        name = parameter.name
        when = {
            self._new[parent]: tuple(self._label(parent, value) for value in values)
            for parent, values in parameter.when.items()
        }
        if isinstance(parameter, Categorical | Ordinal):
            default = parameter.default
            return dataclasses.replace(
                parameter,
                name=self._new[name],
                help="",
                when=when,
                values=tuple(self._label(name, value) for value in parameter.values),
                default=None if default is None else self._label(name, default),
            )
        return dataclasses.replace(parameter, name=self._new[name], help="", when=when)


def _labels(parameter: Parameter) -> Mapping[str, str]:
    """Return a label for each choice that is a word; numbers and booleans stay as they are."""
    if not isinstance(parameter, Categorical | Ordinal):
        return {}
    words = [value for value in parameter.values if isinstance(value, str)]
    return {word: f"v{i + 1}" for i, word in enumerate(words)}
