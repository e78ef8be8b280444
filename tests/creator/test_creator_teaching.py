"""What a model was taught, in the hands of the Creator."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from localhpo import tasks
from localhpo.creator import History, open_creator
from localhpo.creator.bayes.optimizer import EVEN
from localhpo.creator.bayes.transfer import RANDOM, Transfer, agreement
from localhpo.creator.hybrid import NOTHING_SIMILAR
from localhpo.creator.remembering import joined
from localhpo.creator.teaching import BELIEVED, OPENERS, open_teacher
from localhpo.errors import InputError, MissingExtraError
from localhpo.experience import Past, lessons, recall
from localhpo.experience.lessons import Lesson
from localhpo.space import Categorical, Float, Int, Space
from localhpo.task import CreatorSettings, load
from localhpo.trial import State, Trial

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
def lesson(make_task):
    rng = np.random.default_rng(0)
    configs = tuple(SPACE.sample(rng) for _ in range(80))
    regrets = tuple(tuple(min(1.5, regret(c, d)) for c in configs) for d in DEPTHS)
    names = tuple(f"best at {depth}" for depth in DEPTHS)
    task = make_task(name="trees", space=SPACE)
    return Lesson(task, configs, names, regrets, (0.7, 0.7, 1.5, 1.5), 0.01)


@pytest.fixture
def task(make_task):
    return make_task(space=SPACE)


@pytest.fixture
def taught(lesson, fake_backend, tmp_path):
    """A small model that brings the lesson."""
    lessons.write(tmp_path / "lessons.json.gz", [lesson])
    backend = fake_backend(
        lambda *_: '{"rate":5e-1,"depth":2,"booster":"dart","drop":0.5}', "compact"
    )
    backend.model = dataclasses.replace(backend.model, lessons=tmp_path / "lessons.json.gz")
    return backend


def run(creator, task, trials, depth=8):
    done = []
    for number in range(trials):
        (proposal,) = creator.propose(History(task, tuple(done), 0, number), 1)
        config = {**task.fixed, **proposal.config}
        done.append(Trial(number, State.COMPLETE, proposal, score=regret(config, depth)))
    return done


def origins(trials):
    return [trial.proposal.origin for trial in trials]


def transfer(task, lesson):
    return Transfer(task, [(lesson, 1.0)], np.random.default_rng(0))


def test_it_opens_the_study_and_the_optimizer_leans_on_it(task, taught):
    trials = run(open_creator(task, backend=taught), task, OPENERS + 6)
    opening, later = trials[: OPENERS + 1], trials[OPENERS + 1 :]
    elsewhere = opening.pop(BELIEVED)
    assert origins(opening) == ["experience"] * OPENERS
    assert elsewhere.proposal.origin == "engine:bo"
    assert elsewhere.proposal.rationale.startswith("far from all trials")
    assert set(origins(later)) <= {"experience+bo", "engine:bo"}
    assert "experience+bo" in origins(trials)
    assert "5 data sets of trees that fake was taught" in trials[0].proposal.rationale
    assert all(trial.proposal.model_digest is None for trial in trials)
    assert len(taught.calls) == 1  # its thoughts are candidates, and poor ones
    leaning = next(t for t in trials if t.proposal.origin == "experience+bo")
    assert "the opinion of past data sets weighs" in leaning.proposal.rationale


def test_an_opinion_that_explains_all_trials_leaves_half_of_the_later_ones(task, taught):
    late = origins(run(open_creator(task, backend=taught), task, EVEN + 24))[-14:]
    assert set(late) == {"experience+bo", "engine:bo"}


def test_it_is_good_from_the_first_trial_and_soon_as_good_as_any(task, taught):
    for depth in DEPTHS:
        trials = run(open_creator(task, backend=taught), task, OPENERS, depth)
        worst = regret({"rate": 1e-2, "depth": 10 if depth < 6 else 1, "booster": "tree"}, depth)
        assert trials[0].score < 0.6 * worst
        assert min(trial.score for trial in trials) < 0.15


def test_what_does_well_everywhere_comes_first(task, lesson):
    known = transfer(task, lesson)
    first = known.candidates[known.order(())[0]]
    assert 4 <= first["depth"] <= 8
    assert first["booster"] == "tree"
    assert 1e-3 < first["rate"] < 1e-1


def test_trials_tell_which_data_sets_it_is_like(task, lesson, make_trial):
    known = transfer(task, lesson)
    assert known.weights(()) == pytest.approx(np.full(5, 0.2))
    configs = [{"rate": 1e-2, "depth": d, "booster": "tree"} for d in (1, 3, 5, 7, 9)]
    trials = [make_trial(n, c, score=regret(c, 9)) for n, c in enumerate(configs)]
    weights = known.weights(trials)
    assert weights.sum() == pytest.approx(1.0)
    assert weights.argmax() in (3, 4)
    assert weights[0] < 0.1
    best = known.candidates[known.order(trials)[0]]
    assert best["depth"] >= 7


def test_agreement_is_about_ranks(task, lesson):
    regrets = np.array([[0.0, 0.5, 1.0], [1.0, 0.5, 0.0]])
    for y in (np.array([1.0, 2.0, 3.0]), np.array([1.0, 1.1, 900.0])):
        found = agreement(regrets, y)
        assert found[0] == 0.0
        assert found[1] < -1.0


def test_processes_say_of_other_points_what_is_true_there(task, lesson):
    """The design has 80 points; on 200 new ones they err little."""
    known = transfer(task, lesson)
    rng = np.random.default_rng(5)
    configs = [SPACE.sample(rng) for _ in range(200)]
    told = known.regrets(np.array([SPACE.encode(config) for config in configs]))
    for row, depth in zip(told, DEPTHS, strict=True):
        true = np.array([regret(config, depth) for config in configs])
        assert np.corrcoef(row, np.minimum(true, 1.5))[0, 1] > 0.95


def test_a_crop_with_other_words_and_what_is_fixed(make_task, taught):
    """The depth is fixed, the rate has another range, and the categories another order."""
    space = Space(
        [
            Categorical("booster", ("dart", "tree")),
            Float("Rate", 1e-3, 1e-1),
            Float("drop", 0.0, 0.5, when={"booster": ("dart",)}),
        ]
    )
    task = make_task(name="trees", space=space, fixed={"depth": 9})
    teacher = open_teacher(task, taught.model)
    assert teacher is not None
    first = teacher.propose(History(task, (), 0, 0)).config
    assert first["booster"] == "tree"
    assert first["Rate"] < 5e-2


def test_a_thought_of_the_model_is_tried_where_it_promises_more(task, lesson, taught):
    rng = np.random.default_rng(3)
    configs = [SPACE.sample(rng) for _ in range(4000)]
    regrets = transfer(task, lesson).regrets(np.array([SPACE.encode(c) for c in configs]))
    word = configs[int(regrets.mean(axis=0).argmin())]  # the best of far more than are drawn
    taught.answer = lambda *_: SPACE.text(word)
    trials = run(open_creator(task, backend=taught), task, OPENERS + 1)
    (said,) = [trial for trial in trials if trial.proposal.origin == "model"]
    assert said.config == word
    assert said.proposal.model_digest == taught.model.digest
    assert origins(trials).count("experience") == OPENERS - 1


def test_a_model_that_fails_does_not_stop_what_it_was_taught(make_task, taught):
    taught.answer = lambda *_: "none"
    settings = CreatorSettings(on_model_error="engine")
    task = make_task(space=SPACE, creator=settings)
    (trial,) = run(open_creator(task, backend=taught), task, 1)
    assert trial.proposal.origin == "experience"
    assert trial.proposal.note.startswith("stands in for the model")


def test_a_default_of_the_task_still_comes_first(make_task, taught):
    named = Space([dataclasses.replace(SPACE["rate"], default=0.1), *SPACE.parameters[1:]])
    task = make_task(space=named)
    trials = run(open_creator(task, backend=taught), task, 2)
    assert origins(trials) == ["default", "experience"]


def test_lessons_that_mislead_are_given_up(task, taught):
    """The trials say the opposite of all that was taught."""

    def opposite(config):
        return -regret(config, 5)

    creator, done = open_creator(task, backend=taught), []
    for number in range(20):
        (proposal,) = creator.propose(History(task, tuple(done), 0, number), 1)
        done.append(Trial(number, State.COMPLETE, proposal, score=opposite(proposal.config)))
    assert "engine:bo" in origins(done[OPENERS:])
    rng = np.random.default_rng(0)
    blind = [min(opposite(SPACE.sample(rng)) for _ in range(20)) for _ in range(20)]
    assert min(trial.score for trial in done) < np.median(blind)


def test_while_all_fail_the_next_candidate_is_tried(task, taught):
    creator, failed = open_creator(task, backend=taught), []
    for number in range(OPENERS + 3):
        (proposal,) = creator.propose(History(task, tuple(failed), 0, number), 1)
        failed.append(Trial(number, State.FAILED, proposal))
    assert [n for n, origin in enumerate(origins(failed)) if origin != "experience"] == [BELIEVED]
    assert len({SPACE.key(trial.config) for trial in failed}) == len(failed)


def test_the_owners_studies_and_the_model_take_part_where_there_are_such(task, taught, make_trial):
    rng = np.random.default_rng(1)
    configs = [SPACE.sample(rng) for _ in range(20)]
    past = Past("own/old", task, tuple(
        make_trial(n, c, score=regret(c, 8)) for n, c in enumerate(configs)
    ))  # fmt: skip
    own = recall(task, [past])
    trials = run(open_creator(task, backend=taught, memories=own), task, 6)
    assert taught.calls
    assert "model+experience+bo" in origins(trials)
    teacher = open_teacher(task, taught.model)
    history = History(task, (), 0, 0)
    both = joined(own, teacher.memories(history))
    assert {m.study for m in both} == {"own/old", "fake:trees on 5 data sets"}
    assert list(both) == sorted(both, key=lambda memory: -memory.weight)
    assert {m.weight for m in both if m.study == "own/old"} == {m.weight for m in own}


def test_a_model_that_its_owner_has_tuned_is_asked(make_task, taught):
    task = make_task(space=SPACE, creator=CreatorSettings(experience="finetuned"))
    trials = run(open_creator(task, backend=taught), task, 6)
    assert taught.calls
    assert "trees on 5 data sets had a mean regret of" in " ".join(
        trial.proposal.rationale for trial in trials[:4]
    )


def test_of_several_lessons_those_of_the_tasks_metric_count(make_task, taught, lesson):
    auc = make_task(name="trees", space=SPACE, metric="auc", direction="maximize")
    other = dataclasses.replace(lesson, task=auc, data_sets=tuple("abcde"))
    lessons.write(taught.model.lessons, [lesson, other])

    def taught_by(task):
        history = History(task, (), 0, 0)
        return open_teacher(task, taught.model).propose(history).rationale

    assert "by 5 data sets" in taught_by(make_task(space=SPACE))
    assert "by 5 data sets" in taught_by(auc)
    assert "by 10 data sets" in taught_by(make_task(space=SPACE, metric="f1", direction="maximize"))


def test_a_lesson_of_another_kind_of_model_does_not_count(make_task, taught):
    """Two of its five hyperparameters have the names of those that were tuned there."""
    others = [Float("dropout", 0.0, 0.5), Int("heads", 1, 16), Float("warmup", 0.0, 0.3)]
    task = make_task(space=Space([*SPACE.parameters[:2], *others]))
    assert open_teacher(task, taught.model) is None


TREES = load(tasks.find("breast-cancer-xgboost")).space
"""Hyperparameters of XGBoost: the built-in model was taught those."""


def test_a_small_model_without_lessons_teaches_nothing(make_task, fake_backend):
    task = make_task(space=TREES)
    assert open_teacher(task, fake_backend(lambda *_: "{}", "compact").model) is None


def test_what_the_built_in_model_was_taught_serves_a_model_that_talks(
    make_task, task, fake_backend
):
    model = fake_backend(lambda *_: "{}", "chat").model
    assert open_teacher(task, model) is None  # nobody was taught of drops in boosters
    trees = make_task(space=TREES, metric="accuracy", direction="maximize")
    said = open_teacher(trees, model).propose(History(trees, (), 0, 0)).rationale
    assert "that sprout was taught" in said


def test_a_model_that_talks_takes_turns_with_what_was_taught(make_task, talking):
    task = make_task(space=TREES, metric="accuracy", direction="maximize")
    seen = set()
    for seed in range(4):
        creator = open_creator(task, backend=talking(TREES))
        done = []
        for number in range(6):
            (proposal,) = creator.propose(History(task, tuple(done), seed, number), 1)
            score = -abs(np.log10(proposal.config["learning_rate"]) + 1.0)
            done.append(Trial(number, State.COMPLETE, proposal, score=float(score)))
        assert set(origins(done)) <= {"model", "experience", "experience+bo", "engine:bo"}
        seen.update(origins(done)[:3])
    assert {"model", "experience"} <= seen


def test_what_was_taught_stands_in_for_a_model_that_fails(make_task, fake_backend):
    task = make_task(space=TREES, creator=CreatorSettings(on_model_error="engine"))
    creator = open_creator(task, backend=fake_backend(lambda *_: "nonsense", "chat"))
    proposals = [creator.propose(History(task, (), seed, 0), 1)[0] for seed in range(6)]
    assert {proposal.origin for proposal in proposals} == {"experience"}
    assert any("stands in for the model" in proposal.note for proposal in proposals)


def test_what_was_taught_needs_no_model(make_task, monkeypatch):
    def missing(*args, **kwargs):
        raise MissingExtraError("torch", "the transformers backend", "local")

    monkeypatch.setattr("localhpo.llm.open_backend", missing)
    task = make_task(space=TREES, metric="accuracy", direction="maximize")
    trials = []
    creator = open_creator(task)
    for number in range(2):
        (proposal,) = creator.propose(History(task, tuple(trials), 0, number), 1)
        trials.append(Trial(number, State.COMPLETE, proposal, score=0.5))
    assert origins(trials) == ["experience"] * 2
    assert all("no language model" in trial.proposal.note for trial in trials)


def test_that_the_owner_has_nothing_alike_is_said_all_the_same(make_task, taught):
    asking = CreatorSettings(experience="retrieve")
    task = make_task(space=SPACE, creator=asking)
    first, second = run(open_creator(task, backend=taught), task, 2)
    assert first.proposal.note == NOTHING_SIMILAR
    assert not second.proposal.note


def test_lessons_that_cannot_be_read_stop_it(task, taught):
    taught.model.lessons.write_bytes(b"none")
    with pytest.raises(InputError, match="lessons cannot be read"):
        open_creator(task, backend=taught)


def test_every_candidate_is_one_of_the_space_and_none_comes_twice(task, lesson):
    known = transfer(task, lesson)
    assert len(known.candidates) > 0.9 * RANDOM
    for config in known.candidates:
        SPACE.validate(config)
    assert len({SPACE.key(config) for config in known.candidates}) == len(known.candidates)
