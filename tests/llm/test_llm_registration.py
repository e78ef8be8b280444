"""Adding a user's model: refused folders, the card, and use of the model."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tiny_model import CONTEXT, edit_json, make_model

from localhpo.errors import CardError, InputError
from localhpo.llm import AnswerConstraint, Message, open_backend
from localhpo.llm.models import hashing, registration, weights
from localhpo.llm.models import registry as model_registry
from localhpo.llm.protocol import GenerationRequest

DIGIT = AnswerConstraint('start: "{\\"a\\":" /[1-9]/ "}"', {})
ASKED = [Message("user", "Propose.")]


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A model of the user, without a card."""
    return Path(shutil.copytree(tiny_model, tmp_path / "brought" / "Oak-1B"))


def test_a_model_is_registered_in_place_and_used_by_name(folder: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    card = registration.register_model(folder)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert model_registry.find_model("Oak-1B") == folder
    assert (
        model_registry.read_card(folder)
        == card
        == model_registry.read_card(model_registry.find_model("Oak-1B"))
    )
    in_registry = [
        path.name for path in model_registry.registry_folder().rglob("*") if path.is_file()
    ]
    assert in_registry == ["card.toml"]
    backend = open_backend("transformers", model="Oak-1B", device="cpu")
    assert (backend.model.name, backend.model.digest) == ("Oak-1B", card.digest)
    assert backend.model.context_length == CONTEXT
    (answer,) = backend.generate(GenerationRequest(ASKED, DIGIT, max_tokens=20))
    assert json.loads(answer.text)["a"] in range(1, 10)
    backend.close()


def test_the_card_is_made_from_the_files(folder: Path) -> None:
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Oak\n")
    card = registration.build_card(folder, "oak")
    network = weights.read_headers(folder)
    assert (card.architecture, card.context_length, card.license) == ("llama", CONTEXT, "MIT")
    assert (card.dtype, card.quantization, card.prompt) == ("float32", "", "chat")
    assert card.parameters == sum(t.size_bytes for t in network.values()) // 4
    assert card.memory is not None
    assert card.memory.weights_bytes == 4 * card.parameters
    assert card.memory.kv_bytes(100) == 100 * 2 * (2 * 2 * 16) * 4  # 2 layers, 2 heads of 16
    assert card.files == model_registry.hash_files(folder)
    assert model_registry.parse_card(cards_table(card), folder) == card


def cards_table(card: model_registry.Card) -> dict[str, object]:
    import tomllib

    return tomllib.loads(model_registry.render_card(card))


def test_a_copy_is_independent_of_its_source(folder: Path) -> None:
    card = registration.register_model(folder, "oak", copy=True)
    place = model_registry.find_model("oak")
    assert place == model_registry.registry_folder() / "oak" and card.folder == ""
    shutil.rmtree(folder)
    assert model_registry.read_verified_card(place) == card


def test_a_folder_in_the_registry_gets_its_card_inside(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALHPO_MODELS", str(folder.parent))
    assert [entry.state for entry in model_registry.list_models() if entry.name == "Oak-1B"] == [
        "no card"
    ]
    registration.register_model(folder)
    assert (folder / "card.toml").is_file()
    (entry,) = (entry for entry in model_registry.list_models() if entry.name == "Oak-1B")
    assert (entry.state, entry.card and entry.card.folder) == ("verified", "")


def test_adding_again_updates_the_card(folder: Path) -> None:
    first = registration.register_model(folder)
    edit_json(folder / "config.json", max_position_embeddings=1024)
    with pytest.raises(CardError, match="is not the file"):
        model_registry.read_verified_card(folder)
    assert registration.register_model(folder).context_length == 1024 != first.context_length
    assert model_registry.read_verified_card(folder) is not None


def test_a_registered_model_without_its_folder_is_broken(folder: Path) -> None:
    registration.register_model(folder)
    shutil.rmtree(folder)
    (entry,) = (entry for entry in model_registry.list_models() if entry.name == "Oak-1B")
    assert entry.state == "broken" and "there is no folder" in entry.error
    with pytest.raises(CardError, match="there is no model folder"):
        open_backend("transformers", model="Oak-1B")


def _outside(folder: Path) -> None:
    (folder / "tokenizer.json").rename(folder.parent / "blob")
    (folder / "tokenizer.json").symlink_to("../blob")


def _sharded(folder: Path) -> None:
    index = {"weight_map": {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}}
    (folder / weights.INDEX).write_text(json.dumps(index))
    (folder / "model.safetensors").rename(folder / "model-1-of-2.safetensors")


def _short_of_a_tensor(folder: Path) -> None:
    index = {"weight_map": {"model.layers.9.up.weight": "model.safetensors"}}
    (folder / weights.INDEX).write_text(json.dumps(index))


def _index_leads_out(folder: Path) -> None:
    index = {"weight_map": {"a": "../other.safetensors"}}
    (folder / weights.INDEX).write_text(json.dumps(index))


UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "pickle": (lambda f: (f / "pytorch_model.bin").touch(), "could run code"),
    "pickle below": (lambda f: (f / "original").mkdir() or (f / "original/a.pth").touch(), "code"),
    "code": (lambda f: (f / "modeling_oak.py").touch(), "could run code"),
    "code by name": (
        lambda f: edit_json(f / "config.json", auto_map={"AutoConfig": "oak.Config"}),
        "needs code from its repository",
    ),
    "code of a tokenizer": (
        lambda f: edit_json(f / "tokenizer_config.json", auto_map={"AutoTokenizer": ["a.B", None]}),
        "needs code from its repository",
    ),
    "link out": (_outside, "is a link to .*, outside the model folder"),
    "shard missing": (_sharded, r"lacks 1 of the files of weights .* model-2-of-2\.safetensors"),
    "tensor missing": (_short_of_a_tensor, r"lacks the tensor model\.layers\.9\.up\.weight"),
    "index leads out": (_index_leads_out, "must name .* beside it, but names '../other"),
    "index is none": (lambda f: (f / weights.INDEX).write_text("[]"), "is not an index"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "holds no weights"),
    "cut short": (
        lambda f: os.truncate(f / "model.safetensors", 50_000),
        "must have .* bytes by its header, but has 50,000",
    ),
    "cut in its header": (
        lambda f: os.truncate(f / "model.safetensors", 100),
        "is not a complete safetensors file",
    ),
    "empty": (lambda f: os.truncate(f / "model.safetensors", 0), "is not a complete safetensors"),
    "no config": (lambda f: (f / "config.json").unlink(), r"has no config\.json"),
    "config is none": (lambda f: (f / "config.json").write_text("[]"), "must hold an object"),
    "no decoder": (
        lambda f: edit_json(f / "config.json", architectures=["BertModel"]),
        "must describe a causal language model",
    ),
    "other layers": (
        lambda f: edit_json(f / "config.json", num_hidden_layers=36),
        "belong to another model than config.json: it has 36 layers, they have 2",
    ),
    "other width": (
        lambda f: edit_json(f / "config.json", hidden_size=128),
        "it has 512 tokens of width 128, model.embed_tokens.weight has shape",
    ),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer"),
    "tokenizer cut short": (
        lambda f: os.truncate(f / "tokenizer.json", 1_000),
        r"tokenizer\.json cannot be read",
    ),
    "tokenizer empty": (
        lambda f: os.truncate(f / "tokenizer.json", 0),
        r"tokenizer\.json is empty",
    ),
    "tokenizer null": (
        lambda f: (f / "tokenizer.json").write_text("null"),
        r"tokenizer\.json is not a tokenizer file: it must hold an object with model",
    ),
    "tokenizer without model": (
        lambda f: (f / "tokenizer.json").write_text("{}"),
        "must hold an object with model",
    ),
    "word for a number": (
        lambda f: edit_json(f / "config.json", num_key_value_heads="x"),
        "num_key_value_heads in config.json must be an integer .* but is 'x'",
    ),
    "number beyond all": (
        lambda f: edit_json(f / "config.json", head_dim=10**400),
        r"head_dim in config.json must be an integer .* but is 10+\.\.\.",
    ),
    "huge number of layers": (
        lambda f: edit_json(f / "config.json", num_hidden_layers=10**30),
        "must have num_hidden_layers, a positive integer up to 100,000",
    ),
    "number for a table": (
        lambda f: edit_json(f / "config.json", text_config=7),
        r"config\.json is not as transformers writes it",
    ),
    "architectures in a table": (
        lambda f: edit_json(f / "config.json", architectures={"a": "LlamaForCausalLM"}),
        r"has architectures \(none\)",
    ),
}


@pytest.mark.parametrize("change", UNUSABLE)
def test_a_folder_that_cannot_be_used_is_refused(change: str, folder: Path) -> None:
    spoil, message = UNUSABLE[change]
    spoil(folder)
    with pytest.raises(CardError, match=message):
        registration.register_model(folder)
    assert not model_registry.registry_folder().exists()


def test_a_gguf_file_is_refused_with_a_hint(tmp_path: Path) -> None:
    file = tmp_path / "oak.gguf"
    file.touch()
    for path, message in ((file, "but .*oak.gguf is a file"), (tmp_path, "holds oak.gguf")):
        with pytest.raises(InputError, match=message) as caught:
            registration.register_model(path)
        assert "llama.cpp" in caught.value.hint and "--backend openai --url" in caught.value.hint
        assert "safetensors" in str(caught.value)


def test_a_link_inside_the_folder_is_allowed(folder: Path) -> None:
    (folder / "blobs").mkdir()
    (folder / "tokenizer.json").rename(folder / "blobs" / "a.json")
    (folder / "tokenizer.json").symlink_to("blobs/a.json")
    assert registration.register_model(folder, copy=True)
    assert not (model_registry.find_model("Oak-1B") / "tokenizer.json").is_symlink()


@pytest.mark.parametrize("name", ["a b", "../up", ".hidden", "sprout"])
def test_a_name_that_cannot_be_used_is_refused(name: str, folder: Path) -> None:
    with pytest.raises(InputError, match=r"must be letters|already"):
        registration.register_model(folder, name)


def test_a_name_that_is_taken_is_refused(folder: Path, tmp_path: Path) -> None:
    registration.register_model(folder, "oak")
    other = Path(shutil.copytree(folder, tmp_path / "other"))
    with pytest.raises(InputError, match="a model 'oak' exists already") as caught:
        registration.register_model(other, "oak")
    assert str(model_registry.registry_folder() / "oak") in caught.value.hint


def test_a_copy_needs_enough_disk_space(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CardError, match=r"0\.0 GB free, the copy needs"):
        registration.register_model(folder, copy=True)


def test_an_interrupted_copy_is_removed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(source: Path, target: Path) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(CardError, match="cannot be written: No space left"):
        registration.register_model(folder, copy=True)
    assert list(model_registry.registry_folder().iterdir()) == []


def test_the_callback_gets_each_file_before_it_is_read(folder: Path) -> None:
    told: list[str] = []
    registration.register_model(folder, on_file=lambda path: told.append(path.name))
    assert "model.safetensors" in told and len(told) == len(model_registry.read_card(folder).files)


# The thinking switch reaches the model


def test_the_card_decides_how_reasoning_is_switched_off(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "thinker")
    (folder / "chat_template.jinja").write_text(
        "{{ messages[-1].content }}\n<assistant>"
        "{% if enable_thinking is not defined or enable_thinking %}<think>{% endif %}"
    )
    registration.register_model(folder)
    backend = open_backend("transformers", model="thinker", device="cpu")
    assert backend.model.chat_template_kwargs == {"enable_thinking": False}
    card = model_registry.registry_folder() / "thinker" / "card.toml"
    told = card.read_text().replace("enable_thinking = false", "enable_thinking = true")
    card.write_text(told)
    thinking = open_backend("transformers", model="thinker", device="cpu")
    assert thinking.count_tokens(ASKED) > backend.count_tokens(ASKED)


def test_an_opened_reasoning_block_is_closed(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "thinker")
    template = "{{ messages[-1].content + '\n<assistant><think>\n' }}"
    (folder / "chat_template.jinja").write_text(template)
    for add in (
        lambda: None,
        lambda: registration.register_model(folder),
    ):  # without a card, and with one
        add()
        backend = open_backend("transformers", model=str(folder), device="cpu")
        assert backend.model.answer_prefix == "\n</think>\n\n"
        rendered = backend._prompts.tokenizer.decode(backend._prompts.tokens(ASKED))  # type: ignore[attr-defined]
        assert rendered == "Propose.\n<assistant><think>\n\n</think>\n\n"


# Cache of hashes


def test_the_hash_of_a_large_file_is_cached_until_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashing, "_LARGE", 10)
    file = tmp_path / "weights"
    file.write_bytes(b"a" * 20)
    os.utime(file, (1_000_000, 1_000_000))
    first = hashing.file_sha256(file)
    cache_file = tmp_path / "cache" / "localhpo" / "sha256.json"
    (key,) = json.loads(cache_file.read_text())
    cache_file.write_text(json.dumps({key: "cached"}))
    assert hashing.file_sha256(file) == "cached"
    assert hashing.file_sha256(file, again=True) == first
    file.write_bytes(b"b" * 20)  # same size, another time: too recent to be cached
    changed = hashing.file_sha256(file)
    assert changed not in (first, "cached")
    assert json.loads(cache_file.read_text()) == {key: first}


def test_an_unusable_hash_cache_is_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "_LARGE", 10)
    file = tmp_path / "weights"
    file.write_bytes(b"a" * 20)
    os.utime(file, (1_000_000, 1_000_000))
    (tmp_path / "cache").write_text("a file where a folder should be")
    assert len(hashing.file_sha256(file)) == 64
