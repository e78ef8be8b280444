"""Train a ResNet-18 of timm on CIFAR-10; report its accuracy in percent.

    python train.py --data ~/data --model_name resnet18d --learning_rate 1e-3

Data: the publisher's binary version (`data_batch_1.bin` to `_5`, `test_batch.bin`), or, with
`--layout jpeg`, class folders `train/CLASS/*.jpg` and `test/CLASS/*.jpg`. The five training
batches are split 45,000 to 5,000, stratified, seed 0: training and validation. Test: its 10,000.
"""

import sys

from localhpo.tasks import data

try:
    import numpy as np
    from sklearn.model_selection import train_test_split

    from localhpo.tasks import image_classification as classification
    from localhpo.tasks.images import class_images, decode
except (ImportError, RuntimeError) as exc:  # the latter: a torchvision that does not fit torch
    sys.exit(f"Error: this task needs torch and timm ({exc}): pip install 'localhpo[tasks]'")

SIZE = 32


def read_binary(folder, *names):
    """Return images and labels; each record is a label and 3,072 bytes, red before green."""
    record = 1 + 3 * SIZE * SIZE
    rows = []
    for name in names:
        with data.open_binary(folder, name) as file:
            content = np.frombuffer(file.read(), np.uint8)
        if not content.size or content.size % record:
            sys.exit(f"Error: {folder / name} must hold records of {record} bytes; it is damaged")
        rows.append(content.reshape(-1, record))
    rows = np.concatenate(rows)
    return rows[:, 1:].reshape(-1, 3, SIZE, SIZE), rows[:, 0].astype(np.int64)


def read_jpeg(folder, name, arguments):
    encoded, classes = class_images(data.path_of(folder, name))
    labels = np.unique(classes, return_inverse=True)[1]
    if arguments.small:  # enough for the splits, of all classes
        chosen = np.random.default_rng(0).permutation(len(labels))[: 4 * classification.SMALL]
        encoded, labels = [encoded[i] for i in chosen], labels[chosen]
    return decode(encoded, (SIZE, SIZE), arguments.workers), labels


def load(arguments):
    """Return the splits, each (images, labels)."""
    if arguments.layout == "jpeg":
        folder = data.find(__file__, arguments.data, instead="jpeg")
        images, labels = read_jpeg(folder, "train", arguments)
        test = read_jpeg(folder, "test", arguments)
    else:
        folder = data.find(__file__, arguments.data)
        images, labels = read_binary(folder, *(f"data_batch_{n}.bin" for n in range(1, 6)))
        test = read_binary(folder, "test_batch.bin")
    x, x_val, y, y_val = train_test_split(
        images, labels, test_size=0.1, stratify=labels, random_state=0
    )
    splits = {"train": (x, y), "val": (x_val, y_val), "test": test}
    if arguments.small:
        few = classification.SMALL
        splits = {name: (images[:few], labels[:few]) for name, (images, labels) in splits.items()}
    return splits


if __name__ == "__main__":
    arguments = classification.parse_arguments(__doc__, layouts=("binary", "jpeg"))
    classification.train(arguments, load(arguments))
