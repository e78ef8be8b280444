from __future__ import annotations

import numpy as np
import pytest

from localhpo.creator import History, open_creator
from localhpo.creator.hybrid import HybridCreator
from localhpo.creator.model_source import SAMPLES
from localhpo.errors import (
    BackendError,
    CardError,
    GenerationError,
    InputError,
    MissingExtraError,
    ModelError,
    SpaceExhaustedError,
)
from localhpo.space import Categorical, Float, Int, Ordinal, Space
from localhpo.task import CreatorSettings
from localhpo.trial import State, Trial

SPACE = Space([Float("rate", 1e-4, 1.0, log=True), Int("depth", 1, 10)])
NAMED = Space([Float("rate", 1e-4, 1.0, log=True, default=0.1), Int("depth", 1, 10)])


@pytest.fixture
def good_backend(fake_backend):
    """Return a model that answers with draws around what is good; it keeps its calls."""

    def make(space=SPACE, style="compact"):
        rng = np.random.default_rng(0)

        def answer(call, sample):
            rate = 10.0 ** np.clip(rng.normal(-2.0, 0.5), -4.0, 0.0)
            return space.text({"rate": rate, "depth": int(np.clip(rng.normal(4, 1), 1, 10))})

        return fake_backend(answer, style)

    return make


def loss(config):
    return (np.log10(config["rate"]) + 2.0) ** 2 + (config["depth"] - 4) ** 2 / 20


def run(make, task, trials, seed=0):
    done = []
    for number in range(trials):
        creator = make()
        (proposal,) = creator.propose(History(task, tuple(done), seed, number), 1)
        done.append(Trial(number, State.COMPLETE, proposal, values=(float(loss(proposal.config)),)))
    return done


def settings(name="hybrid", **more):
    return CreatorSettings(name=name, **more)


@pytest.fixture
def random_backend(fake_backend):
    """Return a configuration model that answers at random."""

    def make(space=SPACE):
        rng = np.random.default_rng(0)
        return fake_backend(lambda call, sample: space.text(space.sample(rng)), "compact")

    return make


def origins(trials):
    return [str(trial.proposal.origin) for trial in trials]


@pytest.mark.parametrize("style", ["compact", "chat"])
def test_the_default_comes_first_then_the_model_then_the_guided_optimizer(
    make_task, good_backend, style
):
    task, backend = make_task(space=NAMED), good_backend(NAMED, style)
    creator = open_creator(task, backend=backend)
    trials = run(lambda: creator, task, 8)
    assert origins(trials)[:2] == ["default", "llm"]
    assert set(origins(trials)[2:]) == {"bo+llm", "bo"}
    assert trials[0].config == NAMED.default()
    assert trials[0].proposal.rationale.startswith("the task's defaults")
    for trial in trials[2:]:
        guided = trial.proposal.origin.uses("llm")
        assert ("guided by the language model" in trial.proposal.rationale) == guided
        assert (trial.proposal.model_digest is not None) == guided
        assert trial.proposal.rationale_by == "computed"


def test_without_defaults_the_medoid_of_the_samples_is_first_and_the_center_second(
    make_task, good_backend
):
    task = make_task(space=SPACE)
    trials = run(lambda: open_creator(task, backend=good_backend()), task, 4)
    assert origins(trials)[:2] == ["llm", "default"]
    assert set(origins(trials)[2:]) <= {"bo+llm", "bo"}
    first = trials[0].proposal
    assert 10**-2.7 < first.config["rate"] < 10**-1.3
    assert first.config["depth"] in (3, 4, 5)
    assert first.answer == SPACE.text(first.config)
    assert first.note == ""


def test_a_model_that_answers_at_random_is_not_followed(make_task, random_backend):
    task = make_task(space=SPACE)
    creator = open_creator(task, backend=random_backend())
    trials = run(lambda: creator, task, 4)
    assert origins(trials) == ["default", "bo", "bo", "bo"]
    first = trials[0].proposal
    assert first.config == SPACE.default()
    assert first.rationale.startswith("the center of the space")
    assert "differ as much as random ones" in first.note
    assert "random ones" not in trials[1].proposal.note


def test_a_model_that_is_none_too_certain_guides_and_opens_nothing(make_task, fake_backend):
    """Half of its samples are alike, the others are random."""
    rng = np.random.default_rng(0)

    def answer(call, sample):
        return SPACE.text({"rate": 1e-2, "depth": 4} if sample % 4 == 0 else SPACE.sample(rng))

    task = make_task(space=SPACE)
    creator = open_creator(task, backend=fake_backend(answer, "chat"))
    trials = run(lambda: creator, task, 8)
    assert origins(trials)[0] == "default"
    assert "llm" not in origins(trials)
    assert "bo+llm" in origins(trials)


