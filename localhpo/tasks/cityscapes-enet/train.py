"""Train ENet on CityScapes; report its mean intersection over union (IoU) in percent.

    python train.py --data ~/data --learning_rate 5e-4 --activation prelu

Data: the folders `leftImg8bit` and `gtFine` (labelIds), scaled to 256 x 512, decoded once. The
publisher keeps the labels of its test images, so its validation set (500 images) is our test;
validation is the last sixth of the training cities by name (3 of 18: 359 of 2,975 images). Whole
cities, because pictures of one drive resemble each other.
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor

from localhpo import report
from localhpo.tasks import data

try:
    import numpy as np
    import torch
    from enet import ENet
    from PIL import Image
    from torch import nn
    from torch.nn import functional as F
    from torchmetrics import JaccardIndex

    from localhpo.tasks.images import as_numbers, decode, flipped, shuffled_batches
except ImportError as exc:
    sys.exit(f"Error: this task needs torch, torchmetrics ({exc}): pip install 'localhpo[tasks]'")

CLASSES = 19
IGNORED = 255
EVALUATED = [7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33]
"""The labelIds that count; their order makes them trainIds 0 to 18. The others are ignored.

Source: cityscapesScripts, helpers/labels.py.
"""
SMALL = 4
"""Images of a split with --small."""


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--learning_rate", type=float, default=5e-4)
    parser.add_argument("--optimizer", default="adam")
    parser.add_argument("--momentum", type=float, default=0.9, help="of sgd")
    parser.add_argument("--weight_decay", type=float, default=2e-4)
    parser.add_argument("--activation", default="prelu")
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--data", help="folder of the data; LOCALHPO_DATA by default")
    parser.add_argument("--workers", type=int, default=1, help="threads that decode images")
    parser.add_argument("--small", action="store_true", help="few images of 32 x 64, <= 2 epochs")
    return parser.parse_args()


def find_files(folder):
    """Return the image files of each split, in order of names."""
    images = folder / "leftImg8bit"
    cities = sorted(path.name for path in (images / "train").glob("*"))
    if len(cities) < 2:
        sys.exit(f"Error: {images / 'train'} must hold two cities or more; it has {len(cities)}")
    held_out = cities[-max(1, len(cities) // 6) :]
    train = sorted((images / "train").glob("*/*_leftImg8bit.png"))
    return {
        "train": [path for path in train if path.parent.name not in held_out],
        "val": [path for path in train if path.parent.name in held_out],
        "test": sorted((images / "val").glob("*/*_leftImg8bit.png")),
    }


def label_file(folder, image):
    """Return the file with the labels of an image."""
    name = image.name.replace("_leftImg8bit.png", "_gtFine_labelIds.png")
    return folder / "gtFine" / image.relative_to(folder / "leftImg8bit").parent / name


def read_labels(path, size):
    """Return trainIds (H, W), uint8."""
    with Image.open(path) as image:
        label_ids = np.asarray(image.resize(size[::-1], Image.Resampling.NEAREST))
    train_ids = np.full(256, IGNORED, np.uint8)
    train_ids[EVALUATED] = np.arange(CLASSES)
    return train_ids[label_ids]


def load(arguments, device):
    """Return the splits, each images (N, 3, H, W) and labels (N, H, W), uint8, on the device."""
    folder = data.find(__file__, arguments.data)
    size, few = ((32, 64), SMALL) if arguments.small else ((256, 512), None)
    splits = {}
    for name, files in find_files(folder).items():
        if not files:
            sys.exit(f"Error: no images for {name} in {folder / 'leftImg8bit'}")
        images = decode(files[:few], size, arguments.workers)
        with ThreadPoolExecutor(max(arguments.workers, 1)) as pool:
            labels = list(
                pool.map(lambda path: read_labels(label_file(folder, path), size), files[:few])
            )
        splits[name] = tuple(torch.from_numpy(a).to(device) for a in (images, np.stack(labels)))
    return splits


def class_weights(labels):
    """Return the weight of each class in the loss, by its share p: ENet's 1 / log(1.02 + p)."""
    counts = torch.bincount(labels.flatten().int(), minlength=256)[:CLASSES].float()
    return 1 / torch.log(1.02 + counts / counts.sum().clamp(min=1))


def make_optimizer(model, arguments):
    settings = {"lr": arguments.learning_rate, "weight_decay": arguments.weight_decay}
    if arguments.optimizer == "sgd":
        return torch.optim.SGD(model.parameters(), momentum=arguments.momentum, **settings)
    return torch.optim.Adam(model.parameters(), **settings)


def train_epoch(model, optimizer, split, weights, batch_size):
    model.train()
    losses = []
    for batch in shuffled_batches(len(split[0]), batch_size):
        images, labels = (part[batch.to(part.device)] for part in split)
        images, mirrored = flipped(as_numbers(images))
        labels = torch.where(mirrored[:, None, None], labels.flip(2), labels).long()
        loss = F.cross_entropy(model(images), labels, weights, ignore_index=IGNORED)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).mean()


@torch.no_grad()
def evaluate(model, split):
    """Return the mean IoU over the classes that occur, in percent."""
    model.eval()
    iou = JaccardIndex(task="multiclass", num_classes=CLASSES, ignore_index=IGNORED)
    iou = iou.to(split[0].device)
    for images, labels in zip(*(part.split(16) for part in split), strict=True):
        iou.update(model(as_numbers(images)).argmax(1), labels.long())
    return 100 * iou.compute()


def main():
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    splits = load(arguments, device)
    activations = {"relu": lambda channels: nn.ReLU(), "prelu": nn.PReLU}  # noqa: ARG005
    model = ENet(CLASSES, activations[arguments.activation]).to(device)
    optimizer = make_optimizer(model, arguments)
    weights = class_weights(splits["train"][1])
    epochs = min(arguments.epochs, 2) if arguments.small else arguments.epochs
    for epoch in range(1, epochs + 1):
        loss = train_epoch(model, optimizer, splits["train"], weights, arguments.batch_size)
        metrics = {"train_loss": loss, "val_iou": evaluate(model, splits["val"])}
        if epoch == epochs:
            metrics["test_iou"] = evaluate(model, splits["test"])
        if report(step=epoch, **metrics):
            break


if __name__ == "__main__":
    main()
