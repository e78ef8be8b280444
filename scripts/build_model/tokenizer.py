"""The vocabulary: byte-level BPE over few tokens, in which numbers are regular.

A number falls into the same pieces wherever it stands: sign, first one or two digits, fraction
digits in pairs with their point, exponent (`3.1e-2` is `3` `.1` `e-2`; `250` is `25` `0`). So each
number token means one thing, and there are only about 240 of them. Words are merged as BPE
finds them. Byte-level BPE is what llguidance and vLLM read without special cases.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from . import whole

VOCABULARY = 1280
SPECIAL = ("<pad>", "<bos>", "<eos>")
"""In the order of their ids."""

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
"""What a text is cut into before BPE: nothing is merged across these borders."""

CHAT_TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"
"""Concatenates: a server's chat endpoint then sees what the model was trained on."""


def number_texts() -> Iterator[str]:
    """Yield texts that hold every number token, so that BPE learns each of them."""
    for i in range(100):
        yield f"{i} {i:02} 1.{i} 1.{i:02}"
    for exponent in range(-12, 8):
        yield f"1e{exponent}"


def train(texts: Iterable[str], target: Path) -> Any:
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
    whole.write(target / "tokenizer.json", tokenizer.to_str(pretty=True))
    _write_config(target)
    return tokenizer


def _write_config(target: Path) -> None:
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>",
        "model_max_length": 4096, "clean_up_tokenization_spaces": False,
        "add_bos_token": False, "add_eos_token": False, "chat_template": CHAT_TEMPLATE,
    }  # fmt: skip
    whole.write(target / "tokenizer_config.json", json.dumps(config, indent=2) + "\n")


def is_whole(folder: Path) -> bool:
    """Return whether a folder holds a vocabulary; write again what else belongs to it.

    A vocabulary that can be read is never made anew: a checkpoint may have been trained with it.
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
