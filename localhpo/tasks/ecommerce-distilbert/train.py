"""Fine-tune DistilBERT to sort texts of a web shop into four classes; report accuracy in percent.

    python train.py --data ~/data --weights ~/models/distilbert-base-uncased --epochs 2

Data: `ecommerceDataset.csv`, two columns without a header: class, text. Texts that occur more
than once are kept once: nearly half of the rows are such copies, and would stand in training and
test alike. Split 80 : 10 : 10 into training, validation and test, stratified, seed 0.
"""

import csv
import sys

from localhpo.tasks import data

try:
    from sklearn.model_selection import train_test_split

    from localhpo.tasks import text_classification as classification
except ImportError as exc:
    sys.exit(f"Error: this task needs torch, transformers ({exc}): pip install 'localhpo[tasks]'")


def read(folder):
    """Return the different texts and their classes, numbered by name."""
    with data.open_text(folder, "ecommerceDataset.csv") as file:
        rows = [row for row in csv.reader(file) if row]
    if any(len(row) != 2 for row in rows):
        sys.exit("Error: ecommerceDataset.csv must have two columns, class and text, in every row")
    class_of = {text: name for name, text in rows if text.strip()}
    numbers = {name: number for number, name in enumerate(sorted(set(class_of.values())))}
    return list(class_of), [numbers[name] for name in class_of.values()]


def load(folder):
    """Return the splits, each (texts, labels)."""
    texts, labels = read(folder)
    x, rest, y, y_rest = train_test_split(
        texts, labels, test_size=0.2, stratify=labels, random_state=0
    )
    x_val, x_test, y_val, y_test = train_test_split(
        rest, y_rest, test_size=0.5, stratify=y_rest, random_state=0
    )
    return {"train": (x, y), "val": (x_val, y_val), "test": (x_test, y_test)}


if __name__ == "__main__":
    arguments = classification.parse_arguments(__doc__)
    splits = load(data.find(__file__, arguments.data))
    classification.train(
        arguments, splits, lambda: data.find_weights(__file__, arguments.weights or arguments.data)
    )
