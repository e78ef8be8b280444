"""Fine-tune DistilBERT on SST-2, the sentiment of film reviews; report its accuracy in percent.

    python train.py --data ~/data --weights ~/models/distilbert-base-uncased --epochs 2

Data: `train.tsv` and `dev.tsv` of GLUE (sentence, label). Validation is a tenth of train.tsv,
stratified, seed 0; test is dev.tsv (872 sentences), as GLUE keeps the labels of its own test.
"""

import argparse
import csv
import sys

from localhpo.tasks import data

try:
    from sklearn.model_selection import train_test_split

    from localhpo.tasks import text_classification as classification
except ImportError as exc:
    sys.exit(f"Error: this task needs torch, transformers ({exc}): pip install 'localhpo[tasks]'")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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


def read(folder, name):
    """Return the sentences of a file and their labels."""
    with data.open_text(folder, name) as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return [row["sentence"].strip() for row in rows], [int(row["label"]) for row in rows]


def load(folder):
    """Return the splits, each (sentences, labels)."""
    sentences, labels = read(folder, "train.tsv")
    x, x_val, y, y_val = train_test_split(
        sentences, labels, test_size=0.1, stratify=labels, random_state=0
    )
    return {"train": (x, y), "val": (x_val, y_val), "test": read(folder, "dev.tsv")}


if __name__ == "__main__":
    arguments = parse_arguments()
    splits = load(data.find(__file__, arguments.data))
    classification.train(
        arguments, splits, lambda: data.find_weights(__file__, arguments.weights or arguments.data)
    )
