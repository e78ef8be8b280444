"""Creators for comparisons that know less than the real ones, or begin otherwise.

They wrap the Creators that a user selects; `creators` opens them by name.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from localhpo.creator import context, prompt
from localhpo.creator.protocol import Creator, History, propose_one_by_one
from localhpo.llm import Backend, Completion, Message, Model
from localhpo.llm.placement import DeviceFootprint
from localhpo.llm.protocol import GenerationRequest, ModelServer
from localhpo.objective import Objective
from localhpo.space import Categorical, Ordinal, Parameter, Space
from localhpo.task import Task
from localhpo.trial import DEFAULT, Config, Proposal, Trial, Value


class CenterFirstCreator:
    """Proposes the task's default, or the center of the space, and then what an engine proposes."""

    def __init__(self, name: str, engine: Creator) -> None:
        self.name = name
        self._engine = engine

    @property
    def backend(self) -> Backend | None:
        """Backend of the model that the Creator asks; None where it asks none."""
        return self._engine.backend

    def propose(self, history: History, n: int) -> Sequence[Proposal]:
        """Return up to `n` new proposals. Raises as the engine does."""
        return propose_one_by_one(self._propose_one, history, n)

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()

    def _propose_one(self, history: History) -> Proposal:
        if history.trials:
            return self._engine.propose(history, 1)[0]
        return Proposal(
            config=history.task.space.default(),
            origin=DEFAULT,
            rationale="the default or the center of the space, before there is evidence",
            rationale_by="computed",
        )


class AnonymousCreator:
    """Hides all names from a Creator: the difference to the real one is what names tell a model.

    Hyperparameters, their choices, the task and the metric get meaningless names, and background
    and help are removed. Ranges, scales, conditions and defaults stay.

    Args:
        task: the real task.
        make: opens the wrapped Creator, for the task with hidden names.
        name: name of this Creator.
    """

    def __init__(self, task: Task, make: Callable[[Task], Creator], name: str) -> None:
        self.name = name
        self._names = NameMapping(task.space)
        self._creator = make(self._hide_task(task))

    @property
    def backend(self) -> Backend | None:
        """Backend of the wrapped Creator."""
        return self._creator.backend

    def propose(self, history: History, n: int) -> Sequence[Proposal]:
        """Return up to `n` new proposals. Raises as the wrapped Creator does."""
        history = history.first_objective()
        trials = tuple(self._hide_trial(trial) for trial in history.trials)
        hidden = dataclasses.replace(history, task=self._hide_task(history.task), trials=trials)
        return [
            dataclasses.replace(proposal, config=self._names.restore(proposal.config))
            for proposal in self._creator.propose(hidden, n)
        ]

    def close(self) -> None:
        """Close the wrapped Creator."""
        self._creator.close()

    def _hide_task(self, task: Task) -> Task:
        return dataclasses.replace(
            task,
            name="task",
            # Hidden metrics would be named "score": prompts of earlier comparisons have this word.
            objectives=(Objective("score", task.direction),),
            constraints=(),
            background="",
            fixed={},
            space=self._names.space,
        )

    def _hide_trial(self, trial: Trial) -> Trial:
        config = self._names.hide(trial.config)
        # The message of a failure and the summary of a run may mention real names.
        failure = trial.failure and dataclasses.replace(
            trial.failure, message=str(trial.failure.cause), stderr_tail=""
        )
        return trial.with_(
            proposal=dataclasses.replace(trial.proposal, config=config), summary="", failure=failure
        )


class NameMapping:
    """Maps the names of a space to meaningless ones, and back."""

    def __init__(self, space: Space) -> None:
        self._new = {parameter.name: f"x{i + 1}" for i, parameter in enumerate(space)}
        self._old = {new: old for old, new in self._new.items()}
        self._labels = {parameter.name: _labels(parameter) for parameter in space}
        self._choices = {
            name: {label: value for value, label in labels.items()}
            for name, labels in self._labels.items()
        }
        self.space = Space([self._renamed(parameter) for parameter in space])

    def hide(self, config: Config) -> Config:
        """Return a configuration with hidden names."""
        return {self._new[name]: self._label(name, value) for name, value in config.items()}

    def restore(self, config: Config) -> Config:
        """Return a configuration with the real names."""
        return {self._old[new]: self._value(self._old[new], v) for new, v in config.items()}

    def _label(self, name: str, value: Value) -> Value:
        return self._labels[name].get(value, value) if isinstance(value, str) else value

    def _value(self, name: str, label: Value) -> Value:
        return self._choices[name].get(label, label) if isinstance(label, str) else label

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
                likely=tuple(self._label(name, value) for value in parameter.likely),
            )
        return dataclasses.replace(parameter, name=self._new[name], help="", when=when)


