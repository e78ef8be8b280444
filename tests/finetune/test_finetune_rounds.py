"""One round: from past studies to a model on the shelf, and what becomes of it."""

import json
import shutil
from dataclasses import replace

import pytest
from made_history import SPACE, make_past
from tiny_model import add_card, make_model

from localhpo import grammar
from localhpo.cli import main
from localhpo.creator import open_creator, prompt
from localhpo.errors import CardError, InputError
from localhpo.finetune import cycle, dataset, rounds, train
from localhpo.llm import Constraint, Message, cards, open_backend, tuned, versions
from localhpo.llm.transformers import TransformersBackend
from localhpo.task import CreatorSettings

SETTINGS = train.Settings(passes=1, rate=3e-3, rank=4)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """One short prompt a study: what is tested here is what becomes of the result."""
    monkeypatch.setattr(dataset, "CUTS", {"compact": (0,), "chat": (0,)})
    monkeypatch.setattr(dataset, "FIRST_ANSWERS", 3)


@pytest.fixture
def base(shelf, tiny):
    """A model on the shelf that knows nothing of our names."""
    folder = shutil.copytree(tiny, shelf / "small")
    add_card(folder, context_length=4096, knows=("alpha",))
    return folder


def better(past, folder):
    """A replay in which whatever is on no shelf yet is better, the more the later the task."""
    number = int(past.task.name.removeprefix("made-"))
    return 0.5 if (folder / "config.json").exists() else 0.4 - number / 100


def worse(past, folder):
    return 1.0 - better(past, folder)


def tune(pasts, replay, settings=SETTINGS, **more):
    return rounds.tune(rounds.plan(pasts, "small", seed=0), settings, replay, **more)


def ask(backend):
    constraint = Constraint(grammar.lark(SPACE), grammar.json_schema(SPACE))
    return [c.text for c in backend.generate([Message("user", "9:")], constraint, n=4)]


def test_an_accepted_adapter_is_used(base, pasts):
    card = tune(pasts, better)
    assert card.tuned.gate == "accepted", card.tuned.why
    assert card.tuned.base == "small"
    assert len(card.tuned.studies) == len(card.tuned.held_out) == 5
    assert card.tuned.trials == 5 * 7
    assert {"alpha", *SPACE.names} == set(card.knows)
    assert cards.load(cards.find(card.name)) == card
    assert versions.current("small") == card
    assert not (cards.shelf() / ".tuning" / "small").exists()
    with_, without = (
        open_backend("transformers", model=card.name),
        open_backend("transformers", model="small"),
    )
    assert with_.model.digest == f"{cards.load(base).digest}+{card.digest}"
    assert with_.model.knows == set(card.knows)
    assert ask(with_) != ask(without)


def test_a_whole_model_is_a_folder_of_its_own(base, pasts):
    card = tune(pasts, lambda past, folder: 1.0 - better(past, base / "x"), force=True,
                settings=replace(SETTINGS, method="full"))  # fmt: skip
    assert (cards.find(card.name) / "config.json").is_file()
    shutil.rmtree(base)
    backend = open_backend("transformers", model=card.name)
    assert backend.model.digest == f"{card.tuned.base_digest}+{card.digest}"
    assert ask(backend)


def test_what_the_gate_refuses_is_kept_and_kept_out_of_use(base, pasts):
    card = tune(pasts, worse)
    assert card.tuned.gate == "refused"
    assert versions.current("small") is None
    with pytest.raises(CardError, match="kept out of use"):
        open_backend("transformers", model=card.name)
    with pytest.raises(InputError, match="no fine-tuned version of small is in use"):
        versions.named("small")


def test_few_tasks_tell_nothing_unless_the_user_insists(base, pasts):
    assert tune(pasts[:4], better).tuned.gate == "undecided"
    card = tune(pasts[:4], better, force=True)
    assert card.tuned.gate == "forced"
    assert versions.current("small") == card
    with pytest.raises(InputError, match="two tasks or more"):
        tune(pasts[:1], better)


def test_another_base_or_prompt_refuses_to_load(base, pasts, monkeypatch):
    card = tune(pasts, better)
    folder = cards.find(card.name)
    with monkeypatch.context() as patch:
        patch.setattr(cards, "templates_sha256", lambda style: "0" * 64)
        with pytest.raises(CardError, match="other prompts"):
            TransformersBackend(folder)
    shutil.rmtree(base)
    with pytest.raises(CardError, match="needs its base small, which is not here"):
        TransformersBackend(folder)
    add_card(make_model(base, initializer_range=0.1), context_length=4096)
    with pytest.raises(CardError, match="was trained on a base of digest"):
        TransformersBackend(folder)


def test_roll_back_goes_to_the_one_before_and_keeps_the_last(base, pasts, capsys):
    first, second = tune(pasts, better), tune(pasts, better)
    assert versions.current("small").name == second.name == "small-tuned-2"
    assert main(["finetune", "--model", "small", "--rollback"]) == 0
    assert capsys.readouterr().out == (
        "small-tuned-2 is withdrawn, and kept\nin use: small-tuned-1\n"
    )
    assert versions.current("small") == first
    assert cards.load(cards.find(second.name)).tuned.gate == "withdrawn"
    main(["finetune", "--model", "small", "--rollback"])
    main(["finetune", "--model", "small", "--rollback"])
    assert capsys.readouterr().out.endswith("in use: small\n")


def test_a_study_asks_for_the_version_in_use(base, pasts):
    card = tune(pasts, better)
    settings = CreatorSettings(name="agent", model="small", experience="finetuned")
    task = replace(pasts[0].task, creator=settings)
    creator = open_creator(task)
    assert creator.model.knows == set(card.knows)
    creator.close()


def test_models_shows_base_data_and_gate(base, pasts, capsys):
    card = tune(pasts, better)
    assert main(["models"]) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if card.tuned.why in x]
    assert line.split()[:3] == [card.name, "small", "lora"]
    assert "35 trials of 5 studies" in line
    assert main(["models", "show", card.name, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["tuned"]["prompt_sha256"] == tuned.templates_sha256("compact")
    assert shown["gate"]["held_out_tasks"] == 5
    assert shown["files"] == dict(card.files)


def test_templates_that_are_hashed_are_those_that_are_rendered(pasts, monkeypatch):
    for style, names in tuned.TEMPLATES.items():
        rendered = []
        monkeypatch.setattr(prompt, "_render", lambda name, facts, seen=rendered: seen.append(name))
        prompt.messages(None, style)
        assert set(rendered) == set(names)


def test_a_fine_tuned_model_is_no_base(base, pasts):
    card = tune(pasts, better)
    with pytest.raises(InputError, match="fine-tuned already"):
        rounds.plan(pasts, card.name, seed=0)


def test_a_round_is_due_after_so_many_finished_studies(base, pasts):
    short = replace(pasts[0], study="made-0/short", trials=pasts[0].trials[:5])
    done = [replace(p, task=replace(p.task, budget=replace(p.task.budget, trials=8)))
            for p in [*pasts, short]]  # fmt: skip
    assert cycle.missing(done, "small", every=12) == 2
    assert cycle.missing(done, "small", every=10) == 0
    tune(pasts, worse)
    assert cycle.missing(done, "small", every=2) == 2
    fresh = [make_past(20 + i) for i in range(2)]
    fresh = [replace(p, task=done[0].task) for p in fresh]
    assert cycle.missing([*done, *fresh], "small", every=2) == 0
