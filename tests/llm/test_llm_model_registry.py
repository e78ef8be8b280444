"""Cards are verified, and wrong or unsafe folders are refused."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from tiny_model import add_card

from localhpo.errors import CardError, InputError
from localhpo.llm.models import registry as model_registry
from localhpo.llm.models.card import Card

SHA = "0" * 64
CARD = Card(
    name="oak",
    version="2",
    summary='for "tabular" tasks \\ and a\ttab, ümläut',
    license="Apache-2.0",
    architecture="llama",
    parameters=9_500_000,
    context_length=2048,
    prompt="compact",
    files={"model.safetensors": SHA, "sub folder/config.json": SHA},
    made={"script": "scripts/build_model", "tokens": 6_600_000, "seconds": 1320.5},
    measured={"regret at 1": 0.42, "small": 1e-8},
    limitations=("families it never saw", "German"),
    known_parameters=tuple(f"name_{n}" for n in range(30)),
)


@pytest.fixture
def folder(tiny_model: Path, tmp_path: Path) -> Path:
    """A model with a matching card, which tests may change."""
    copy = tmp_path / "models" / "tiny"
    shutil.copytree(tiny_model, copy)
    add_card(copy)
    return copy


def rewrite(folder: Path, old: str, new: str) -> None:
    path = folder / "card.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def check(folder: Path) -> None:
    model_registry.verify_files(folder, model_registry.read_card(folder))


def test_a_card_survives_writing_and_reading(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(model_registry.render_card(CARD))
    assert model_registry.read_card(tmp_path) == CARD


def test_the_digest_depends_on_the_files_only() -> None:
    backwards = dict(reversed(CARD.files.items()))
    assert replace(CARD, summary="another", files=backwards).digest == CARD.digest
    assert replace(CARD, files={"model.safetensors": SHA}).digest != CARD.digest


def test_a_folder_has_the_digest_that_its_card_would_have(folder: Path) -> None:
    digest = model_registry.read_card(folder).digest
    (folder / "card.toml").unlink()
    assert model_registry.compute_digest(folder) == digest


def test_a_matching_card_is_verified(folder: Path) -> None:
    for harmless in ("README.md", "LICENSE", ".gitattributes"):
        (folder / harmless).write_text("words")
    check(folder)


FALSE: dict[str, tuple[Callable[[Path], object], str]] = {
    "file missing": (lambda f: (f / "config.json").unlink(), r"config\.json is missing"),
    "file changed": (
        lambda f: (f / "config.json").write_text("{}"),
        r"config\.json is not the file .*sha256 must be [0-9a-f]{64}, is 44136fa3",
    ),
    "weights cut short": (
        lambda f: (f / "model.safetensors").write_bytes(b"short"),
        r"model\.safetensors is not the file",
    ),
    "pickle": (lambda f: (f / "pytorch_model.bin").touch(), r"pytorch_model\.bin could run code"),
    "pickle below": (lambda f: _below(f, "optimizer.PT"), r"optimizer\.PT could run code"),
    "code": (lambda f: (f / "modeling_oak.py").touch(), r"modeling_oak\.py could run code"),
    "unlisted": (lambda f: (f / "added_tokens.json").touch(), r"added_tokens\.json is not listed"),
    "no card": (lambda f: (f / "card.toml").unlink(), r"has no card\.toml"),
    "bad TOML": (lambda f: rewrite(f, "name =", "name"), r"card\.toml cannot be read: .*line 1"),
    "not text": (lambda f: (f / "card.toml").write_bytes(b"\xff"), "cannot be read"),
    "unknown key": (
        lambda f: rewrite(f, "license =", "lisense ="),
        r"unknown key 'lisense'",
    ),
    "key missing": (lambda f: rewrite(f, 'version = "1"', ""), "key 'version' is missing"),
    "wrong type": (
        lambda f: rewrite(f, "parameters = 100000", 'parameters = "0.1M"'),
        "parameters must be a positive integer, but is '0.1M'",
    ),
    "true is no number": (
        lambda f: rewrite(f, "context_length = 1024", "context_length = true"),
        "context_length must be a positive integer, but is True",
    ),
    "unknown prompt": (
        lambda f: rewrite(f, '"compact"', '"terse"'),
        "prompt must be 'chat' or 'compact', but is 'terse'",
    ),
    "no hash": (
        lambda f: rewrite(f, 'config.json" = ', 'config.json" = "x" #'),
        "64 .* hex digits",
    ),
    "files not a table": (
        lambda f: rewrite(f, "[files]", "files = 3\n[other]"),
        r"card\.toml",
    ),
    "nested table": (lambda f: rewrite(f, "seconds = 0.5", "seconds = {}"), r"\[made\] seconds"),
    "not a list": (
        lambda f: rewrite(f, '[\n    "anything",\n]', "3"),
        "limitations must be a list of strings",
    ),
    "outside": (
        lambda f: rewrite(f, "[files]", f'[files]\n"../config.json" = "{SHA}"'),
        "must lie inside the model folder",
    ),
}


def _below(folder: Path, name: str) -> None:
    (folder / "checkpoint").mkdir()
    (folder / "checkpoint" / name).touch()


@pytest.mark.parametrize(("change", "message"), FALSE.values(), ids=FALSE)
def test_a_folder_that_differs_from_its_card_is_refused(
    folder: Path, change: Callable[[Path], object], message: str
) -> None:
    check(folder)  # hashes are cached; a later change must still be detected
    change(folder)
    with pytest.raises(CardError, match=message) as caught:
        check(folder)
    assert str(folder) in str(caught.value)


def test_keys_of_earlier_cards_are_read(tmp_path: Path) -> None:
    old = replace(CARD, evaluation={"p": 0.01})
    text = model_registry.render_card(old)
    for new, key in (("limitations", "not_good_at"), ("known_parameters", "knows")):
        assert f"{new} =" in text
        text = text.replace(f"{new} =", f"{key} =")
    (tmp_path / "card.toml").write_text(text.replace("[evaluation]", "[gate]"))
    assert model_registry.read_card(tmp_path) == old


def test_a_card_without_weights_is_refused(tmp_path: Path) -> None:
    (tmp_path / "card.toml").write_text(
        model_registry.render_card(replace(CARD, files={"config.json": SHA}))
    )
    with pytest.raises(CardError, match=r"lists no \*\.safetensors"):
        model_registry.read_card(tmp_path)


# Finding and listing


@pytest.fixture
def registry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The model registry of the user."""
    monkeypatch.setenv("LOCALHPO_MODELS", str(folder.parent))
    return folder.parent


