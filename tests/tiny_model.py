"""A tiny causal language model for tests: random weights, a real tokenizer, a real folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from localhpo.llm.models.registry import Card, hash_files, render_card

END = "<|end|>"
CORPUS = [
    '{"learning_rate":3.1e-4,"max_depth":7,"booster":"dart","subsample":0.85,"gamma":0}',
    '{"analysis":"the best trial used a small learning rate","config":{},"evidence":[1,4]}',
    "You tune hyperparameters. Propose the next configuration of the study.",
    "Trials so far, worst to best: 1: 0.71, 4: 0.83.",
]
CONTEXT = 2048


def make_model(folder: Path, kind: str = "llama", **changes: Any) -> Path:
    """Write a model of two layers and some 100,000 weights; the same each time."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings: dict[str, Any] = {
        "vocab_size": 512,  # more than the tokenizer has, as models pad it
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": CONTEXT,
        "eos_token_id": 0,
        "bos_token_id": None,
        "pad_token_id": 0,
    }
    config = AutoConfig.for_model(kind, **(settings | changes))
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = AutoModelForCausalLM.from_config(config)
        for weights in model.parameters():
            weights.data *= 4  # so that some answers are likelier than others
    model.save_pretrained(folder)
    _tokenizer().save_pretrained(folder)
    return folder


def add_card(folder: Path, **changes: Any) -> Card:
    """Write a true card into a model folder."""
    fields: dict[str, Any] = {
        "name": folder.name,
        "version": "1",
        "summary": "random weights",
        "license": "MIT",
        "architecture": "llama",
        "parameters": 100_000,
        "context_length": 1024,
        "prompt": "compact",
        "files": hash_files(folder),
        "made": {"script": "tests/tiny_model.py", "seconds": 0.5},
        "measured": {"trials": 0},
        "limitations": ("anything",),
    }
    card = Card(**(fields | changes))
    (folder / "card.toml").write_text(render_card(card))
    return card


def edit_json(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=480, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS * 5, trainer)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)
    wrapped.chat_template = (
        "{% for message in messages %}<{{ message.role }}> {{ message.content }}\n{% endfor %}"
        "{% if add_generation_prompt %}<assistant> {% endif %}"
    )
    return wrapped