def _labels(parameter: Parameter) -> Mapping[str, str]:
    """Return a label for each choice that is a text; numbers and booleans stay as they are."""
    if not isinstance(parameter, Categorical | Ordinal):
        return {}
    words = [value for value in parameter.values if isinstance(value, str)]
    return {word: f"v{i + 1}" for i, word in enumerate(words)}


class _WrappedBackend:
    """Passes on what it is asked; a subclass answers in another way. Its owner closes the other."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    @property
    def model(self) -> Model:
        """The model of the real backend."""
        return self._backend.model

    @property
    def server(self) -> ModelServer | None:
        """The server of the real backend."""
        return self._backend.server

    @property
    def on_device(self) -> DeviceFootprint | None:
        """Device memory of the real backend's model."""
        return self._backend.on_device

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Return the tokens of the given prompt."""
        return self._backend.count_tokens(messages)

    def close(self) -> None:
        """Do nothing: the owner of the real backend closes it."""


class NoHistoryBackend(_WrappedBackend):
    """Replaces each prompt by `prompt`, which is no longer, and asks the real backend."""

    prompt: Sequence[Message] = ()
    """The messages that the model is shown."""

    def generate(self, request: GenerationRequest) -> list[Completion]:
        """Return completions of `prompt`. Raises as the real backend does."""
        return self._backend.generate(dataclasses.replace(request, messages=self.prompt))


class NoHistoryCreator:
    """A Creator whose model sees no trials: the difference to the real one is what they tell it.

    Everything else knows the trials: the duplicate filter, the engine of a hybrid and the rule that
    chooses between model and engine. So only the prompt is replaced, on its way to the backend.
    """

    def __init__(self, creator: Creator, backend: NoHistoryBackend, name: str) -> None:
        self.name = name
        self._creator = creator
        self._backend = backend

    @property
    def backend(self) -> Backend:
        """The backend that hides the trials."""
        return self._backend

    def propose(self, history: History, n: int) -> Sequence[Proposal]:
        """Return up to `n` new proposals. Raises as the wrapped Creator does."""
        hidden = dataclasses.replace(history, trials=())
        self._backend.prompt = prompt.render_messages(
            context.build_facts(hidden), self._backend.model.prompt
        )
        return self._creator.propose(history, n)

    def close(self) -> None:
        """Close the wrapped Creator."""
        self._creator.close()


class StoredDrawsBackend(_WrappedBackend):
    """Asks a slow model a few times for each prompt, keeps the answers, and repeats them.

    Studies of different seeds get one of `draws` answers: what differs between them beyond that is
    the optimizer's part. A draw is stored by the model, the prompt, the constraint and its number.

    Args:
        backend: the real backend.
        folder: where answers are kept; it need not exist.
        draws: number of different answers to a prompt.
    """

    def __init__(self, backend: Backend, folder: Path, draws: int = 3) -> None:
        super().__init__(backend)
        self._folder = folder
        self._draws = draws

    def generate(self, request: GenerationRequest) -> list[Completion]:
        """Return stored completions, or ask. Raises as the real backend does."""
        request = dataclasses.replace(request, seed=request.seed % self._draws)
        path = self._folder / f"{_digest(self.model, request)}.json"
        if path.is_file():
            return [Completion(**row) for row in json.loads(path.read_text())]
        completions = self._backend.generate(request)
        self._folder.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps([dataclasses.asdict(one) for one in completions]))
        part.replace(path)
        return completions


def _digest(model: Model, request: GenerationRequest) -> str:
    parts = {
        "model": model.digest, "messages": [dataclasses.asdict(m) for m in request.messages],
        "grammar": request.constraint.grammar, "n": request.n, "seed": request.seed,
        "temperature": request.temperature,
    }  # fmt: skip
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()
