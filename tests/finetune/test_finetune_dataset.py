"""Training examples from past studies."""

import json
from dataclasses import replace

import numpy as np
import pytest
from decoder import Decoder
from made_history import BEST, SPACE, make_past

from localhpo import grammar
from localhpo.creator import History, context, prompt
from localhpo.creator.agent import Agent
from localhpo.creator.hybrid import HybridCreator
from localhpo.creator.model_source import ModelSource
from localhpo.creator.prompt import LIMITS, fit_prompt
from localhpo.errors import InputError, ModelError
from localhpo.finetune import dataset, relabeling
from localhpo.finetune.relabeling import quantize_config
from localhpo.llm.scripted import ScriptedBackend
from localhpo.objective import Constraint, Objective
from localhpo.space import Space
from localhpo.trial import State


class Asked(ScriptedBackend):
    """Answers with the center of the space, and records the prompts."""

    def __init__(self, style, context_length=4096):
        self.questions = []
        super().__init__(self._answer, context_length=context_length)
        self._style = style
        self.model = replace(self.model, prompt=style)

    def _answer(self, messages, constraint, seed):
        self.questions.append(tuple(messages))
        text = SPACE.text(SPACE.default())
        if self._style == "compact":
            return text
        return f'{{"analysis":"none","config":{text},"evidence":[]}}'


def count(messages):
    return sum(len(message.content.split()) for message in messages)


@pytest.fixture(params=["compact", "chat"])
def asked(request):
    return Asked(request.param)


def examples(past_studies, backend, seed=1):
    return dataset.make_examples(past_studies, backend.model, backend.count_tokens, seed=seed)


def agent_of(backend):
    return Agent(backend, on_model_error="stop", fallback=HybridCreator().propose_one)


def test_training_prompts_equal_inference_prompts_byte_for_byte(past_studies, asked):
    found = [e for e in examples(past_studies[:3], asked) if e.study == past_studies[0].study]
    agent = agent_of(asked)
    assert [e.shown for e in found] == [
        n for n in dataset.SHOWN_TRIALS[asked.model.prompt] if n < 8
    ]
    for example in found:
        trials = past_studies[0].trials[: example.shown]
        history = History(past_studies[0].task, trials, seed=0, next_number=example.shown)
        asked.questions.clear()
        agent.propose(history, 1)
        assert asked.questions[0] == example.messages


@pytest.mark.parametrize("style", ["compact", "chat"])
def test_long_histories_are_shortened_as_at_inference(style):
    past = make_past(0, trials=24)
    cut = dataset.SHOWN_TRIALS[style][-1]
    history = History(past.task, past.trials[:cut], seed=0, next_number=cut)
    shown = []
    for size in edges(history, style):
        asked = Asked(style, context_length=size)
        agent_of(asked).propose(history, 1)
        (*_, example) = examples([past], asked)
        assert example.shown == cut
        assert asked.questions[0] == example.messages
        shown.append(len(fit_prompt(history, asked.model, asked.count_tokens)[1]))
    assert shown == sorted(shown)
    assert len(set(shown)) == 4


def edges(history, style):
    """Return context lengths that just fit few, some and more trials, or miss one token."""
    asked = Asked(style)
    room = fit_prompt(history, asked.model, asked.count_tokens)[2]
    few, some, more = (
        asked.count_tokens(prompt.render_messages(context.build_facts(history, limit=limit), style))
        + room
        for limit in (LIMITS[style][i] for i in (-3, -4, 1))
    )
    return few, some - 1, some, more - 1, more


@pytest.mark.parametrize("style", ["compact", "chat"])
def test_prompts_beyond_the_context_are_refused_as_at_inference(style):
    past = make_past(0)
    asked = Asked(style, context_length=60)
    history = History(past.task, (), seed=0, next_number=0)
    with pytest.raises(ModelError, match="context of 60 tokens"):
        agent_of(asked).propose(history, 1)
    with pytest.raises(ModelError, match="context of 60 tokens"):
        examples([past], asked)


def test_the_first_prompt_equals_that_of_hybrid(past_studies):
    asked = Asked("compact")
    (first, *_) = examples(past_studies[:2], asked)
    ModelSource(asked).draw(History(past_studies[0].task, past_studies[0].trials, 0, 8))
    assert first.shown == 0
    assert asked.questions[0] == first.messages


def test_the_grammar_accepts_every_answer(past_studies, asked):
    chat = asked.model.prompt == "chat"
    for example in examples(past_studies[:2], asked):
        past = next(p for p in past_studies if p.study == example.study)
        shown = [trial.number for trial in past.trials[: example.shown]]
        decoder = Decoder(grammar.lark_grammar(SPACE, rationale=chat, trials=shown))
        for answer in example.answers:
            assert decoder.accepts(answer), answer


