"""Fine-tune DistilBERT on SST-2, the sentiment of film reviews; report its accuracy in percent.

    python train.py --data ~/data --weights ~/models/distilbert-base-uncased --epochs 2

Data: `train.tsv` and `dev.tsv` of GLUE (sentence, label). Validation is a tenth of train.tsv,
stratified, seed 0; test is dev.tsv (872 sentences), as GLUE keeps the labels of its own test.
"""

import csv
import sys

from localhpo.tasks import data

try:
    from sklearn.model_selection import train_test_split

    from localhpo.tasks import text_classification as classification
except ImportError as exc:
    sys.exit(f"Error: this task needs torch, transformers ({exc}): pip install 'localhpo[tasks]'")


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
    arguments = classification.parse_arguments(__doc__)
    splits = load(data.find(__file__, arguments.data))
    classification.train(
        arguments, splits, lambda: data.find_weights(__file__, arguments.weights or arguments.data)
    )