def test_a_configuration_model_that_knows_no_name_is_not_asked(make_task, fake_backend):
    space = Space([Categorical(f"Op{n}", ("none", "skip", "conv")) for n in range(5)])
    task = make_task(space=space)
    backend = fake_backend(lambda *_: "{}", "compact", known_parameters=frozenset({"alpha"}))
    creator = open_creator(task, backend=backend)
    first, second = creator.propose(History(task, (), 0, 0), 2)
    assert not backend.calls
    assert "not trained on Op0, Op1" in first.note
    assert "not trained" not in second.note
    assert len(set(first.config.values())) == 3, "the center of equal choices is no corner"


def test_a_chat_model_is_asked_for_bare_configurations_in_one_call(make_task, good_backend):
    help_text = "step size of the optimizer"
    space = Space([Float("rate", 1e-4, 1.0, log=True, help=help_text), Int("depth", 1, 10)])
    task = make_task(space=space, background="A network for prices of houses.")
    backend = good_backend(space, "chat")
    creator = open_creator(task, backend=backend)
    run(lambda: creator, task, 5)
    (call,) = backend.calls
    assert call.n == SAMPLES
    assert "analysis" not in call.constraint.schema["properties"]
    text = "\n".join(message.content for message in call.messages)
    assert "A network for prices of houses." in text
    assert help_text in text
    assert len(text) < 700


def test_a_configuration_model_is_asked_in_the_form_that_it_knows(make_task, fake_backend):
    space = Space([
        Ordinal("optim.lr", (1e-4, 1e-3, 1e-2, 1e-1)), Ordinal("n_units_1", (16, 32, 64)),
        Ordinal("n_units_2", (16, 32, 64)),
    ])  # fmt: skip
    task = make_task(space=space)
    backend = fake_backend(
        lambda *_: '{"learning_rate":2.1e-3,"hidden_size":60}', "compact",
        known_parameters=frozenset({"learning_rate", "hidden_size"}),
    )  # fmt: skip
    (proposal,) = open_creator(task, backend=backend).propose(History(task, (), 0, 0), 1)
    assert str(proposal.origin) == "llm"
    assert proposal.config == {"optim.lr": 1e-3, "n_units_1": 64, "n_units_2": 64}
    (call,) = backend.calls
    assert "learning_rate float log 1e-4..1e-1" in call.messages[-1].content


def costs(trials):
    return [(t.proposal.prompt_tokens, t.proposal.completion_tokens) for t in trials]


def test_a_configuration_model_is_asked_once_and_its_cost_is_counted_once(make_task, good_backend):
    task, backend = make_task(space=NAMED), good_backend(NAMED)
    creator = open_creator(task, backend=backend)
    trials = run(lambda: creator, task, 6)
    assert len(backend.calls) == 1
    assert sum(prompt for prompt, _ in costs(trials)) == 100
    assert sum(completion for _, completion in costs(trials)) == 10 * SAMPLES
    for trial in trials:
        asked = trial.proposal.origin.uses("llm")
        assert trial.proposal.model_digest == ("digest-of-fake" if asked else None)
        assert (trial.proposal.prompt_sha256 is not None) == asked


def test_the_cost_of_a_model_that_is_not_followed_is_counted_too(make_task, random_backend):
    task, backend = make_task(space=SPACE), random_backend()
    creator = open_creator(task, backend=backend)
    trials = run(lambda: creator, task, 3)
    assert len(backend.calls) == 1
    assert costs(trials) == [(100, 10 * SAMPLES), (0, 0), (0, 0)]


def test_a_configuration_model_is_shown_no_trials(make_task, make_trial, good_backend):
    """It is asked as if nothing had been tried; the trials speak for themselves."""
    task = make_task(space=SPACE)
    known = tuple(
        make_trial(n, SPACE.sample(np.random.default_rng(n)), value=0.25 + n) for n in range(5)
    )
    prompts = []
    for trials in ((), known):
        backend = good_backend()
        creator = open_creator(task, backend=backend)
        (proposal,) = creator.propose(History(task, trials, 1, len(trials)), 1)
        (call,) = backend.calls
        prompts.append((call.messages, call.seed, call.n))
        assert not any(SPACE.text(trial.config) in proposal.prompt for trial in known)
    assert prompts[0] == prompts[1]


