"""Train LightGCN to recommend movies of MovieLens-1M; report its NDCG at 10.

    python train.py --data DIR --learning_rate 0.001 --embedding_size 64

A rating of four stars or more is a like. Seed 0 splits the likes of each user: 80 % to train on,
10 % for validation, 10 % for the test; all movies are ranked that are not known to be liked. Meant
for a GPU: on one core an epoch takes minutes.
"""

import argparse
import sys

from localhpo import report
from localhpo.tasks import data

try:
    import numpy as np
    import torch
    from torch_geometric import seed_everything
    from torch_geometric.nn.models import LightGCN
    from torch_geometric.utils import to_undirected
except ImportError as exc:
    sys.exit(f"Error: this task needs torch-geometric ({exc}): pip install 'localhpo[tasks]'")

LIKED = 4
TOP = 10
OPTIMIZERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
REPORT_EVERY = 10
SMALL_EPOCHS = 3
USERS_AT_ONCE = 1024


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--embedding_size", type=int, default=64)
    parser.add_argument("--learning_rate", type=float, default=0.001)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adam")
    parser.add_argument("--reg_weight", type=float, default=1e-4)
    parser.add_argument("--batch_size", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--num_layers", type=int, default=3)
    parser.add_argument("--data", help="folder of the data; LOCALHPO_DATA by default")
    parser.add_argument("--small", action="store_true", help="few epochs, for a test")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def load_likes(arguments):
    """Return the likes, (2, likes): user and movie, each numbered from 0."""
    folder = data.find(__file__, arguments.data)
    with data.open_text(folder, "ratings.dat", encoding="latin-1") as file:
        ratings = np.array([[int(part) for part in line.split("::")[:3]] for line in file])
    liked = ratings[ratings[:, 2] >= LIKED]
    columns = [np.unique(liked[:, column], return_inverse=True)[1] for column in (0, 1)]
    return torch.from_numpy(np.stack(columns))


def split(likes):
    """Return train, validation and test: the same for every configuration."""
    users = likes[0].numpy()
    shuffled = np.random.default_rng(0).permutation(len(users))
    by_user = shuffled[np.argsort(users[shuffled], kind="stable")]
    sizes = np.bincount(users)
    rank = np.arange(len(users)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    place = (rank + 0.5) / np.repeat(sizes, sizes)  # of a like among its user's, 0 to 1
    bounds = (place < 0.8, (place >= 0.8) & (place < 0.9), place >= 0.9)
    return [likes[:, by_user[part]] for part in bounds]


def table_of(likes, users, movies):
    """Return the likes as a table (users, movies) of True and False."""
    table = torch.zeros(users, movies, dtype=torch.bool, device=likes.device)
    table[likes[0], likes[1]] = True
    return table


def train_epoch(model, optimizer, edges, likes, arguments):
    """Return the mean loss of one pass over the likes in a new order.

    Args:
        likes: (2, likes), the number of the user and the node of the movie.
    """
    first_movie = int(likes[1].min())
    losses = []
    for batch in torch.randperm(likes.shape[1], device=likes.device).split(arguments.batch_size):
        user, liked = likes[:, batch]
        # Of thousands of movies a user likes dozens: one that is drawn is seldom among them.
        drawn = torch.randint(first_movie, model.num_nodes, user.shape, device=user.device)
        pairs = torch.stack((user.repeat(2), torch.cat((liked, drawn))))
        better, worse = model(edges, pairs).chunk(2)
        loss = model.recommendation_loss(
            better, worse, torch.cat((user, liked, drawn)), arguments.reg_weight
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return torch.stack(losses).mean().item()


@torch.no_grad()
def ndcg(model, edges, known, wanted):
    """Return the NDCG at 10, the mean over users who have something to be found.

    Args:
        known: (users, movies), True where a movie is not to be recommended again.
        wanted: the same, True where it should be.
    """
    z = model.get_embedding(edges)
    users, movies = z[: len(known)], z[len(known) :]
    discount = 1 / torch.log2(torch.arange(2, TOP + 2, device=z.device))
    scores = []
    for chunk in wanted.any(dim=1).nonzero()[:, 0].split(USERS_AT_ONCE):
        ranked = (users[chunk] @ movies.T).masked_fill(known[chunk], -torch.inf)
        top = ranked.topk(min(TOP, len(movies))).indices
        gain = wanted[chunk].gather(1, top) * discount[: top.shape[1]]
        findable = wanted[chunk].sum(dim=1).clamp(max=top.shape[1])
        scores.append(gain.sum(dim=1) / discount.cumsum(0)[findable - 1])
    return torch.cat(scores).mean().item()


def main():
    arguments = parse_arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    likes = load_likes(arguments)
    users, movies = (int(number) + 1 for number in likes.max(dim=1).values)
    train, val, test = (table_of(part.to(device), users, movies) for part in split(likes))
    seed_everything(arguments.seed)
    liked = train.nonzero().T + torch.tensor([[0], [users]], device=device)
    edges = to_undirected(liked)
    model = LightGCN(users + movies, arguments.embedding_size, arguments.num_layers).to(device)
    optimizer = OPTIMIZERS[arguments.optimizer](model.parameters(), lr=arguments.learning_rate)
    epochs = min(arguments.epochs, SMALL_EPOCHS if arguments.small else sys.maxsize)
    for epoch in range(1, epochs + 1):
        loss = train_epoch(model, optimizer, edges, liked, arguments)
        if epoch % REPORT_EVERY == 0 or epoch == epochs:
            score = ndcg(model, edges, known=train, wanted=val)
            if report(step=epoch, val_ndcg10=score, train_loss=loss):
                return
    report(step=epochs, test_ndcg10=ndcg(model, edges, known=train | val, wanted=test))


if __name__ == "__main__":
    main()
