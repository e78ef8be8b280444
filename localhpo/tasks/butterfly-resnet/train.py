"""Train a ResNet-18 of timm on pictures of butterflies; report its accuracy in percent.

    python train.py --data ~/data --model_name resnet18d --learning_rate 1e-3

Data: `Training_set.csv` (filename,label) with the folder `train`, as on Kaggle; its other folder
has no labels. With `--layout leeds`: the class folders of the Leeds Butterfly set. Split 70 : 15
: 15 into training, validation and test, stratified, seed 0. Images are scaled to 128 x 128.
"""

import csv
import sys

from localhpo.tasks import data

try:
    import numpy as np
    from sklearn.model_selection import train_test_split

    from localhpo.tasks import image_classification as classification
    from localhpo.tasks.images import class_images, decode
except (ImportError, RuntimeError) as exc:  # the latter: a torchvision that does not fit torch
    sys.exit(f"Error: this task needs torch and timm ({exc}): pip install 'localhpo[tasks]'")

SIZE = 128


def read_kaggle(folder):
    """Return the paths of the images and their classes."""
    with data.open_text(folder, "Training_set.csv") as file:
        rows = sorted((row["filename"], row["label"]) for row in csv.DictReader(file))
    return [folder / "train" / name for name, _ in rows], [label for _, label in rows]


def load(arguments):
    """Return the splits, each (images, labels)."""
    if arguments.layout == "leeds":
        folder = data.find(__file__, arguments.data, instead="leeds")
        encoded, classes = class_images(data.path_of(folder, "leeds_butterfly_128"))
    else:
        encoded, classes = read_kaggle(data.find(__file__, arguments.data))
    labels = np.unique(classes, return_inverse=True)[1]
    train, rest = train_test_split(
        np.arange(len(labels)), test_size=0.3, stratify=labels, random_state=0
    )
    val, test = train_test_split(rest, test_size=0.5, stratify=labels[rest], random_state=0)
    size, few = (32, classification.SMALL) if arguments.small else (SIZE, None)
    return {
        name: (decode([encoded[i] for i in rows], (size, size), arguments.workers), labels[rows])
        for name, rows in (("train", train[:few]), ("val", val[:few]), ("test", test[:few]))
    }


if __name__ == "__main__":
    arguments = classification.parse_arguments(__doc__, layouts=("kaggle", "leeds"))
    classification.train(arguments, load(arguments))