def test_a_resumed_study_proposes_the_same(make_task, good_backend):
    task = make_task(space=NAMED)
    creator = open_creator(task, backend=good_backend(NAMED))
    lived = run(lambda: creator, task, 7)
    resumed = run(lambda: open_creator(task, backend=good_backend(NAMED)), task, 7)
    assert [t.config for t in lived] == [t.config for t in resumed]
    assert [t.proposal.note for t in lived] == [t.proposal.note for t in resumed]


@pytest.mark.parametrize("space", [SPACE, NAMED], ids=["center", "default"])
def test_parallel_proposals_at_the_start_differ_and_have_their_true_origins(
    make_task, good_backend, space
):
    task = make_task(space=space)
    creator = open_creator(task, backend=good_backend(space))
    proposals = creator.propose(History(task, (), 0, 0), 8)
    assert len({space.key(proposal.config) for proposal in proposals}) == 8
    opened = ["default", "llm"] if space.has_defaults else ["llm", "default"]
    assert [str(p.origin) for p in proposals] == [*opened, *["llm"] * 6]
    assert sum(proposal.completion_tokens for proposal in proposals) == 10 * SAMPLES


def test_parallel_proposals_of_an_uncertain_model_differ(make_task, random_backend):
    task = make_task(space=SPACE)
    proposals = open_creator(task, backend=random_backend()).propose(History(task, (), 0, 0), 5)
    assert len({SPACE.key(proposal.config) for proposal in proposals}) == 5
    assert [str(p.origin) for p in proposals] == ["default", *["bo"] * 4]


def test_the_model_proposes_until_a_trial_has_a_value(make_task, make_trial, good_backend):
    task = make_task(space=SPACE)
    creator = open_creator(task, backend=good_backend())
    trials = []
    for number in range(4):
        (proposal,) = creator.propose(History(task, tuple(trials), 0, number), 1)
        trials.append(Trial(number, State.FAILED, proposal))
    assert origins(trials) == ["llm", "default", "llm", "llm"]
    assert len({SPACE.key(trial.config) for trial in trials}) == 4


def test_a_model_with_one_answer_is_followed_by_the_optimizer(make_task, fake_backend):
    backend = fake_backend(lambda call, sample: SPACE.text({"rate": 1e-2, "depth": 4}), "compact")
    proposals = open_creator(make_task(space=SPACE), backend=backend).propose(
        History(make_task(space=SPACE), (), 0, 0), 4
    )
    assert proposals[0].config == {"rate": 1e-2, "depth": 4}
    assert [str(p.origin) for p in proposals] == ["llm", "default", *["bo+llm"] * 2]
    assert len({SPACE.key(proposal.config) for proposal in proposals}) == 4


def test_a_right_model_helps_and_a_wrong_one_is_overcome(make_task, good_backend):
    task = make_task(space=SPACE)

    def best(backend, objective, trials, seed):
        creator = HybridCreator() if backend is None else open_creator(task, backend=backend)
        done = []
        for number in range(trials):
            (proposal,) = creator.propose(History(task, tuple(done), seed, number), 1)
            value = float(objective(proposal.config))
            done.append(Trial(number, State.COMPLETE, proposal, values=(value,)))
        return min(trial.value for trial in done)

    def elsewhere(config):
        return (np.log10(config["rate"]) + 0.5) ** 2 + (config["depth"] - 9) ** 2 / 20

    seeds = range(3)
    helped = np.mean([best(good_backend(), loss, 4, seed) for seed in seeds])
    alone = np.mean([best(None, loss, 4, seed) for seed in seeds])
    assert helped < alone
    assert np.mean([best(good_backend(), elsewhere, 15, seed) for seed in seeds]) < 0.1


@pytest.mark.parametrize("style", ["chat", "compact"])
def test_the_optimizer_replaces_a_failing_model_under_its_own_name(make_task, fake_backend, style):
    def fail(call, sample):
        raise BackendError("the server is gone")

    task = make_task(space=SPACE)
    creator = open_creator(task, backend=fake_backend(fail, style))
    trials = run(lambda: creator, task, 2)
    assert origins(trials) == ["default", "bo"]
    assert all("the server is gone" in trial.proposal.note for trial in trials)
    assert all(trial.proposal.model_digest is None for trial in trials)
    strict = make_task(space=SPACE, creator=settings(on_model_error="stop"))
    with pytest.raises(ModelError, match="the server is gone"):
        open_creator(strict, backend=fake_backend(fail, style)).propose(
            History(strict, (), 0, 0), 1
        )


