from __future__ import annotations

import json
from pathlib import Path

import pytest

from localhpo import grammar
from localhpo.llm.models import registry as model_registry
from localhpo.llm.protocol import AnswerConstraint, GenerationRequest, Message
from localhpo.space import Float, Int, Space
from scripts.build_model import __main__ as build
from scripts.build_model import train

TINY = ["--hidden", "32", "--layers", "1", "--heads", "2", "--budget-s", "600"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of two short runs of training, the second of which goes on with the first."""
    folder = tmp_path_factory.mktemp("build")
    common = ["--work", str(folder / "work"), "--target", str(folder / "tiny")]
    build.main(["generate", *common, "--sources", "function", "--shards", "2", "--problems", "60"])
    build.main(["tokenizer", *common])
    for _ in range(2):
        build.main(["train", *common, *TINY, "--max-steps", "10"])
    build.main(["export", *common, *TINY])
    return folder


def test_training_goes_on_where_it_was(built: Path) -> None:
    import torch

    state = torch.load(built / "work" / "checkpoint.pt", weights_only=True)
    assert state["progress"]["steps"] == 20
    assert state["progress"]["questions"] > 0


def test_shards_are_kept(built: Path) -> None:
    shard = built / "work" / "questions" / "shard-000.jsonl"
    before = shard.stat().st_mtime_ns
    build.main(
        ["generate", "--work", str(built / "work"), "--sources", "function", "--shards", "1"]
    )
    assert shard.stat().st_mtime_ns == before


def test_questions_end_with_the_request(built: Path) -> None:
    lines = (built / "work" / "questions" / "shard-000.jsonl").read_text().splitlines()
    questions = [json.loads(line) for line in lines]
    assert len(questions) > 60
    assert all(q["prompt"].endswith("\n9:") for q in questions)
    assert any(q["trials"] for q in questions) and any(not q["trials"] for q in questions)


def test_the_folder_is_a_model_that_answers(built: Path) -> None:
    from localhpo.llm import open_backend

    card = model_registry.read_card(built / "tiny")
    model_registry.verify_files(built / "tiny", card)
    assert card.made["steps"] == 20 and not card.measured
    space = Space(
        [Float("learning_rate", low=1e-4, high=1e-1, log=True), Int("depth", low=1, high=8)]
    )
    backend = open_backend("transformers", model=str(built / "tiny"))
    try:
        constraint = AnswerConstraint(
            grammar=grammar.lark_grammar(space), schema=grammar.json_schema(space)
        )
        answers = backend.generate(
            GenerationRequest([Message("user", "minimize loss\n9:")], constraint, n=3, seed=1)
        )
    finally:
        backend.close()
    for answer in answers:
        space.validate(grammar.parse_answer(answer.text, space).config)


def test_the_card_says_what_was_used_and_its_version_rises_with_new_weights(built: Path) -> None:
    import torch

    target = built / "again"
    export = ["export", "--work", str(built / "work"), "--target", str(target), *TINY]
    for _ in range(2):  # the second time nothing is new
        build.main(export)
        card = model_registry.read_card(target)
        assert (card.name, card.version) == ("sprout", "1")
    assert card.made["device"] == train.device_name("cuda" if torch.cuda.is_available() else "cpu")
    text = (target / "card.toml").read_text()
    sha = card.files["model.safetensors"]
    of_others = text.replace(sha, "0" * 64).replace('version = "1"', 'version = "7"')
    (target / "card.toml").write_text(of_others)
    build.main(export)
    assert model_registry.read_card(target).version == "8"
    build.main([*export, "--version", "2026a"])
    assert model_registry.read_card(target).version == "2026a"


def test_what_was_written_about_the_same_weights_stays_in_their_card(built: Path) -> None:
    card = built / "tiny" / "card.toml"
    card.write_text(card.read_text().replace("[made]", '[made]\nnot_as_split = "said"'))
    common = ["--work", str(built / "work"), "--target", str(built / "tiny")]
    build.main(["export", *common, *TINY])
    assert model_registry.read_card(built / "tiny").made["not_as_split"] == "said"


def test_a_training_that_began_before_devices_were_recorded_says_so(
    built: Path, tmp_path: Path
) -> None:
    state = train.load_checkpoint(built / "work")
    del state["progress"]["devices"]
    model = train.build_model(
        train.TrainSettings(hidden=32, layers=1, heads=2), built / "work" / "model"
    )
    torch = pytest.importorskip("torch")
    torch.save({**state, "optimizer": {}}, tmp_path / "checkpoint.pt")

    class Optimizer:
        def load_state_dict(self, _: object) -> None: ...

    progress = train._restore(tmp_path, model, Optimizer())
    assert progress.devices == [train.UNKNOWN_DEVICE] and progress.steps == 20
