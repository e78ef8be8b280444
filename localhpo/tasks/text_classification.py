"""What sst2-distilbert and ecommerce-distilbert share: DistilBERT, fine-tuned."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from transformers import AutoTokenizer, DistilBertConfig, DistilBertForSequenceClassification

from localhpo import report
from localhpo.tasks import text_models

Texts = tuple[list[str], list[int]]
"""Texts and the class of each, from 0."""

SMALL = 32
"""Texts of a split with --small."""


def parse_arguments(description: str) -> argparse.Namespace:
    """Return the arguments of the script; the first line of `description` is shown by --help."""
    parser = argparse.ArgumentParser(description=description.splitlines()[0])
    parser.add_argument("--learning_rate", type=float, default=5e-5)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--dropout_rate", type=float, default=0.1)
    parser.add_argument("--attention_dropout", type=float, default=0.1)
    parser.add_argument("--seq_classif_dropout", type=float, default=0.2)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--activation", default="gelu")
    parser.add_argument("--weight_decay", type=float, default=1e-2)
    parser.add_argument("--max_length", type=int, default=128, help="tokens of a text")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", help="folder of the data; LOCALHPO_DATA by default")
    parser.add_argument("--weights", help="folder of DistilBERT; as for --data by default")
    parser.add_argument("--small", action="store_true", help="few texts, a tiny random model")
    return parser.parse_args()


def train(
    arguments: argparse.Namespace, splits: dict[str, Texts], find_weights: Callable[[], Path]
) -> None:
    """Train and report: accuracies in percent, the one of `test` after the last epoch.

    Args:
        arguments: of the script: hyperparameters, `max_length`, `seed`, `small`.
        splits: `train`, `val` and `test`.
        find_weights: returns the folder of DistilBERT; not asked with --small.
    """
    torch.manual_seed(arguments.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    classes = 1 + max(label for _, labels in splits.values() for label in labels)
    if arguments.small:
        splits = {name: (x[:SMALL], y[:SMALL]) for name, (x, y) in splits.items()}
        tokenizer = text_models.small_tokenizer(splits["train"][0])
        model = DistilBertForSequenceClassification(small_config(arguments, classes, tokenizer))
    else:
        folder = find_weights()
        tokenizer = AutoTokenizer.from_pretrained(folder, **text_models.LOCAL)
        model = DistilBertForSequenceClassification.from_pretrained(
            folder,
            num_labels=classes,
            use_safetensors=True,
            dtype=torch.float32,
            **dropouts(arguments),
            **text_models.LOCAL,
        )
    model = model.to(device)
    data = {name: encode(tokenizer, texts, arguments.max_length) for name, texts in splits.items()}
    fit(model, tokenizer, data, arguments)


def dropouts(arguments):
    """Return what the hyperparameters say to DistilBERT's configuration."""
    return {
        "dropout": arguments.dropout_rate,
        "attention_dropout": arguments.attention_dropout,
        "seq_classif_dropout": arguments.seq_classif_dropout,
        "activation": arguments.activation,
    }


def small_config(arguments, classes, tokenizer):
    return DistilBertConfig(
        vocab_size=len(tokenizer),
        dim=32,
        hidden_dim=64,
        n_layers=2,
        n_heads=4,
        num_labels=classes,
        pad_token_id=tokenizer.pad_token_id,
        **dropouts(arguments),
    )


def encode(tokenizer, texts, max_length):
    """Return a list of (token ids, class)."""
    sentences, labels = texts
    ids = tokenizer(sentences, truncation=True, max_length=max_length)["input_ids"]
    return list(zip(ids, labels, strict=True))


def collate(tokenizer, rows, device):
    """Return the model's arguments for a batch, padded to its longest text."""
    batch = tokenizer.pad({"input_ids": [ids for ids, _ in rows]}, return_tensors="pt")
    labels = torch.tensor([label for _, label in rows])
    return {
        "input_ids": batch["input_ids"].to(device),
        "attention_mask": batch["attention_mask"].to(device),
        "labels": labels.to(device),
    }


def fit(model, tokenizer, data, arguments):
    rows, size = data["train"], arguments.batch_size
    steps = arguments.epochs * -(-len(rows) // size)
    optimizer, schedule = text_models.optimizer_and_schedule(model, arguments, steps)
    for epoch in range(1, arguments.epochs + 1):
        model.train()
        loss_sum, right = 0.0, 0
        for indices in torch.randperm(len(rows)).split(size):
            batch = collate(tokenizer, [rows[i] for i in indices], model.device)
            with text_models.mixed_precision(model.device):
                output = model(**batch)
            text_models.update(model, optimizer, schedule, output.loss)
            loss_sum += output.loss.detach() * len(indices)
            right += (output.logits.argmax(1) == batch["labels"]).sum()
        metrics = {"train_loss": loss_sum / len(rows), "train_accuracy": 100 * right / len(rows)}
        metrics |= evaluate(model, tokenizer, data["val"], "val")
        if epoch == arguments.epochs:
            metrics |= evaluate(model, tokenizer, data["test"], "test")
        if report(step=epoch, **metrics):
            break


@torch.no_grad()
def evaluate(model, tokenizer, rows, name):
    model.eval()
    rows = sorted(rows, key=lambda row: len(row[0]))  # texts of like length: little padding
    loss, right = 0.0, 0
    for start in range(0, len(rows), 128):
        batch = collate(tokenizer, rows[start : start + 128], model.device)
        with text_models.mixed_precision(model.device):
            output = model(**batch)
        loss += output.loss * len(batch["labels"])
        right += (output.logits.argmax(1) == batch["labels"]).sum()
    return {f"{name}_loss": loss / len(rows), f"{name}_accuracy": 100 * right / len(rows)}