def test_the_optimizer_replaces_a_configuration_model_without_valid_answers(
    make_task, fake_backend
):
    task = make_task(space=SPACE)
    creator = open_creator(task, backend=fake_backend(lambda call, sample: "{}", "compact"))
    (proposal,) = creator.propose(History(task, (), 0, 0), 1)
    assert str(proposal.origin) == "default"
    assert f"none of its {SAMPLES} answers was a valid configuration" in proposal.note
    assert proposal.config == SPACE.default()


def test_the_cost_of_invalid_answers_is_counted(make_task, fake_backend):
    task = make_task(space=SPACE)
    creator = open_creator(task, backend=fake_backend(lambda call, sample: "{}", "compact"))
    (proposal,) = creator.propose(History(task, (), 0, 0), 1)
    assert (proposal.prompt_tokens, proposal.completion_tokens) == (100, 10 * SAMPLES)


def test_a_configuration_model_is_asked_again_after_an_answer_that_did_not_end(
    make_task, fake_backend
):
    def answer(call, sample):
        if call == 0:
            raise GenerationError("did not end")
        return SPACE.text({"rate": 1e-2, "depth": 4})

    strict = make_task(space=SPACE, creator=settings(on_model_error="stop"))
    creator = open_creator(strict, backend=fake_backend(answer, "compact"))
    (proposal,) = creator.propose(History(strict, (), 0, 0), 1)
    assert str(proposal.origin) == "llm"


def test_an_exhausted_space_is_reported_before_the_model_is_asked(
    make_task, make_trial, fake_backend
):
    def fail(call, sample):
        raise BackendError("the server is gone")

    space = Space([Int("depth", 1, 2)])
    strict = make_task(space=space, creator=settings(on_model_error="stop"))
    trials = tuple(make_trial(n, {"depth": n + 1}, value=0.0) for n in range(2))
    backend = fake_backend(fail, "compact")
    with pytest.raises(SpaceExhaustedError):
        open_creator(strict, backend=backend).propose(History(strict, trials, 0, 2), 1)
    assert not backend.calls


@pytest.mark.parametrize("nested", [False, True], ids=["plain", "conditions"])
def test_without_a_model_the_center_comes_first_and_the_optimizer_goes_on(make_task, nested):
    space = SPACE
    if nested:
        space = Space([Int("depth", 1, 3), Float("rate", 1e-4, 1.0, when={"depth": (2, 3)})])
    task = make_task(space=space)
    creator = HybridCreator(note="no language model: torch is missing")
    trials = []
    for number in range(6):
        (proposal,) = creator.propose(History(task, tuple(trials), 0, number), 1)
        trials.append(Trial(number, State.COMPLETE, proposal, values=(float(number),)))
    assert origins(trials) == ["default", *["bo"] * 5]
    assert trials[0].config == space.default()
    assert trials[0].proposal.rationale.startswith("the center of the space")
    assert all("no language model" in trial.proposal.note for trial in trials)


def missing(*args, **kwargs):
    raise MissingExtraError("torch", "the transformers backend", "local")


def test_a_missing_extra_stops_the_agent_and_a_strict_hybrid(make_task, monkeypatch):
    monkeypatch.setattr("localhpo.creator.registry.open_backend", missing, raising=False)
    for chosen in (
        settings("agent"),
        settings("hybrid", on_model_error="stop"),
        settings("hybrid", backend="vllm"),  # which was asked for
        settings("hybrid", model="Qwen3-8B"),
    ):
        with pytest.raises(MissingExtraError):
            open_creator(make_task(creator=chosen))
    task = make_task(space=SPACE)
    (proposal,) = open_creator(task).propose(History(task, (), 0, 0), 1)
    assert "pip install 'localhpo[local]'" in proposal.note


def test_a_broken_model_is_an_error(make_task, monkeypatch):
    def broken(*args, **kwargs):
        raise CardError("a hash is wrong")

    monkeypatch.setattr("localhpo.creator.registry.open_backend", broken, raising=False)
    with pytest.raises(CardError):
        open_creator(make_task())


@pytest.mark.parametrize("name", ["bo", "random", "tpe", "gp", "cmaes"])
def test_an_engine_needs_no_model(make_task, monkeypatch, name):
    monkeypatch.setattr("localhpo.creator.registry.open_backend", missing, raising=False)
    assert open_creator(make_task(creator=settings(name))).name == name


def test_an_unknown_creator_is_named_with_the_nearest_known_one(make_task):
    with pytest.raises(
        InputError, match="one of hybrid, agent, bo, random, tpe, gp, cmaes"
    ) as caught:
        open_creator(make_task(creator=settings("hybird")))
    assert caught.value.hint == "did you mean 'hybrid'?"
