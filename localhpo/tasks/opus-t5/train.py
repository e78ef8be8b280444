"""Fine-tune T5-small to translate books from English into French; report its BLEU.

    python train.py --data ~/data --weights ~/models/t5-small --learning_rate 5e-4

Data: `Books.en-fr.en` and `Books.en-fr.fr` of OPUS, a sentence a line, aligned by line; with
`--corpus multi30k`, `train.en` and `train.fr` of Multi30k. Shuffled with seed 0: 2,000 pairs for
the test, 1,000 for validation (a tenth each, where that is less), the rest for training.
BLEU is sacrebleu's, of greedy translations.
"""

import argparse
import random
import sys

from localhpo import report
from localhpo.tasks import data

try:
    import sacrebleu
    import torch

    from localhpo.tasks import text_models  # before transformers: it keeps that off the network

    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration  # isort: skip
except ImportError as exc:
    sys.exit(
        f"Error: this task needs torch, transformers and sacrebleu ({exc}):"
        " pip install 'localhpo[tasks]'"
    )

FILES = {"books": "Books.en-fr", "multi30k": "train"}
PREFIX = "translate English to French: "
IGNORED = -100
"""A label that the loss of transformers leaves out."""
SMALL = 16
"""Pairs of a split with --small."""


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--learning_rate", type=float, default=3e-4)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch_size", type=int, default=32)
    parser.add_argument("--weight_decay", type=float, default=1e-2)
    parser.add_argument("--max_length", type=int, default=128, help="tokens of a sentence")
    parser.add_argument("--corpus", choices=tuple(FILES), default="books")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", help="folder of the data; LOCALHPO_DATA by default")
    parser.add_argument("--weights", help="folder of T5-small; as for --data by default")
    parser.add_argument("--small", action="store_true", help="few pairs, a tiny random model")
    return parser.parse_args()


def read_pairs(folder, name):
    """Return the (English, French) of a corpus; pairs with an empty side are left out."""
    sides = []
    for language in ("en", "fr"):
        with data.open_text(folder, f"{name}.{language}") as file:
            sides.append([line.strip() for line in file])
    if len(sides[0]) != len(sides[1]):
        sys.exit(
            f"Error: {name}.en and {name}.fr must have as many lines;"
            f" got {len(sides[0])} and {len(sides[1])}"
        )
    return [pair for pair in zip(*sides, strict=True) if all(pair)]


def load(arguments):
    """Return the splits, each a list of (English, French)."""
    instead = None if arguments.corpus == "books" else arguments.corpus
    pairs = read_pairs(
        data.find(__file__, arguments.data, instead=instead), FILES[arguments.corpus]
    )
    random.Random(0).shuffle(pairs)
    tests, vals = min(2000, len(pairs) // 10), min(1000, len(pairs) // 10)
    few = SMALL if arguments.small else None
    return {
        "test": pairs[:tests][:few],
        "val": pairs[tests : tests + vals][:few],
        "train": pairs[tests + vals :][:few],
    }


def load_model(arguments, pairs):
    """Return the tokenizer and the model."""
    if arguments.small:
        tokenizer = text_models.small_tokenizer(side for pair in pairs for side in pair)
        return tokenizer, T5ForConditionalGeneration(small_config(arguments, tokenizer))
    folder = data.find_weights(__file__, arguments.weights or arguments.data)
    model = T5ForConditionalGeneration.from_pretrained(
        folder,
        dropout_rate=arguments.dropout,
        use_safetensors=True,
        dtype=torch.float32,
        **text_models.LOCAL,
    )
    return AutoTokenizer.from_pretrained(folder, **text_models.LOCAL), model


def small_config(arguments, tokenizer):
    return T5Config(
        vocab_size=len(tokenizer),
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=1,
        num_heads=4,
        dropout_rate=arguments.dropout,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id,
    )


def padded(tokenizer, texts, arguments, device):
    settings = {"truncation": True, "max_length": arguments.max_length, "padding": True}
    batch = tokenizer(texts, return_tensors="pt", **settings)
    return batch["input_ids"].to(device), batch["attention_mask"].to(device)


def loss_of(model, tokenizer, pairs, arguments):
    """Return the mean cross-entropy per French token."""
    english, french = zip(*pairs, strict=True)
    ids, mask = padded(tokenizer, [PREFIX + text for text in english], arguments, model.device)
    labels, kept = padded(tokenizer, list(french), arguments, model.device)
    labels = labels.masked_fill(kept == 0, IGNORED)
    with text_models.mixed_precision(model.device):
        return model(input_ids=ids, attention_mask=mask, labels=labels).loss


@torch.no_grad()
def bleu(model, tokenizer, pairs, arguments):
    model.eval()
    pairs = sorted(pairs, key=lambda pair: len(pair[0]))  # of like length: little padding
    translations = []
    for start in range(0, len(pairs), 64):
        texts = [PREFIX + english for english, _ in pairs[start : start + 64]]
        ids, mask = padded(tokenizer, texts, arguments, model.device)
        with text_models.mixed_precision(model.device):
            tokens = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=8 if arguments.small else arguments.max_length,
                num_beams=1,
                do_sample=False,
            )
        translations += tokenizer.batch_decode(tokens, skip_special_tokens=True)
    return sacrebleu.corpus_bleu(translations, [[french for _, french in pairs]]).score


def train_epoch(model, tokenizer, pairs, optimizer, schedule, arguments):
    model.train()
    losses = []
    for indices in torch.randperm(len(pairs)).split(arguments.batch_size):
        loss = loss_of(model, tokenizer, [pairs[i] for i in indices], arguments)
        text_models.update(model, optimizer, schedule, loss)
        losses.append(loss.detach())
    return torch.stack(losses).mean()


def main():
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    splits = load(arguments)
    tokenizer, model = load_model(arguments, splits["train"])
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    steps = arguments.epochs * -(-len(splits["train"]) // arguments.batch_size)
    optimizer, schedule = text_models.optimizer_and_schedule(model, arguments, steps)
    for epoch in range(1, arguments.epochs + 1):
        loss = train_epoch(model, tokenizer, splits["train"], optimizer, schedule, arguments)
        metrics = {"train_loss": loss, "val_bleu": bleu(model, tokenizer, splits["val"], arguments)}
        if epoch == arguments.epochs:
            metrics["test_bleu"] = bleu(model, tokenizer, splits["test"], arguments)
        if report(step=epoch, **metrics):
            break


if __name__ == "__main__":
    main()
