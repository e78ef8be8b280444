"""Fine-tuning from past studies to a registered model, and the use of the model."""

import json
import shutil
from dataclasses import replace

import pytest
from made_history import SPACE, make_past
from tiny_model import add_card, make_model

from localhpo import grammar
from localhpo.cli import main
from localhpo.cli.doctor import memory_fit
from localhpo.creator import open_creator, prompt
from localhpo.errors import CardError, InputError
from localhpo.finetune import dataset, pipeline, train
from localhpo.llm import AnswerConstraint, Message, open_backend
from localhpo.llm.models import card as cards
from localhpo.llm.models import registry as model_registry
from localhpo.llm.models import versions
from localhpo.llm.protocol import GenerationRequest
from localhpo.llm.transformers import TransformersBackend
from localhpo.resources.placement import Gpu, Inventory
from localhpo.task import CreatorSettings

SETTINGS = train.TrainingSettings(passes=1, rate=3e-3, rank=4)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Use one short prompt per study, because these tests are about the result."""
    monkeypatch.setattr(dataset, "SHOWN_TRIALS", {"compact": (0,), "chat": (0,)})
    monkeypatch.setattr(dataset, "FIRST_ANSWERS", 3)


@pytest.fixture
def base(registry, tiny):
    """A registered model that knows none of our parameter names."""
    folder = shutil.copytree(tiny, registry / "small")
    add_card(folder, context_length=4096, known_parameters=("alpha",))
    return folder


def better(past, folder):
    """Replay in which an unregistered model is better, and more so for later tasks."""
    number = int(past.task.name.removeprefix("made-"))
    return 0.5 if (folder / "config.json").exists() else 0.4 - number / 100


def worse(past, folder):
    return 1.0 - better(past, folder)


def tune(past_studies, replay, settings=SETTINGS, **more):
    return pipeline.run_finetuning(
        pipeline.plan_finetuning(past_studies, "small", seed=0), settings, replay, **more
    )


def ask(backend):
    constraint = AnswerConstraint(grammar.lark_grammar(SPACE), grammar.json_schema(SPACE))
    return [
        c.text
        for c in backend.generate(GenerationRequest([Message("user", "9:")], constraint, n=4))
    ]


def test_an_accepted_adapter_is_used(base, past_studies):
    card = tune(past_studies, better)
    assert card.tuned.status == "accepted", card.tuned.reason
    assert card.tuned.base == "small"
    assert len(card.tuned.studies) == len(card.tuned.held_out) == 5
    assert card.tuned.trials == 5 * 7
    assert {"alpha", *SPACE.names} == set(card.known_parameters)
    assert model_registry.read_card(model_registry.find_model(card.name)) == card
    assert versions.find_current_version("small") == card
    assert not (model_registry.registry_folder() / ".tuning" / "small").exists()
    with_, without = (
        open_backend("transformers", model=card.name),
        open_backend("transformers", model="small"),
    )
    assert with_.model.digest == f"{model_registry.read_card(base).digest}+{card.digest}"
    assert with_.model.known_parameters == set(card.known_parameters)
    assert ask(with_) != ask(without)


def test_full_fine_tuning_makes_a_complete_model(base, past_studies):
    card = tune(past_studies, lambda past, folder: 1.0 - better(past, base / "x"), force=True,
                settings=replace(SETTINGS, method="full"))  # fmt: skip
    assert (model_registry.find_model(card.name) / "config.json").is_file()
    shutil.rmtree(base)
    backend = open_backend("transformers", model=card.name)
    assert backend.model.digest == f"{card.tuned.base_digest}+{card.digest}"
    assert ask(backend)


def test_a_refused_model_is_kept_but_not_used(base, past_studies):
    card = tune(past_studies, worse)
    assert card.tuned.status == "refused"
    assert versions.find_current_version("small") is None
    with pytest.raises(CardError, match="is not in use"):
        open_backend("transformers", model=card.name)
    with pytest.raises(InputError, match="no fine-tuned version of small is in use"):
        versions.current_version_name("small")


def test_too_few_tasks_are_undecided_unless_forced(base, past_studies):
    assert tune(past_studies[:4], better).tuned.status == "undecided"
    card = tune(past_studies[:4], better, force=True)
    assert card.tuned.status == "forced"
    assert versions.find_current_version("small") == card
    with pytest.raises(InputError, match="two tasks or more"):
        tune(past_studies[:1], better)


def test_a_model_needs_its_base_and_prompts(base, past_studies, monkeypatch):
    card = tune(past_studies, better)
    folder = model_registry.find_model(card.name)
    with monkeypatch.context() as patch:
        patch.setattr(model_registry, "templates_sha256", lambda style: "0" * 64)
        with pytest.raises(CardError, match="the prompts of another version"):
            TransformersBackend(folder)
    shutil.rmtree(base)
    with pytest.raises(CardError, match="needs its base small, which is not on"):
        TransformersBackend(folder)
    add_card(make_model(base, initializer_range=0.1), context_length=4096)
    with pytest.raises(CardError, match="was trained on a base of digest"):
        TransformersBackend(folder)


def test_doctor_counts_the_memory_of_an_adapter_with_that_of_its_base(base, past_studies):
    inventory = Inventory(cpus=1, gpus=(Gpu("0", memory_mb=24_000),))

    def check(name):
        return {one.name: one for one in memory_fit.check_memory_fits(inventory)}[f"fit {name}"]

    card = tune(past_studies, better)
    tuned, own = check(card.name), check("small")
    assert (tuned.state, tuned.fits, tuned.hint) == ("ok", True, "")
    listing = model_registry.inspect_model(model_registry.find_model(card.name))
    assert memory_fit.find_needs(listing)[0].weights_bytes == listing.size_bytes + (
        memory_fit.find_needs(model_registry.inspect_model(base))[0].weights_bytes
    )
    assert own.fits
    shutil.rmtree(base)
    without = check(card.name)
    assert (without.finding, without.hint) == ("its memory needs are unknown", "")


def test_rolling_back_returns_to_the_version_before(base, past_studies, capsys):
    first, second = tune(past_studies, better), tune(past_studies, better)
    assert versions.find_current_version("small").name == second.name == "small-tuned-2"
    assert main(["finetune", "--model", "small", "--rollback"]) == 0
    assert capsys.readouterr().out == (
        "small-tuned-2 is no longer used; its files are kept\nin use: small-tuned-1\n"
    )
    assert versions.find_current_version("small") == first
    assert (
        model_registry.read_card(model_registry.find_model(second.name)).tuned.status == "withdrawn"
    )
    main(["finetune", "--model", "small", "--rollback"])
    main(["finetune", "--model", "small", "--rollback"])
    assert capsys.readouterr().out.endswith("in use: small\n")


def test_a_study_uses_the_current_version(base, past_studies):
    card = tune(past_studies, better)
    settings = CreatorSettings(name="agent", model="small", transfer="finetuned")
    task = replace(past_studies[0].task, creator=settings)
    creator = open_creator(task)
    assert creator.backend.model.known_parameters == set(card.known_parameters)
    creator.close()


def test_models_show_lists_base_data_and_evaluation(base, past_studies, capsys):
    card = tune(past_studies, better)
    assert main(["models"]) == 0
    (line,) = [x for x in capsys.readouterr().out.splitlines() if card.tuned.reason in x]
    assert line.split()[:3] == [card.name, "small", "lora"]
    assert "35 trials of 5 studies" in line
    assert main(["models", "show", card.name, "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["tuned"]["prompt_sha256"] == cards.templates_sha256("compact")
    assert shown["evaluation"]["held_out_tasks"] == 5
    assert shown["files"] == dict(card.files)


def test_the_hashed_templates_are_the_rendered_ones(past_studies, monkeypatch):
    for style, names in cards.TEMPLATES.items():
        rendered = []
        monkeypatch.setattr(prompt, "_render", lambda name, facts, seen=rendered: seen.append(name))
        prompt.render_messages(None, style)
        assert set(rendered) == set(names)


def test_a_fine_tuned_model_cannot_be_a_base(base, past_studies):
    card = tune(past_studies, better)
    with pytest.raises(InputError, match="already fine-tuned"):
        pipeline.plan_finetuning(past_studies, card.name, seed=0)


def test_a_training_is_due_after_enough_finished_studies(base, past_studies):
    short = replace(past_studies[0], study="made-0/short", trials=past_studies[0].trials[:5])
    done = [replace(p, task=replace(p.task, budget=replace(p.task.budget, trials=8)))
            for p in [*past_studies, short]]  # fmt: skip
    assert pipeline.count_missing_studies(done, "small", every=12) == 2
    assert pipeline.count_missing_studies(done, "small", every=10) == 0
    tune(past_studies, worse)
    assert pipeline.count_missing_studies(done, "small", every=2) == 2
    fresh = [make_past(20 + i) for i in range(2)]
    fresh = [replace(p, task=done[0].task) for p in fresh]
    assert pipeline.count_missing_studies([*done, *fresh], "small", every=2) == 0
