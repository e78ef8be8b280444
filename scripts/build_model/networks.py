"""Networks for data other than tables: graphs, ratings, pictures, sequences.

Each trains one design (`designs`) on a few generated data sets, because new random configurations
for each data set would take too long. There are no pre-trained weights, so these trainings say
nothing about fine-tuning. Variational graph auto-encoders are left out: on four kinds of generated
graphs, one that was hardly trained predicted links best, which is not so on real graphs.
"""

from __future__ import annotations

from scripts.benchmarks.problems.dims import Dim

from . import graphs, pictures, ratings, sequences
from .learners import Learner

_WEIGHT_DECAY = Dim("weight_decay", 1e-7, 1e-1, log=True)
_ADAM_OR_SGD = Dim("optimizer", values=("adam", "sgd"))

NETWORKS = (
    Learner(
        "gcn",
        "A graph convolutional network",
        (
            Dim("num_layers", 1, 6, integer=True),
            Dim("learning_rate", 1e-6, 1.0, log=True),
            _ADAM_OR_SGD,
            Dim("epochs", 1, 400, log=True, integer=True),
            Dim("hidden_size", 4, 256, log=True, integer=True),
            Dim("activation", values=graphs.ACTIVATIONS),
            _WEIGHT_DECAY,
            Dim("dropout", 0.0, 0.9),
        ),
        graphs.fit,
        tasks=("nodes",),
        make=graphs.make,
        first_seed=20_000,
    ),
    Learner(
        "deepfm",
        # British, as in the prompts that the built-in model was trained on.
        "A factorisation machine with a perceptron",
        (
            Dim("embedding_size", 4, 64, log=True, integer=True),
            Dim("learning_rate", 1e-5, 1.0, log=True),
            _ADAM_OR_SGD,
            Dim("reg_weight", 1e-8, 1e-1, log=True),
            Dim("dropout_prob", 0.0, 0.7),
            Dim("batch_size", 128, 4096, log=True, integer=True),
            Dim("mlp_hidden_size", 16, 512, log=True, integer=True),
            Dim("num_mlp_layers", 1, 4, integer=True),
        ),
        ratings.fit_clicks,
        tasks=("clicks",),
        make=ratings.make_clicks,
        first_seed=22_000,
    ),
    Learner(
        "lightgcn",
        "A recommender that spreads embeddings over a graph",
        (
            Dim("embedding_size", 8, 256, log=True, integer=True),
            Dim("learning_rate", 1e-5, 1.0, log=True),
            _ADAM_OR_SGD,
            Dim("reg_weight", 1e-8, 1e-1, log=True),
            Dim("batch_size", 512, 4096, log=True, integer=True),
            Dim("epochs", 10, 200, log=True, integer=True),
            Dim("num_layers", 1, 5, integer=True),
        ),
        ratings.fit_likes,
        tasks=("likes",),
        make=ratings.make_likes,
        first_seed=23_000,
        measure=ratings.measure_likes,
    ),
    Learner(
        "cnn",
        "A convolutional network",
        (
            Dim("optimizer", values=("adam", "adamw", "sgd")),
            Dim("learning_rate", 1e-5, 1.0, log=True),
            Dim("momentum", 0.0, 0.99, when=("optimizer", ("sgd",))),
            _WEIGHT_DECAY,
            Dim("dropout", 0.0, 0.7),
            Dim("batch_size", 16, 512, log=True, integer=True),
            Dim("epochs", 5, 40, log=True, integer=True),
        ),
        pictures.fit,
        tasks=("pictures",),
        make=pictures.make,
        first_seed=24_000,
    ),
    Learner(
        "transformer",
        "A small transformer, from random weights",
        (
            Dim("learning_rate", 1e-5, 1e-1, log=True),
            Dim("num_layers", 1, 3, integer=True),
            Dim("d_model", 8, 64, log=True, integer=True),
            Dim("dropout", 0.0, 0.6),
            Dim("batch_size", 16, 256, log=True, integer=True),
            Dim("epochs", 2, 30, log=True, integer=True),
            Dim("warmup_ratio", 0.0, 0.4),
            Dim("activation", values=("relu", "gelu")),
            _WEIGHT_DECAY,
        ),
        sequences.fit,
        tasks=("sequences",),
        make=sequences.make,
        first_seed=25_000,
    ),
)
