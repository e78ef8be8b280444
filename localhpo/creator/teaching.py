"""What a model was taught, in the hands of the optimizer: it opens a study, then guides it.

Lessons (`experience.lessons`) say how configurations of one kind of model did on many data sets.
A small model brings its own, or none; those of the built-in model serve every model that talks, and
where there is no model.
The first trials are those that gain most over all of them; what is expected after each trial is
an opinion that the optimizer leans on, for as long as the trials agree (`bayes.transfer`). One of
the first trials goes elsewhere: the others are alike, and would never tell that all of what was
taught is wrong here.

On the problems for choosing settings (60 of YAHPO, one metric drawn for each) the regret after
1, 3, 5 and 10 trials was .22/.14/.09/.05; of the model's own first thoughts together with its best
configurations on each data set it was .34/.20/.14/.06.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from localhpo.creator.bayes import optimizer
from localhpo.creator.bayes.transfer import Transfer
from localhpo.creator.guard import Guard, Verdict
from localhpo.creator.protocol import History
from localhpo.creator.remembering import LEANING, ORIGIN, SAID, is_scored, suggested
from localhpo.creator.seeds import derive
from localhpo.experience import Memory, similarity
from localhpo.experience.lessons import Lesson, read
from localhpo.experience.recall import MOST
from localhpo.llm import cards
from localhpo.llm.folder.description import LESSONS
from localhpo.trial import Config, Proposal

if TYPE_CHECKING:
    from localhpo.llm.protocol import Model
    from localhpo.task import Task

OPENERS = 4
"""Trials that are taken from what was taught alone. Three to seven were alike, within .006."""

BELIEVED = 3
"""Of these, those before the trial that is far from all of them. On six generated tables of which
next to nothing can be explained, by F1, it took the regret after 5 and 10 trials from .41 and .18
to .11 and .08 (random: .12 and .06). On the problems for choosing settings it cost nothing after 5
and 10 trials on YAHPO, and .04 and .01 with XGBoost. As the sixth trial it gained nothing."""

KIN = 0.7
"""Similarity of the spaces alone from which a lesson counts: words tell nothing that matters more.
It is of somebody else's data, so nearly the same hyperparameters must be tuned: a small network's
learning rate is none for a transformer (0.56)."""

NEAR = 0.85
"""Lessons count that are at least so many times as similar as the nearest: those of the task's
own metric, where there are such, and of all where there are none."""


def open_teacher(task: Task, model: Model | None) -> Teacher | None:
    """Return what was taught of the task's kind; None where there is nothing.

    Args:
        task: at hand.
        model: that is asked; None where there is none.

    Raises:
        InputError: the file cannot be read.
    """
    name, path = cards.DEFAULT, cards.find(cards.DEFAULT) / LESSONS
    if model is not None and model.prompt == "compact":
        if model.lessons is None:
            return None
        name, path = model.name, model.lessons

    def is_kin(other: Task) -> bool:
        return similarity(task, dataclasses.replace(task, space=other.space, fixed={})).value >= KIN

    found = [(one, similarity(task, one.task).value) for one in read(path, is_kin)]
    most = max((near for _, near in found), default=0.0)
    near = [(one, value) for one, value in found if value >= NEAR * most > 0.0]
    return Teacher(name, near) if near else None


class Teacher:
    """Proposes from lessons.

    Args:
        name: of the model that they come with.
        lessons: at least one, with the similarity of its task to the task at hand.
    """

    def __init__(self, name: str, lessons: Sequence[tuple[Lesson, float]]) -> None:
        self._name = name
        self._lessons = lessons
        self._made: tuple[tuple[int, int], Transfer] | None = None

    def propose(self, history: History, thoughts: Sequence[Config] = ()) -> Proposal:
        """Return one new proposal.

        Args:
            history: of the study.
            thoughts: configurations that the model drew; one that is proposed as it is has the
                origin `remembering.SAID`.

        Raises:
            SpaceExhaustedError: nothing new is left.
        """
        started = time.perf_counter()
        known = self._transfer(history, thoughts)
        proposal = (
            self._elsewhere(history)
            or self._opening(history, known)
            or suggested(history, known.expectation(history.trials), LEANING)
        )
        return dataclasses.replace(proposal, seconds=time.perf_counter() - started)

    def memories(self, history: History) -> list[Memory]:
        """Return the best configurations before any trial, to be remembered beside others."""
        known = self._transfer(history)
        lesson, near = max(self._lessons, key=lambda pair: pair[1])
        expected = known.expected(())
        return [
            Memory(
                config=known.candidates[place], carried=known.candidates[place], weight=near,
                study=f"{self._name}:{lesson.task.name} on {known.data_sets} data sets",
                trial=None, metric="a mean regret of", score=float(expected[place]),
                similarity=near, reasons=similarity(history.task, lesson.task).reasons,
            )
            for place in known.order(())[:MOST]
        ]  # fmt: skip

    def _transfer(self, history: History, thoughts: Sequence[Config] = ()) -> Transfer:
        """Return what the lessons say of the task; the same in all trials of a study."""
        key = history.seed, len(thoughts)
        if self._made is None or self._made[0] != key:
            of_study = dataclasses.replace(history, next_number=0)
            rng = np.random.default_rng(derive(of_study, ORIGIN))
            self._made = key, Transfer(history.task, self._lessons, rng, more=thoughts)
        return self._made[1]

    def _elsewhere(self, history: History) -> Proposal | None:
        """Return what is far from all trials, after `BELIEVED` of what was taught; else None."""
        seen = any(trial.proposal.origin == optimizer.ORIGIN for trial in history.trials)
        if seen or _opened(history) != BELIEVED:
            return None
        made = optimizer.proposed(history, optimizer.explore(history))
        reason = f"far from all trials, in case what {self._name} was taught is wrong here"
        return dataclasses.replace(made, rationale=f"{reason}; {made.rationale}")

    def _opening(self, history: History, known: Transfer) -> Proposal | None:
        """Return the candidate that gains most; None after `OPENERS`, or where none is new."""
        if _opened(history) >= OPENERS and is_scored(history):
            return None
        order = known.order(history.trials)
        pick = Guard(history).pick(order, lambda place: known.candidates[place])
        if pick is None or pick.verdict is not Verdict.NEW:
            return None
        if pick.drawn in known.more:
            return Proposal(known.candidates[pick.drawn], origin=SAID, tries=pick.tries)
        reason = self._reason(known, float(known.expected(history.trials)[pick.drawn]))
        return Proposal(
            known.candidates[pick.drawn], origin=ORIGIN, rationale=reason,
            rationale_by="computed", tries=pick.tries,
        )  # fmt: skip

    def _reason(self, known: Transfer, regret: float) -> str:
        names = sorted({lesson.task.name for lesson, _ in self._lessons})
        return (
            f"expected to leave a regret of {regret:.2f} (1: a middling random one) by "
            f"{known.data_sets} data sets of {', '.join(names)} that {self._name} was taught"
        )


def _opened(history: History) -> int:
    """Return how many trials are of what was taught, or of what the model said."""
    return sum(trial.proposal.origin in (ORIGIN, SAID) for trial in history.trials)
