"""The tokenizer: byte-level BPE with a small vocabulary and fixed tokens for numbers.

A number is always split into the same pieces: sign, one or two digits, pairs of fraction digits
with their point, exponent (`3.1e-2` is `3` `.1` `e-2`; `250` is `25` `0`). So each number token has
one meaning, and there are only about 240 of them. Words are merged by BPE. llguidance and vLLM read
byte-level BPE without special cases.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from . import atomic_file

VOCABULARY = 1280
SPECIAL = ("<pad>", "<bos>", "<eos>")
"""Special tokens, in the order of their ids."""

PIECES = (
    r"(?<=\d)e-?\d+"  # exponent
    r"|(?<=\d)\.\d{1,2}"  # point and the next digits
    r"|\d{1,2}"
    r"|-(?=\d)"  # sign
    r"|:(?=\{)"  # ends a prompt: never merged with the answer's brace
    r"| ?[A-Za-z_]+"
    r"|\s"
    r"|(?:(?!-\d|:\{)[^\sA-Za-z0-9_])+"
)
"""Pieces of a text before BPE, which does not merge across them."""

CHAT_TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
"""Concatenates messages, so that a chat endpoint renders the prompts of the training."""


def number_texts() -> Iterator[str]:
    """Yield texts with every number token, so that BPE learns each of them."""
    for i in range(100):
        yield f"{i} {i:02} 1.{i} 1.{i:02}"
    for exponent in range(-12, 8):
        yield f"1e{exponent}"


def train_tokenizer(texts: Iterable[str], target: Path) -> Any:
    """Train on texts and write the tokenizer's files to `target`; return the tokenizer."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=list(SPECIAL), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    numbers = list(number_texts())
    tokenizer.train_from_iterator([*texts, *(numbers * 2000)], trainer)
    target.mkdir(parents=True, exist_ok=True)
    atomic_file.write_atomically(target / "tokenizer.json", tokenizer.to_str(pretty=True))
    _write_config(target)
    return tokenizer


def _write_config(target: Path) -> None:
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>",
        "model_max_length": 4096, "clean_up_tokenization_spaces": False,
        "add_bos_token": False, "add_eos_token": False, "chat_template": CHAT_TEMPLATE,
    }  # fmt: skip
    atomic_file.write_atomically(
        target / "tokenizer_config.json", json.dumps(config, indent=2) + "\n"
    )


def is_complete(folder: Path) -> bool:
    """Return whether a folder has a vocabulary that can be read; write its configuration again.

    Such a vocabulary is never replaced, because a checkpoint may have been trained with it.
    """
    try:
        json.loads((folder / "tokenizer.json").read_text())
    except (FileNotFoundError, ValueError):
        return False
    _write_config(folder)
    return True


def load(folder: Path) -> Any:
    """Return the tokenizer of a model folder."""
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))
