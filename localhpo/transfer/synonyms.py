"""Names of hyperparameters that mean the same in different libraries."""

from __future__ import annotations

_SYNONYMS = (
    # boosted trees, and what they share with other models
    ("learning_rate", "lr", "eta", "base_lr", "lr0", "learning_rate_init", "shrinkage"),
    ("n_estimators", "nrounds", "num_boost_round", "n_rounds", "num_trees", "n_trees", "ntree",
     "num_iterations", "iterations", "max_iter"),
    ("max_depth", "tree_depth", "depth"),
    ("min_child_weight", "min_sum_hessian", "min_sum_hessian_in_leaf"),
    ("subsample", "bagging_fraction", "row_sample"),
    ("colsample_bytree", "feature_fraction"),
    ("colsample_bylevel", "colsample_bynode"),
    ("gamma", "min_split_loss", "min_gain_to_split"),
    ("reg_lambda", "lambda", "lambda_l2", "l2_regularization", "l2_leaf_reg", "l2"),
    ("reg_alpha", "alpha", "lambda_l1", "l1"),
    ("scale_pos_weight", "pos_weight"),
    # trees and forests
    ("max_leaf_nodes", "num_leaves", "max_leaves"),
    ("min_samples_leaf", "min_data_in_leaf", "min_child_samples", "min_node_size", "minbucket"),
    ("min_samples_split", "minsplit"),
    ("max_samples", "sample_fraction"),
    ("bootstrap", "replace"),
    ("ccp_alpha", "cp"),
    # networks
    ("batch_size", "bs", "train_batch_size"),
    ("epochs", "n_epochs", "max_epochs", "num_epochs", "num_train_epochs", "max_iter"),
    ("hidden_size", "hidden_dim", "hidden_units", "hidden_channels", "mlp_hidden_size", "n_units",
     "num_units", "width"),
    ("embedding_size", "embedding_dim", "embed_dim"),
    ("num_layers", "n_layers", "n_hidden_layers", "num_hidden_layers", "num_mlp_layers", "depth"),
    ("dropout", "dropout_rate", "dropout_prob", "p_drop"),
    ("weight_decay", "wd", "l2", "alpha", "reg_weight"),
    ("momentum", "sgd_momentum"),
    ("optimizer", "opt"),
    ("beta1", "adam_beta1"),
    ("beta2", "adam_beta2"),
    ("epsilon", "eps", "adam_epsilon"),
    # the rest
    ("n_neighbors", "k"),
)  # fmt: skip
"""Groups of synonyms. A name in two groups means one of two things, depending on the others."""


def synonym_groups(plain: str) -> frozenset[int]:
    """Return the indices of the groups that a name is in; names that share one may be synonyms.

    Args:
        plain: name without case and punctuation, as by `similarity.plain_name`.
    """
    return _GROUPS_OF.get(plain, frozenset())


def _groups_by_name() -> dict[str, frozenset[int]]:
    found: dict[str, set[int]] = {}
    for number, names in enumerate(_SYNONYMS):
        for name in names:
            found.setdefault(name.replace("_", ""), set()).add(number)
    return {name: frozenset(numbers) for name, numbers in found.items()}


_GROUPS_OF = _groups_by_name()
