"""Train a graph convolutional network on Cora; report its accuracy.

    python train.py --data DIR --learning_rate 0.01 --dropout 0.5

The split is the public one of Planetoid: 140 papers to train on, 500 for validation, 1,000 for the
test. One core, one to ten seconds.
"""

import argparse
import sys

from localhpo import report
from localhpo.tasks import data

try:
    import torch
    import torch.nn.functional as F
    from torch_geometric.io import read_planetoid_data
    from torch_geometric.nn.models import GCN
    from torch_geometric.transforms import NormalizeFeatures
except ImportError as exc:
    sys.exit(f"Error: this task needs torch-geometric ({exc}): pip install 'localhpo[tasks]'")

OPTIMIZERS = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD}
REPORT_EVERY = 5
SMALL_EPOCHS = 6


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--num_layers", type=int, default=2)
    parser.add_argument("--learning_rate", type=float, default=0.01)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adam")
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--hidden_size", type=int, default=16)
    parser.add_argument("--activation", choices=("relu", "elu", "silu"), default="relu")
    parser.add_argument("--weight_decay", type=float, default=5e-4)
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--data", help="folder of the data; LOCALHPO_DATA by default")
    parser.add_argument("--small", action="store_true", help="few epochs, for a test")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def load_graph(arguments, device):
    """Return the graph; its features are sparse: one in eighty is not zero."""
    with data.uncompressed(__file__, arguments.data) as folder:
        graph = read_planetoid_data(str(folder), "cora")
    graph = NormalizeFeatures()(graph)
    graph.x = graph.x.to_sparse_coo().coalesce()
    return graph.to(device)


def drop(x, share):
    """Return sparse features of which a share is zero, the others scaled up."""
    values = F.dropout(x.values(), share)
    return torch.sparse_coo_tensor(x.indices(), values, x.shape, is_coalesced=True)


def train_step(model, optimizer, graph, dropout):
    model.train()
    optimizer.zero_grad()
    logits = model(drop(graph.x, dropout), graph.edge_index)
    loss = F.cross_entropy(logits[graph.train_mask], graph.y[graph.train_mask])
    loss.backward()
    optimizer.step()
    return loss.item()


@torch.no_grad()
def evaluate(model, graph):
    """Return the accuracy on train, validation and test."""
    model.eval()
    is_right = (model(graph.x, graph.edge_index).argmax(dim=1) == graph.y).float()
    masks = (graph.train_mask, graph.val_mask, graph.test_mask)
    return [is_right[mask].mean().item() for mask in masks]


def main():
    arguments = parse_arguments()
    torch.manual_seed(arguments.seed)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    graph = load_graph(arguments, device)
    model = GCN(
        graph.num_features,
        arguments.hidden_size,
        arguments.num_layers,
        int(graph.y.max()) + 1,
        dropout=arguments.dropout,
        act=arguments.activation,
        cached=True,  # the graph stays the same
    ).to(device)
    optimizer = OPTIMIZERS[arguments.optimizer](
        model.parameters(), lr=arguments.learning_rate, weight_decay=arguments.weight_decay
    )
    epochs = min(arguments.epochs, SMALL_EPOCHS if arguments.small else sys.maxsize)
    for epoch in range(1, epochs + 1):
        loss = train_step(model, optimizer, graph, arguments.dropout)
        if epoch % REPORT_EVERY == 0 or epoch == epochs:
            train, val, test = evaluate(model, graph)
            if report(step=epoch, val_accuracy=val, train_accuracy=train, train_loss=loss):
                return
    report(step=epochs, test_accuracy=test)


if __name__ == "__main__":
    main()
