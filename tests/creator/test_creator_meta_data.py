"""Meta-data of past data sets, in the initial design and in the prior."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from localhpo import tasks
from localhpo.creator import History, open_creator
from localhpo.creator.bo.optimizer import MAX_HALF_GUIDED
from localhpo.creator.bo.transfer_prior import (
    RANDOM_CANDIDATES,
    SurrogateEnsemble,
    ranking_log_likelihood,
)
from localhpo.creator.hybrid import NOTHING_RETRIEVED
from localhpo.creator.meta_data import open_meta_data
from localhpo.errors import InputError, MissingExtraError
from localhpo.llm.models.description import META_DATA
from localhpo.llm.models.registry import DEFAULT, find_model
from localhpo.objective import Objective
from localhpo.space import Categorical, Float, Int, Space
from localhpo.task import CreatorSettings, load_task
from localhpo.transfer import PastStudy, retrieve_configs, source_tasks
from localhpo.transfer.source_tasks import SourceTask
from localhpo.trial import META, State, Trial

SPACE = Space(
    [
        Float("rate", 1e-4, 1.0, log=True),
        Int("depth", 1, 10),
        Categorical("booster", ("tree", "dart")),
        Float("drop", 0.0, 1.0, when={"booster": ("dart",)}),
    ]
)
DEPTHS = (2, 4, 6, 8, 9)
"""Where each of the past data sets is best; the rate is .01 everywhere."""


def regret(config, depth):
    """On a data set that is best at a depth: 0 to some 2."""
    away = (np.log10(config["rate"]) + 2.0) ** 2 / 4 + (config["depth"] - depth) ** 2 / 20
    return float(away + 0.1 * (config["booster"] == "dart") * (1.0 + config.get("drop", 0.0)))


@pytest.fixture
def source_task(make_task):
    rng = np.random.default_rng(0)
    configs = tuple(SPACE.sample(rng) for _ in range(80))
    regrets = tuple(tuple(min(1.5, regret(c, d)) for c in configs) for d in DEPTHS)
    names = tuple(f"best at {depth}" for depth in DEPTHS)
    task = make_task(name="trees", space=SPACE)
    return SourceTask(task, configs, names, regrets, (0.7, 0.7, 1.5, 1.5), 0.01)


@pytest.fixture
def task(make_task):
    return make_task(space=SPACE)


@pytest.fixture
def backend(source_task, fake_backend, tmp_path):
    """A configuration model that brings the source task."""
    source_tasks.write_source_tasks(tmp_path / "lessons.json.gz", [source_task])
    backend = fake_backend(
        lambda *_: '{"rate":5e-1,"depth":2,"booster":"dart","drop":0.5}', "compact"
    )
    backend.model = dataclasses.replace(backend.model, meta_data=tmp_path / "lessons.json.gz")
    return backend


def run(creator, task, trials, depth=8):
    done = []
    for number in range(trials):
        (proposal,) = creator.propose(History(task, tuple(done), 0, number), 1)
        config = {**task.fixed, **proposal.config}
        done.append(Trial(number, State.COMPLETE, proposal, values=(regret(config, depth),)))
    return done


def origins(trials):
    return [str(trial.proposal.origin) for trial in trials]


def make_ensemble(task, source_task):
    return SurrogateEnsemble(task, [(source_task, 1.0)], np.random.default_rng(0))


def first_config(source, task):
    return next(source.first_configs(History(task, (), 0, 0)))


def test_the_initial_design_comes_first_and_then_meta_data_guides_the_optimizer(task, backend):
    trials = run(open_creator(task, backend=backend), task, 10)
    assert origins(trials)[0] == "meta"
    assert set(origins(trials)) <= {"meta", "default", "bo+meta", "bo"}
    assert "bo+meta" in origins(trials)
    assert (
        "5 similar data sets (trees), which come with the model fake"
        in trials[0].proposal.rationale
    )
    assert all(trial.proposal.model_digest is None for trial in trials)
    assert not backend.calls, "a configuration model was trained on its own meta-data"
    guided = next(t for t in trials if str(t.proposal.origin) == "bo+meta")
    assert "guided by 5 similar data sets" in guided.proposal.rationale


def test_a_prior_that_explains_all_trials_guides_half_of_the_later_ones(task, backend):
    late = origins(run(open_creator(task, backend=backend), task, MAX_HALF_GUIDED + 24))[-14:]
    assert set(late) == {"bo+meta", "bo"}


def test_the_initial_design_is_good_from_the_first_trial(task, backend):
    for depth in DEPTHS:
        trials = run(open_creator(task, backend=backend), task, 5, depth)
        worst = regret({"rate": 1e-2, "depth": 10 if depth < 6 else 1, "booster": "tree"}, depth)
        assert trials[0].value < 0.6 * worst
        assert min(trial.value for trial in trials) < 0.15


def test_a_configuration_that_is_good_on_most_data_sets_comes_first(task, source_task):
    ensemble = make_ensemble(task, source_task)
    first = ensemble.candidates[ensemble.rank_candidates(())[0]]
    assert 4 <= first["depth"] <= 8
    assert first["booster"] == "tree"
    assert 1e-3 < first["rate"] < 1e-1


def test_trials_show_which_data_sets_are_similar(task, source_task, make_trial):
    ensemble = make_ensemble(task, source_task)
    assert ensemble.weights(()) == pytest.approx(np.full(5, 0.2))
    configs = [{"rate": 1e-2, "depth": d, "booster": "tree"} for d in (1, 3, 5, 7, 9)]
    trials = [make_trial(n, c, value=regret(c, 9)) for n, c in enumerate(configs)]
    weights = ensemble.weights(trials)
    assert weights.sum() == pytest.approx(1.0)
    assert weights.argmax() in (3, 4)
    assert weights[0] < 0.1
    best = ensemble.candidates[ensemble.rank_candidates(trials)[0]]
    assert best["depth"] >= 7


def test_the_likelihood_depends_on_the_ranking_alone(task, source_task):
    regrets = np.array([[0.0, 0.5, 1.0], [1.0, 0.5, 0.0]])
    for y in (np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.1, 900.0])):
        found = ranking_log_likelihood(regrets, y)
        assert found[0] == 0.0
        assert found[1] < -1.0


def test_surrogates_predict_the_regret_of_other_points(task, source_task):
    """The design has 80 points; the error on 200 new ones is small."""
    ensemble = make_ensemble(task, source_task)
    rng = np.random.default_rng(5)
    configs = [SPACE.sample(rng) for _ in range(200)]
    predicted = ensemble.regrets(np.array([SPACE.encode(config) for config in configs]))
    for row, depth in zip(predicted, DEPTHS, strict=True):
        true = np.array([regret(config, depth) for config in configs])
        assert np.corrcoef(row, np.minimum(true, 1.5))[0, 1] > 0.95


def test_a_part_of_the_space_with_other_spellings_and_a_fixed_value(make_task, backend):
    """The depth is fixed, the rate has another range, and the categories another order."""
    space = Space(
        [
            Categorical("booster", ("dart", "tree")),
            Float("Rate", 1e-3, 1e-1),
            Float("drop", 0.0, 0.5, when={"booster": ("dart",)}),
        ]
    )
    task = make_task(name="trees", space=space, fixed={"depth": 9})
    source = open_meta_data(task, backend.model)
    assert source is not None
    first = first_config(source, task).config
    assert first["booster"] == "tree"
    assert first["Rate"] < 5e-2


def test_a_default_of_the_task_still_comes_first(make_task, backend):
    named = Space([dataclasses.replace(SPACE["rate"], default=0.1), *SPACE.parameters[1:]])
    task = make_task(space=named)
    trials = run(open_creator(task, backend=backend), task, 2)
    assert origins(trials) == ["default", "meta"]


def test_misleading_meta_data_is_given_up(task, backend):
    """The trials contradict all data sets."""

    def opposite(config):
        return -regret(config, 5)

    creator, done = open_creator(task, backend=backend), []
    for number in range(20):
        (proposal,) = creator.propose(History(task, tuple(done), 0, number), 1)
        done.append(Trial(number, State.COMPLETE, proposal, values=(opposite(proposal.config),)))
    assert "bo" in origins(done[4:])
    rng = np.random.default_rng(0)
    blind = [min(opposite(SPACE.sample(rng)) for _ in range(20)) for _ in range(20)]
    assert min(trial.value for trial in done) < np.median(blind)


def test_the_next_candidate_is_tried_while_all_trials_fail(task, backend):
    creator, failed = open_creator(task, backend=backend), []
    for number in range(7):
        (proposal,) = creator.propose(History(task, tuple(failed), 0, number), 1)
        failed.append(Trial(number, State.FAILED, proposal))
    assert origins(failed) == ["meta", "meta", "meta", "bo", "meta", "meta", "meta"]
    assert failed[3].proposal.rationale.startswith("exploration trial, far from all others")
    assert len({SPACE.key(trial.config) for trial in failed}) == len(failed)


def test_past_studies_and_meta_data_guide_together(task, backend, make_trial):
    rng = np.random.default_rng(1)
    configs = [SPACE.sample(rng) for _ in range(20)]
    past = PastStudy("own/old", task, tuple(
        make_trial(n, c, value=regret(c, 8)) for n, c in enumerate(configs)
    ))  # fmt: skip
    own = retrieve_configs(task, [past])
    trials = run(open_creator(task, backend=backend, retrieved=own), task, 8)
    assert set(origins(trials)[:3]) == {"meta", "transfer"}
    assert {"bo+meta+transfer", "bo+meta", "bo+transfer"} & set(origins(trials))


def test_a_fine_tuned_model_is_asked(make_task, backend):
    task = make_task(space=SPACE, creator=CreatorSettings(transfer="finetuned"))
    trials = run(open_creator(task, backend=backend), task, 6)
    assert backend.calls
    assert "on 5 similar data sets (trees)" in " ".join(
        trial.proposal.rationale for trial in trials[:4]
    )


def test_source_tasks_of_the_tasks_metric_count(make_task, backend, source_task):
    auc = make_task(name="trees", space=SPACE, objectives=(Objective("auc", "maximize"),))
    other = dataclasses.replace(source_task, task=auc, data_sets=tuple("abcde"))
    source_tasks.write_source_tasks(backend.model.meta_data, [source_task, other])

    def reason_for(task):
        return first_config(open_meta_data(task, backend.model), task).rationale

    assert "on 5 similar data sets" in reason_for(make_task(space=SPACE))
    assert "on 5 similar data sets" in reason_for(auc)
    assert "on 10 similar data sets" in reason_for(
        make_task(space=SPACE, objectives=(Objective("f1", "maximize"),))
    )


def test_a_source_task_of_another_kind_of_model_does_not_count(make_task, backend):
    """Two of its five hyperparameters have the names of those that were tuned there."""
    others = [Float("dropout", 0.0, 0.5), Int("heads", 1, 16), Float("warmup", 0.0, 0.3)]
    task = make_task(space=Space([*SPACE.parameters[:2], *others]))
    assert open_meta_data(task, backend.model) is None


TREES = load_task(tasks.find("breast-cancer-xgboost")).space
"""Hyperparameters of XGBoost: the built-in model has meta-data of them."""


def test_a_configuration_model_without_meta_data_brings_none(make_task, fake_backend):
    task = make_task(space=TREES)
    assert open_meta_data(task, fake_backend(lambda *_: "{}", "compact").model) is None


def test_meta_data_of_the_built_in_model_serves_a_chat_model(make_task, task, fake_backend):
    model = fake_backend(lambda *_: "{}", "chat").model
    assert open_meta_data(task, model) is None  # there is no meta-data with drops in boosters
    trees = make_task(space=TREES, objectives=(Objective("accuracy", "maximize"),))
    reason = first_config(open_meta_data(trees, model), trees).rationale
    assert "which come with the model sprout" in reason


def test_meta_data_open_a_study_that_a_chat_model_guides_too(make_task, fake_backend):
    task = make_task(space=TREES, objectives=(Objective("accuracy", "maximize"),))
    backend = fake_backend(lambda *_: TREES.text(TREES.default()), "chat")
    creator, trials = open_creator(task, backend=backend), []
    for number in range(9):
        (proposal,) = creator.propose(History(task, tuple(trials), 0, number), 1)
        accuracy = -abs(np.log10(proposal.config["learning_rate"]) + 1.0)
        trials.append(Trial(number, State.COMPLETE, proposal, values=(float(accuracy),)))
    assert set(origins(trials)[:3]) == {"meta"}
    assert any("llm" in origin for origin in origins(trials))


@pytest.mark.parametrize("style", ["chat", "compact"])
def test_meta_data_serves_where_the_model_fails(make_task, backend, fake_backend, style):
    task = make_task(space=TREES, creator=CreatorSettings(on_model_error="engine"))
    broken = fake_backend(lambda *_: "nonsense", style)
    if style == "compact":
        broken.model = dataclasses.replace(broken.model, meta_data=built_in_meta_data())
        task = dataclasses.replace(task, creator=CreatorSettings(transfer="finetuned"))
    (proposal,) = open_creator(task, backend=broken).propose(History(task, (), 0, 0), 1)
    assert proposal.origin == META
    assert "without the model: none of its" in proposal.note


def built_in_meta_data():
    return find_model(DEFAULT) / META_DATA


def test_meta_data_needs_no_model(make_task, monkeypatch):
    def missing(*args, **kwargs):
        raise MissingExtraError("torch", "the transformers backend", "local")

    monkeypatch.setattr("localhpo.creator.registry.open_backend", missing)
    task = make_task(space=TREES, objectives=(Objective("accuracy", "maximize"),))
    trials = []
    creator = open_creator(task)
    for number in range(2):
        (proposal,) = creator.propose(History(task, tuple(trials), 0, number), 1)
        trials.append(Trial(number, State.COMPLETE, proposal, values=(0.5,)))
    assert origins(trials)[0] == "meta"
    assert not any(trial.proposal.note for trial in trials), "it would not be asked anyway"


def test_a_note_tells_that_nothing_was_retrieved_beside_meta_data(make_task, backend):
    asking = CreatorSettings(transfer="retrieve")
    task = make_task(space=SPACE, creator=asking)
    first, second = run(open_creator(task, backend=backend), task, 2)
    assert first.proposal.note == NOTHING_RETRIEVED
    assert not second.proposal.note


def test_unreadable_meta_data_is_an_error(task, backend):
    backend.model.meta_data.write_bytes(b"none")
    with pytest.raises(InputError, match="source tasks cannot be read"):
        open_creator(task, backend=backend)


def test_every_candidate_is_valid_and_unique(task, source_task):
    ensemble = make_ensemble(task, source_task)
    assert len(ensemble.candidates) > 0.9 * RANDOM_CANDIDATES
    for config in ensemble.candidates:
        SPACE.validate(config)
    assert len({SPACE.key(config) for config in ensemble.candidates}) == len(ensemble.candidates)
