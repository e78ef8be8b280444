"""What the three tasks on text share: offline transformers, a tokenizer for tests, a schedule.

A pre-trained model is a local folder with `config.json`, `model.safetensors` and
`tokenizer.json`; nothing is asked of a hub.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

# transformers reads these when it is imported.
os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1")

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast, get_linear_schedule_with_warmup

LOCAL = {"local_files_only": True, "trust_remote_code": False}
"""How a folder is loaded: as data, from this machine."""

_SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "eos_token": "</s>"}


def small_tokenizer(sentences: Iterable[str]) -> PreTrainedTokenizerFast:
    """Return a tokenizer of at most 500 words, made from sentences; texts end with </s>."""
    tokenizer = Tokenizer(models.WordLevel(unk_token=_SPECIAL["unk_token"]))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    trainer = trainers.WordLevelTrainer(vocab_size=500, special_tokens=[*_SPECIAL.values()])
    tokenizer.train_from_iterator(sentences, trainer)
    end = _SPECIAL["eos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", special_tokens=[(end, tokenizer.token_to_id(end))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **_SPECIAL)


def optimizer_and_schedule(model, arguments, steps):
    """Return AdamW and its learning rate: up over the first 6 % of the steps, then down to 0."""
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=arguments.learning_rate, weight_decay=arguments.weight_decay
    )
    return optimizer, get_linear_schedule_with_warmup(optimizer, round(0.06 * steps), steps)


def update(model, optimizer, schedule, loss):
    """Take one step down the gradient, of norm 1 at most."""
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()


def mixed_precision(device: torch.device) -> torch.autocast:
    """Return a context in which a GPU computes in bfloat16; the CPU stays with float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