def test_answers_are_good_and_neither_shown_nor_failed(past_studies):
    for example in examples(past_studies, Asked("compact")):
        past = next(p for p in past_studies if p.study == example.study)
        configs = [SPACE.canonical(json.loads(answer)) for answer in example.answers]
        assert len(set(example.answers)) == len(configs)
        near = np.mean([SPACE.distance(config, BEST) for config in configs])
        anywhere = np.mean([SPACE.distance(trial.config, BEST) for trial in past.trials])
        assert near < 0.6 * anywhere
        failed = {SPACE.key(t.config) for t in past.trials if t.state is State.FAILED}
        shown = {SPACE.key(trial.config) for trial in past.trials[: example.shown]}
        assert not (failed | shown) & {SPACE.key(config) for config in configs}


def test_failed_configurations_are_no_answers():
    good = make_past(1, trials=12, fails=0)
    best = good.ranked_trials[0]
    failed = make_past(2, trials=6)
    bad = replace(
        failed.trials[0],
        proposal=replace(failed.trials[0].proposal, config=quantize_config(SPACE, best.config)),
    )
    failed = replace(failed, trials=(bad, *failed.trials[1:]))
    found = relabeling.find_candidates(failed, [good, failed], np.random.default_rng(0))
    assert SPACE.key(bad.config) not in {SPACE.key(config) for config in found.configs}


def test_infeasible_trials_are_no_answers():
    past = make_past(0, trials=12, fails=0)
    best = past.ranked_trials[0]
    config = quantize_config(SPACE, best.config)
    violating = replace(
        best, proposal=replace(best.proposal, config=config), values=(-9.0,), violations=(1.0,)
    )
    trials = tuple(violating if trial is best else trial for trial in past.trials)
    task = replace(past.task, constraints=(Constraint("size", max=1.0),))
    past = replace(past, task=task, trials=trials)
    found = relabeling.find_candidates(past, [past], np.random.default_rng(0))
    assert SPACE.key(config) not in {SPACE.key(candidate) for candidate in found.configs}
    assert found.own.min() < 0.2, "the regret is that of feasible trials"


def test_several_objectives_count_by_the_first(past_studies):
    objectives = (*past_studies[0].task.objectives, Objective("size", "minimize"))
    several = [
        replace(
            past,
            task=replace(past.task, objectives=objectives),
            trials=tuple(
                replace(trial, values=(*trial.values, 7.0) if trial.values else ())
                for trial in past.trials
            ),
        )
        for past in past_studies[:3]
    ]
    assert examples(several, Asked("compact")) == examples(past_studies[:3], Asked("compact"))


def test_studies_of_one_task_are_not_split(past_studies):
    again = [make_past(number, study="again") for number in range(10)]
    for seed in range(5):
        split = dataset.split_studies([*past_studies, *again], seed)
        train = {past.task.name for past in split.train}
        held_out = {past.task.name for past in split.held_out}
        assert not train & held_out
        assert len(held_out) == split.held_out_tasks == 5
        assert len(split.train) + len(split.held_out) == 20


@pytest.mark.parametrize(("tasks", "held_out"), [(2, 1), (11, 5), (18, 9), (24, 9), (60, 15)])
def test_enough_tasks_are_held_out_but_at_most_half(tasks, held_out):
    past_studies = [make_past(number, trials=3) for number in range(tasks)]
    assert dataset.split_studies(past_studies, 0).held_out_tasks == held_out


@pytest.mark.parametrize(
    "changes",
    [
        {"fixed": {"trees": 500}},
        {"space": Space([p for p in SPACE if p.name != "depth"]), "fixed": {"depth": 9}},
        {"background": "The made-up data set number 0.\n"},
    ],
    ids=["another fixed value", "fixed and not tuned", "white space"],
)
def test_studies_of_the_same_data_are_one_task(changes):
    past = make_past(0)
    other = replace(past, study="made-0/b", task=replace(past.task, **changes))
    assert dataset.task_key(past) == dataset.task_key(other)
    elsewhere = replace(past, task=replace(past.task, background="Other data."))
    assert dataset.task_key(past) != dataset.task_key(elsewhere)


def test_one_task_cannot_be_split(past_studies):
    with pytest.raises(InputError, match="two tasks or more, got 1"):
        dataset.split_studies([past_studies[0], make_past(0, study="again")], 0)


def test_held_out_tasks_do_not_influence_examples(past_studies):
    asked = Asked("compact")
    split = dataset.split_studies(past_studies, 0)
    before = examples(split.train, asked)
    moved = tuple(replace(past, trials=past.trials[:4]) for past in split.held_out)
    assert examples(dataset.split_studies([*split.train, *moved], 0).train, asked) == before


def test_each_prompt_comes_once(past_studies):
    found = examples(
        [past_studies[0], replace(past_studies[0], study="made-0/twin")], Asked("compact")
    )
    prompts = [example.messages for example in found]
    assert len(prompts) == len(set(prompts))