def test_a_model_is_found_by_name_and_by_path(registry: Path) -> None:
    assert model_registry.find_model("tiny") == registry / "tiny"
    assert model_registry.find_model(str(registry / "tiny")) == registry / "tiny"


@pytest.mark.parametrize("name", ["tinny", "Qwen/Qwen3-0.6B", "/no/such/folder", ""])
def test_an_unknown_model_is_an_error(registry: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"must be one of .*tiny") as caught:
        model_registry.find_model(name)
    expected = "did you mean 'tiny'?" if name == "tinny" else "downloads nothing"
    assert expected in caught.value.hint


def test_the_listing_shows_the_error_of_each_broken_model(registry: Path) -> None:
    for name in ("broken", "changed", "bare", "dangerous"):
        shutil.copytree(registry / "tiny", registry / name)
    rewrite(registry / "broken", "name =", "nome =")
    (registry / "changed" / "config.json").write_text("{}")
    (registry / "bare" / "card.toml").unlink()
    (registry / "dangerous" / "card.toml").unlink()
    (registry / "dangerous" / "weights.pkl").touch()
    (registry / "no model").mkdir()
    (registry / "notes.txt").touch()
    entries = {entry.name: entry for entry in model_registry.list_models()}
    states = {name: entries[name].state for name in sorted(entries) if name in _names(registry)}
    assert states == {
        "bare": "no card",
        "broken": "broken",
        "changed": "broken",
        "dangerous": "broken",
        "tiny": "verified",
    }
    assert "unknown key 'nome'" in entries["broken"].error
    assert entries["changed"].card is not None
    assert entries["tiny"].card == model_registry.read_card(registry / "tiny")
    assert entries["tiny"].size_bytes > 100_000
    listed = {path.name for path, _ in model_registry.read_cards()}
    assert {"tiny", "changed"} <= listed
    assert not {"broken", "bare"} & listed


def _names(registry: Path) -> set[str]:
    return {path.name for path in registry.iterdir()}


def test_a_missing_registry_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = model_registry.read_cards()
    monkeypatch.setenv("LOCALHPO_MODELS", str(tmp_path / "nowhere"))
    assert model_registry.read_cards() == shipped
