"""Past studies -> training examples: prompts as inference renders them, with relabeled answers.

A study gives several prompts, after different numbers of trials. The prompt without any trial has
the most answers: a small model is asked only that one (`creator.hybrid`). Whole tasks are held out:
no study of a held-out task is trained on, nor do its results influence the answers.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from localhpo import grammar
from localhpo.creator import rationale
from localhpo.creator.prompt import Style, fit_prompt
from localhpo.creator.protocol import History
from localhpo.errors import InputError
from localhpo.finetune import relabeling
from localhpo.grammar.lark import MAX_ANALYSIS, MAX_EVIDENCE
from localhpo.llm.protocol import Message, Model
from localhpo.transfer import PastStudy
from localhpo.trial import COUNTED, Value

SHOWN_TRIALS: Mapping[Style, Sequence[int]] = {
    "compact": (0, 3, 8),  # a small model learns little from shown trials, and they take time
    "chat": (0, 1, 2, 3, 5, 8, 12, 20),
}
"""Prompt style -> numbers of trials to show."""

FIRST_ANSWERS = 32
"""Answers to the prompt without trials; at inference a small model samples as many."""
LATER_ANSWERS = 4
"""Answers to each later prompt."""

HELD_OUT = 0.25
"""Share of the tasks that are kept aside for the evaluation."""
TARGET_HELD_OUT = 9
"""Smallest number of held-out tasks, as long as it is at most half of all. On the 24 data sets of
`scripts/benchmarks/measure/learning.py`, where training lowered the regret by 0.19, the evaluation
detects it with five tasks in 36 of 100 draws, with six in 56, with nine in 74, with twelve in 90;
more seeds of each task add little."""
MIN_HELD_OUT = 5
"""Smallest number of tasks with which a paired test can be significant."""

MORE_STUDIES = "finish studies of other tasks, or import earlier ones with `localhpo import`"

CountTokens = Callable[[Sequence[Message]], int]


@dataclass(frozen=True)
class TrainingExample:
    """One prompt with several answers, each accepted by the grammar of its task."""

    study: str
    messages: tuple[Message, ...]
    answers: tuple[str, ...]
    shown: int
    """Number of trials in the prompt."""


@dataclass(frozen=True)
class StudySplit:
    """Studies for training, and studies that are kept aside for the evaluation."""

    train: tuple[PastStudy, ...]
    held_out: tuple[PastStudy, ...]

    @property
    def held_out_tasks(self) -> int:
        """Number of tasks that are kept aside."""
        return len({task_key(past_study) for past_study in self.held_out})


def task_key(past_study: PastStudy) -> str:
    """Return the key by which studies count as one task: its name and its background.

    Its space does not count: on the same data, the good values of other ranges are nearly the
    answer already. So such studies are all for training or all for the evaluation.
    """
    return f"{past_study.task.name}\n{past_study.task.background.strip()}"


def split_studies(past_studies: Sequence[PastStudy], seed: int) -> StudySplit:
    """Keep a quarter of the tasks aside, or more where the evaluation needs more; at most half.

    Raises:
        InputError: there are fewer than two tasks.
    """
    keys = sorted({task_key(past_study) for past_study in past_studies})
    if len(keys) < 2:
        raise InputError(
            f"fine-tuning needs studies of two tasks or more, got {len(keys)}",
            hint=MORE_STUDIES,
        )
    count = min(len(keys) // 2, max(TARGET_HELD_OUT, round(HELD_OUT * len(keys))))
    order = np.random.default_rng(seed).permutation(len(keys))
    out = {keys[int(i)] for i in order[:count]}
    return StudySplit(
        train=tuple(past_study for past_study in past_studies if task_key(past_study) not in out),
        held_out=tuple(past_study for past_study in past_studies if task_key(past_study) in out),
    )


def make_examples(
    past_studies: Sequence[PastStudy], model: Model, count_tokens: CountTokens, *, seed: int
) -> list[TrainingExample]:
    """Return the training examples of some studies, each prompt and each answer once.

    Args:
        past_studies: usable studies; similar ones also supply answers for each other.
        model: the model to train.
        count_tokens: counts the tokens of a rendered prompt, by that model.
        seed: seed of the answers.
    """
    rng = np.random.default_rng(seed)
    found: dict[tuple[Message, ...], TrainingExample] = {}
    for past_study in past_studies:
        candidates = relabeling.find_candidates(past_study, past_studies, rng)
        for example in _make_study_examples(past_study, candidates, model, count_tokens, rng):
            known = found.get(example.messages)
            if known is not None:
                both = tuple(dict.fromkeys([*known.answers, *example.answers]))
                example = dataclasses.replace(example, answers=both)
            found[example.messages] = example
    return list(found.values())


def _make_study_examples(
    past_study: PastStudy,
    candidates: relabeling.AnswerCandidates,
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
            for config in candidates.draw(trials, LATER_ANSWERS if cut else FIRST_ANSWERS, rng)
        ]
        if answers:
            yield TrainingExample(
                past_study.study, tuple(messages), tuple(dict.fromkeys(answers)), cut
            )


def format_answer(
    history: History, config: dict[str, Value], model: Model, shown: Sequence[int]
) -> str:
    """Return the text of an answer, checked by the parser of the grammar.

    A chat model also gives a rationale, which is computed from the trials.

    Raises:
        ConfigurationError: the configuration is not in the space.
    """
    space, chat = history.task.space, model.prompt == "chat"
    text = space.text(config)
    if chat:
        reason, evidence = rationale.compute_rationale(history, config)
        analysis = "".join(c if c.isprintable() else " " for c in reason)[:MAX_ANALYSIS]
        cited = [number for number in evidence if number in shown][:MAX_EVIDENCE]
        text = (
            f'{{"analysis":{json.dumps(analysis, ensure_ascii=False)},"config":{text},'
            f'"evidence":{json.dumps(cited, separators=(",", ":"))}}}'
        )
    grammar.parse_answer(text, space, rationale=chat, trials=shown)
    return text
