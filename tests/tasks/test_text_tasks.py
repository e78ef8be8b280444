"""sst2-distilbert, ecommerce-distilbert and opus-t5: trials of tiny models."""

from __future__ import annotations

import importlib.util
import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from task_reports import by_name, check_reports

from localhpo import tasks
from localhpo.tasks.data import find_weights
from localhpo.trial import State

DISTILBERT = {
    "learning_rate": 1e-2,
    "epochs": 2,
    "dropout_rate": 0.0,
    "attention_dropout": 0.1,
    "seq_classif_dropout": 0.0,
    "batch_size": 8,
    "activation": "silu",
    "weight_decay": 1e-2,
}
T5 = {
    "learning_rate": 1e-3,
    "dropout": 0.1,
    "epochs": 1,
    "batch_size": 16,
    "weight_decay": 1e-2,
}


def module(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, tasks.find(name).with_name("train.py"))
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


def reviews(count: int) -> list[tuple[str, int]]:
    """Return sentences whose label is plain from one word."""
    rng = random.Random(0)
    words = ["a", "film", "of", 'some "weight"', "and", "length"]
    told = [(" ".join(rng.choices(words, k=5)), number % 2) for number in range(count)]
    return [(f"{text} {('bad', 'good')[label]}", label) for text, label in told]


def write_sst2(folder: Path) -> None:
    folder.mkdir()
    for name, count in (("train.tsv", 100), ("dev.tsv", 20)):
        rows = [f"{text}\t{label}" for text, label in reviews(count)]
        (folder / name).write_text("\n".join(["sentence\tlabel", *rows]) + "\n")


@pytest.mark.slow
def test_a_trial_of_sst2_learns(run_task: Callable, tmp_path: Path) -> None:
    write_sst2(tmp_path / "SST-2")
    config = {**DISTILBERT, "epochs": 4}
    outcome, reported = run_task("sst2-distilbert", tmp_path, "--small", **config)
    assert outcome.state is State.COMPLETE, outcome.failure
    check_reports(reported, "accuracy", epochs=4)
    reports = by_name(reported)
    assert outcome.value == reports["val_accuracy"][-1]
    assert reports["train_loss"][-1] < reports["train_loss"][0]


def test_ecommerce_texts_are_kept_once(tmp_path: Path) -> None:
    rows = ['Household,"A ""big"" pan, of steel"', "Books,Émile et les détectives"]
    (tmp_path / "ecommerceDataset.csv").write_text("\n".join([*rows, *rows]) + "\n")
    texts, labels = module("ecommerce-distilbert").read(tmp_path)
    assert texts == ['A "big" pan, of steel', "Émile et les détectives"]
    assert labels == [1, 0]


@pytest.mark.slow
def test_a_trial_of_ecommerce(run_task: Callable, tmp_path: Path) -> None:
    names = ("Books", "Clothing & Accessories", "Electronics", "Household")
    rows = [f'{names[n % 4]},"thing {n}, for the {names[n % 4]}"' for n in range(80)]
    (tmp_path / "ecommerceDataset.csv").write_text("\n".join(rows) + "\n")
    outcome, reported = run_task("ecommerce-distilbert", tmp_path, "--small", **DISTILBERT)
    assert outcome.state is State.COMPLETE, outcome.failure
    check_reports(reported, "accuracy", epochs=2)


@pytest.mark.slow
def test_a_trial_of_opus_books(run_task: Callable, tmp_path: Path) -> None:
    for language, words in (("en", "the old house"), ("fr", "la vieille maison")):
        lines = [f"{words} {number}" for number in range(60)]
        (tmp_path / f"Books.en-fr.{language}").write_text("\n".join(lines) + "\n")
    outcome, reported = run_task("opus-t5", tmp_path, "--small", **T5)
    assert outcome.state is State.COMPLETE, outcome.failure
    assert outcome.value == by_name(reported)["val_bleu"][-1]
    check_reports(reported, "bleu", epochs=1)


def test_files_that_are_not_parallel_are_refused(tmp_path: Path) -> None:
    for language, count in (("en", 20), ("fr", 19)):
        (tmp_path / f"Books.en-fr.{language}").write_text("mot\n" * count)
    opus = module("opus-t5")
    with pytest.raises(SystemExit, match="as many lines; got 20 and 19"):
        opus.read_pairs(tmp_path, "Books.en-fr")


@pytest.mark.slow
def test_sst2_of_the_real_files(run_task: Callable, public_data: Callable) -> None:
    config = {**DISTILBERT, "epochs": 1}
    outcome, reported = run_task("sst2-distilbert", public_data("sst2"), "--small", **config)
    assert outcome.state is State.COMPLETE, outcome.failure
    check_reports(reported, "accuracy", epochs=1)


@pytest.mark.slow
def test_opus_t5_on_captions(run_task: Callable, public_data: Callable) -> None:
    place = public_data("multi30k_en_fr")
    outcome, reported = run_task("opus-t5", place, "--small", "--corpus", "multi30k", **T5)
    assert outcome.state is State.COMPLETE, outcome.failure
    check_reports(reported, "bleu", epochs=1)


@pytest.mark.slow
def test_pretrained_weights_are_read_from_a_folder(run_task: Callable, tmp_path: Path) -> None:
    """A folder as publishers ship it, of a tiny model, replaces DistilBERT's."""
    from transformers import DistilBertConfig, DistilBertForMaskedLM

    from localhpo.tasks.text_models import small_tokenizer

    write_sst2(tmp_path / "SST-2")
    tokenizer = small_tokenizer(text for text, _ in reviews(50))
    shape = {"dim": 32, "hidden_dim": 64, "n_layers": 1, "n_heads": 4}
    network = DistilBertForMaskedLM(DistilBertConfig(vocab_size=len(tokenizer), **shape))
    for saved in (network, tokenizer):
        saved.save_pretrained(tmp_path / "distilbert-base-uncased")
    config = {**DISTILBERT, "epochs": 1}
    outcome, reported = run_task("sst2-distilbert", tmp_path, **config)
    assert outcome.state is State.COMPLETE, outcome.failure
    check_reports(reported, "accuracy", epochs=1)
    (tmp_path / "distilbert-base-uncased/model.safetensors").unlink()
    with pytest.raises(SystemExit, match=r"model\.safetensors"):
        find_weights(str(tasks.find("sst2-distilbert")), str(tmp_path))
