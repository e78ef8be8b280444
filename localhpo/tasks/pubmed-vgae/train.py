"""Train a variational graph auto-encoder on PubMed; report its AUC of link prediction.

    python train.py --data DIR --learning_rate 0.01 --hidden_channels 32

Seed 0 splits the edges: 85 % to train on, 5 % for validation, 10 % for the test. One core, a tenth
of a second to two seconds an epoch; a GPU is much faster.
"""

import argparse
import math
import sys

from localhpo import report
from localhpo.tasks import data

try:
    import numpy as np
    import torch
    from torch_geometric import seed_everything
    from torch_geometric.data import Data
    from torch_geometric.io import read_planetoid_data
    from torch_geometric.nn.models import GCN, VGAE
    from torch_geometric.transforms import RandomLinkSplit
    from torch_geometric.utils import to_undirected
except ImportError as exc:
    sys.exit(f"Error: this task needs torch-geometric ({exc}): pip install 'localhpo[tasks]'")

ARRAYS = {"citeseer": "citeseer.npz", "pubmed-partial": "pubmed_partial.npz"}
OPTIMIZERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
REPORT_EVERY = 10
SMALL_EPOCHS = 3
WIDTHS = (16, 32, 64, 128, 256)


class Encoder(torch.nn.Module):
    """Graph convolutions that end in the mean and the log deviation of each node's numbers."""

    def __init__(self, features, arguments):
        super().__init__()
        self.convolutions = GCN(
            features,
            arguments.hidden_channels,
            arguments.num_layers,
            2 * arguments.out_channels,
            dropout=arguments.dropout,
            act=arguments.activation,
            cached=True,  # the graph stays the same
        )

    def forward(self, x, edges):
        return self.convolutions(x, edges).chunk(2, dim=1)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_layers", type=int, default=2)
    parser.add_argument("--learning_rate", type=float, default=0.01)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adam")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--hidden_channels", type=int, choices=WIDTHS, default=32)
    parser.add_argument("--out_channels", type=int, choices=WIDTHS, default=16)
    parser.add_argument("--activation", choices=("relu", "elu", "silu"), default="relu")
    parser.add_argument("--weight_decay", type=float, default=1e-6)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--data", help="folder of the data; LOCALHPO_DATA by default")
    parser.add_argument("--dataset", choices=("pubmed", *ARRAYS), default="pubmed")
    parser.add_argument("--small", action="store_true", help="few epochs, for a test")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def load_graph(arguments):
    """Return the whole graph: features, and each edge in both directions."""
    if arguments.dataset == "pubmed":
        with data.uncompressed(__file__, arguments.data) as folder:
            graph = read_planetoid_data(str(folder), "pubmed")
        return Data(x=graph.x, edge_index=graph.edge_index)
    folder = data.find(__file__, arguments.data, instead=arguments.dataset)
    with data.open_binary(folder, ARRAYS[arguments.dataset]) as file, np.load(file) as arrays:
        rows = np.repeat(np.arange(arrays["shape"][0]), np.diff(arrays["indptr"]))
        x = torch.zeros(tuple(arrays["shape"]))
        x[rows, arrays["indices"]] = torch.from_numpy(arrays["data"]).float()
        edges = torch.from_numpy(arrays["edges"].astype(np.int64)).T
    return Data(x=x, edge_index=to_undirected(edges, num_nodes=len(x)))


def split(graph):
    """Return train, validation and test: the same for every configuration."""
    seed_everything(0)
    graph.x = graph.x.to_sparse_coo().coalesce()
    return RandomLinkSplit(
        num_val=0.05,
        num_test=0.1,
        is_undirected=True,
        split_labels=True,
        add_negative_train_samples=False,  # they are drawn anew in each epoch
    )(graph)


def train_step(model, optimizer, graph):
    model.train()
    optimizer.zero_grad()
    z = model.encode(graph.x, graph.edge_index)
    loss = model.recon_loss(z, graph.pos_edge_label_index) + model.kl_loss() / graph.num_nodes
    loss.backward()
    optimizer.step()
    return loss.item()


@torch.no_grad()
def auc(model, train, part):
    """Return the area under the ROC curve of a part, encoded from the edges of training.

    NaN of a model that diverged.
    """
    model.eval()
    z = model.encode(train.x, train.edge_index)
    if not z.isfinite().all():
        return math.nan
    area, _ = model.test(z, part.pos_edge_label_index, part.neg_edge_label_index)
    return float(area)


def main():
    arguments = parse_arguments()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    train, val, test = (part.to(device) for part in split(load_graph(arguments)))
    seed_everything(arguments.seed)
    model = VGAE(Encoder(train.num_features, arguments)).to(device)
    optimizer = OPTIMIZERS[arguments.optimizer](
        model.parameters(), lr=arguments.learning_rate, weight_decay=arguments.weight_decay
    )
    epochs = min(arguments.epochs, SMALL_EPOCHS if arguments.small else sys.maxsize)
    for epoch in range(1, epochs + 1):
        loss = train_step(model, optimizer, train)
        is_due = epoch % REPORT_EVERY == 0 or epoch == epochs
        if is_due and report(step=epoch, val_auc=auc(model, train, val), train_loss=loss):
            return
    report(step=epochs, test_auc=auc(model, train, test))


if __name__ == "__main__":
    main()
