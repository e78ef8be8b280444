"""Past studies -> examples: a prompt as inference renders it, and answers good in hindsight.

A study gives several prompts, cut at several points of its history. The one without any trial
counts most: a small model is asked that alone (`creator.hybrid`), and whoever is asked later has
trials to go by. Tasks, not rows, are held out: no study of a held-out task is trained on, nor does
what worked there flow into the answers.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from localhpo import grammar
from localhpo.creator import rationale
from localhpo.creator.agent import fit_prompt
from localhpo.creator.prompt import Style
from localhpo.creator.protocol import History
from localhpo.errors import InputError
from localhpo.finetune import relabeling
from localhpo.grammar.lark import MAX_ANALYSIS, MAX_EVIDENCE
from localhpo.llm.protocol import Message, Model
from localhpo.transfer import PastStudy
from localhpo.trial import COUNTED, Value

SHOWN_TRIALS: Mapping[Style, Sequence[int]] = {
    "compact": (0, 3, 8),  # what it shows teaches it little, and takes time
    "chat": (0, 1, 2, 3, 5, 8, 12, 20),
}
"""Trials shown."""

FIRST_ANSWERS = 32
"""To the question before any trial, which a small model is asked for as many."""
LATER_ANSWERS = 4

HELD_OUT = 0.25
"""Share of the tasks that only test."""
ENOUGH_HELD_OUT = 9
"""Tasks that are held out at least, but no more than half of all. On the 24 data sets of
`scripts/measure_learning.py`, where training lowered the regret by 0.19, the gate's test sees it
from five of them in 36 of 100 draws, from six in 56, from nine in 74, from twelve in 90; more
seeds of each add little."""
LEAST_HELD_OUT = 5
"""Tasks from which a paired test can tell anything."""

MORE_STUDIES = "finish studies of other tasks, or take in earlier ones with `localhpo import`"

CountTokens = Callable[[Sequence[Message]], int]


@dataclass(frozen=True)
class TrainingExample:
    """One prompt with several answers, each accepted by the grammar of its task."""

    study: str
    messages: tuple[Message, ...]
    answers: tuple[str, ...]
    shown: int
    """Trials of the study that had ended."""


@dataclass(frozen=True)
class StudySplit:
    """Which studies train and which only test."""

    train: tuple[PastStudy, ...]
    held_out: tuple[PastStudy, ...]

    @property
    def held_out_tasks(self) -> int:
        """Tasks that only test."""
        return len({task_key(past_study) for past_study in self.held_out})


def task_key(past_study: PastStudy) -> str:
    """Return what makes a task here: its name and what it says of its data.

    Neither its space nor what is fixed beside it: with the same data, what was good under other
    ranges or other fixed values is nearly the answer already. So such studies are on one side,
    and one pair of the gate's test.
    """
    return f"{past_study.task.name}\n{past_study.task.background.strip()}"


def split_studies(past_studies: Sequence[PastStudy], seed: int) -> StudySplit:
    """Hold out a quarter of the tasks, or as many as a test needs where half of them are.

    Raises:
        InputError: there are fewer than two tasks.
    """
    keys = sorted({task_key(past_study) for past_study in past_studies})
    if len(keys) < 2:
        raise InputError(
            f"fine-tuning needs studies of two tasks or more, got {len(keys)}",
            hint=MORE_STUDIES,
        )
    count = min(len(keys) // 2, max(ENOUGH_HELD_OUT, round(HELD_OUT * len(keys))))
    order = np.random.default_rng(seed).permutation(len(keys))
    out = {keys[int(i)] for i in order[:count]}
    return StudySplit(
        train=tuple(past_study for past_study in past_studies if task_key(past_study) not in out),
        held_out=tuple(past_study for past_study in past_studies if task_key(past_study) in out),
    )


def make_examples(
    past_studies: Sequence[PastStudy], model: Model, count_tokens: CountTokens, *, seed: int
) -> list[TrainingExample]:
    """Return the examples of some studies, each prompt and answer once.

    Args:
        past_studies: usable ones; they also say what is good for each other.
        model: what will be trained: its prompt and context length.
        count_tokens: of a rendered prompt, by that model.
        seed: draws the answers.
    """
    rng = np.random.default_rng(seed)
    found: dict[tuple[Message, ...], TrainingExample] = {}
    for past_study in past_studies:
        good = relabeling.find_candidates(past_study, past_studies, rng)
        for example in _of_study(past_study, good, model, count_tokens, rng):
            known = found.get(example.messages)
            if known is not None:
                both = tuple(dict.fromkeys([*known.answers, *example.answers]))
                example = dataclasses.replace(example, answers=both)
            found[example.messages] = example
    return list(found.values())


def _of_study(
    past_study: PastStudy,
    good: relabeling.AnswerCandidates,
    model: Model,
    count_tokens: CountTokens,
    rng: np.random.Generator,
) -> Iterator[TrainingExample]:
    ended = [trial for trial in past_study.trials if trial.state in COUNTED]
    for cut in SHOWN_TRIALS[model.prompt]:
        if cut >= max(1, len(ended)):
            return
        trials = tuple(ended[:cut])
        history = History(
            task=past_study.task, trials=trials, seed=past_study.task.seed, next_number=cut
        )
        messages, shown, _ = fit_prompt(history, model, count_tokens)
        answers = [
            format_answer(history, config, model, shown)
            for config in good.draw(trials, LATER_ANSWERS if cut else FIRST_ANSWERS, rng)
        ]
        if answers:
            yield TrainingExample(
                past_study.study, tuple(messages), tuple(dict.fromkeys(answers)), cut
            )


def format_answer(
    history: History, config: dict[str, Value], model: Model, shown: Sequence[int]
) -> str:
    """Return the text that the model is to answer, checked against the grammar's own reader.

    A model that talks also gives the reason that is computed from the trials.

    Raises:
        ConfigurationError: the configuration is not in the space.
    """
    space, chat = history.task.space, model.prompt == "chat"
    text = space.text(config)
    if chat:
        reason, evidence = rationale.compute(history, config)
        said = "".join(c if c.isprintable() else " " for c in reason)[:MAX_ANALYSIS]
        cited = [number for number in evidence if number in shown][:MAX_EVIDENCE]
        text = (
            f'{{"analysis":{json.dumps(said, ensure_ascii=False)},"config":{text},'
            f'"evidence":{json.dumps(cited, separators=(",", ":"))}}}'
        )
    grammar.parse(text, space, rationale=chat, trials=shown)
    return text
