"""Train DeepFM to predict who likes which movie of MovieLens-1M; report its AUC.

    python train.py --data DIR --learning_rate 0.001 --embedding_size 16

A rating of four stars or more is positive. Seed 0 splits the ratings: 80 % to train on, 10 % for
validation, 10 % for the test. Training ends when the AUC on validation has not risen for three
epochs. The model is that of Guo and others, https://arxiv.org/abs/1703.04247.
"""

import argparse
import math
import re
import sys
from itertools import pairwise

from localhpo import report
from localhpo.tasks import data

try:
    import numpy as np
    import torch
    import torch.nn.functional as F
    from sklearn.metrics import log_loss, roc_auc_score
except ImportError as exc:
    sys.exit(
        f"Error: this task needs torch and scikit-learn ({exc}): pip install 'localhpo[tasks]'"
    )

LIKED = 4
MAX_EPOCHS, PATIENCE = 20, 3
SMALL_EPOCHS = 2
OPTIMIZERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
ROWS_AT_ONCE = 8192  # where nothing is trained


class DeepFM(torch.nn.Module):
    """A factorization machine and a perceptron on the same embeddings.

    Every rating has F features with one value each, and the genres of its movie, of which the
    embeddings are averaged.
    """

    def __init__(self, values, genres, arguments):
        """Take the number of values of all F features together and the genres (movies, G)."""
        super().__init__()
        size, width = arguments.embedding_size, arguments.mlp_hidden_size
        self.register_buffer("genres", genres / genres.sum(dim=1, keepdim=True).clamp(min=1))
        # The last column of each is the weight of the linear part.
        self.values = torch.nn.Embedding(sum(values), size + 1)
        self.kinds = torch.nn.Parameter(torch.empty(genres.shape[1], size + 1))
        self.register_buffer("offsets", torch.tensor([0, *values[:-1]]).cumsum(0))
        self.bias = torch.nn.Parameter(torch.zeros(()))
        widths = [(len(values) + 1) * size] + [width] * arguments.num_mlp_layers
        layers = []
        for before, after in pairwise(widths):
            layers += [torch.nn.Linear(before, after), torch.nn.ReLU()]
            layers += [torch.nn.Dropout(arguments.dropout_prob)]
        self.perceptron = torch.nn.Sequential(*layers, torch.nn.Linear(widths[-1], 1))
        for weights in (self.values.weight, self.kinds):
            torch.nn.init.normal_(weights, std=0.01)

    def forward(self, features, movies):
        """Return the logits of features (B, F) and the rows of `genres` that belong to them (B)."""
        genres = (self.genres[movies] @ self.kinds)[:, None]
        all_parts = torch.cat((self.values(features + self.offsets), genres), dim=1)
        embedded, linear = all_parts[..., :-1], all_parts[..., -1]
        # The sum over pairs of products, in linear time (Rendle, Factorization Machines, 2010).
        pairs = (embedded.sum(dim=1).square() - embedded.square().sum(dim=1)).sum(dim=1) / 2
        deep = self.perceptron(embedded.flatten(1))[:, 0]
        return self.bias + linear.sum(dim=1) + pairs + deep


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--embedding_size", type=int, default=16)
    parser.add_argument("--learning_rate", type=float, default=0.001)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adam")
    parser.add_argument("--reg_weight", type=float, default=1e-6)
    parser.add_argument("--dropout_prob", type=float, default=0.2)
    parser.add_argument("--batch_size", type=int, default=2048)
    parser.add_argument("--mlp_hidden_size", type=int, default=128)
    parser.add_argument("--num_mlp_layers", type=int, default=2)
    parser.add_argument("--data", help="folder of the data; LOCALHPO_DATA by default")
    parser.add_argument("--small", action="store_true", help="few epochs, for a test")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def read_rows(folder, name):
    with data.open_text(folder, name, encoding="latin-1") as file:
        return [line.rstrip("\r\n").split("::") for line in file]


def load_ratings(arguments):
    """Return features (ratings, F) with the movie first, the positives, and genres (movies, G)."""
    folder = data.find(__file__, arguments.data)
    ratings = read_rows(folder, "ratings.dat")
    users = {user: (sex, age, job, zipcode[:1]) for user, sex, age, job, zipcode in
             read_rows(folder, "users.dat")}  # fmt: skip
    movies = {movie: (title, kinds.split("|")) for movie, title, kinds in
              read_rows(folder, "movies.dat")}  # fmt: skip
    columns = [
        [(movie, decade(movies[movie][0]), user, *users[user])[part] for user, movie, *_ in ratings]
        for part in range(7)
    ]
    numbered = [np.unique(column, return_inverse=True) for column in columns]
    features = torch.from_numpy(np.stack([numbers for _, numbers in numbered], axis=1))
    kinds = sorted({kind for _, kinds in movies.values() for kind in kinds})
    genres = [[kind in movies[movie][1] for kind in kinds] for movie in numbered[0][0]]
    liked = torch.tensor([int(row[2]) >= LIKED for row in ratings]).float()
    return features, liked, torch.tensor(genres).float()


def decade(title):
    """Return the decade of a title that ends in its year, as in `Toy Story (1995)`."""
    year = re.search(r"\((\d{3})\d\)\s*$", title)
    return year[1] if year else ""


def split(features, liked, device):
    """Return train, validation and test: the same for every configuration."""
    order = np.random.default_rng(0).permutation(len(liked))
    parts = np.split(order, [len(order) * 8 // 10, len(order) * 9 // 10])
    return [(features[part].to(device), liked[part].to(device)) for part in parts]


def train_epoch(model, optimizer, features, liked, batch_size):
    """Return the mean loss of one pass over the ratings in a new order."""
    model.train()
    losses = []
    for batch in torch.randperm(len(liked), device=liked.device).split(batch_size):
        logits = model(features[batch], features[batch, 0])
        loss = F.binary_cross_entropy_with_logits(logits, liked[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).mean().item()


@torch.no_grad()
def evaluate(model, features, liked):
    """Return the area under the ROC curve and the mean loss; NaN of a model that diverged."""
    model.eval()
    logits = torch.cat([model(part, part[:, 0]) for part in features.split(ROWS_AT_ONCE)])
    if not logits.isfinite().all():
        return math.nan, math.nan
    truth, chance = liked.cpu().numpy(), logits.double().sigmoid().cpu().numpy()
    return roc_auc_score(truth, chance), log_loss(truth, chance)


def main():
    arguments = parse_arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    features, liked, genres = load_ratings(arguments)
    train, val, test = split(features, liked, device)
    torch.manual_seed(arguments.seed)
    values = [int(number) + 1 for number in features.max(dim=0).values]
    model = DeepFM(values, genres, arguments).to(device)
    optimizer = OPTIMIZERS[arguments.optimizer](
        model.parameters(), lr=arguments.learning_rate, weight_decay=arguments.reg_weight
    )
    best, best_epoch, test_auc = 0.0, 0, 0.0
    for epoch in range(1, (SMALL_EPOCHS if arguments.small else MAX_EPOCHS) + 1):
        loss = train_epoch(model, optimizer, *train, arguments.batch_size)
        auc, logloss = evaluate(model, *val)
        if auc > best:
            best, best_epoch, test_auc = auc, epoch, evaluate(model, *test)[0]
        if report(step=epoch, val_auc=auc, val_logloss=logloss, train_loss=loss):
            return
        if epoch - best_epoch >= PATIENCE:
            break
    report(step=best_epoch, test_auc=test_auc)


if __name__ == "__main__":
    main()
