"""Which hyperparameters of two tasks mean the same, by their names.

Names are compared without prefix, case and punctuation, then by a list of names that mean the same
in different libraries. Several parameters of one task that differ only by the number of their layer
(`dropout_1` and `dropout_2`, or `layer1.dropout` and `layer2.dropout`) are a group: they match one
parameter of the other task together.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Container, Iterable, Sequence
from dataclasses import dataclass

_SYNONYMS = (
    # boosted trees, and what they share with other models
    ("learning_rate", "lr", "eta", "base_lr", "lr0", "learning_rate_init", "shrinkage", "init_lr",
     "initial_lr", "initial_learning_rate", "lr_init", "max_lr", "peak_lr"),
    ("n_estimators", "nrounds", "num_boost_round", "n_rounds", "num_round", "num_rounds",
     "num_trees", "n_trees", "ntree", "num_iterations", "num_iteration", "iterations", "max_iter"),
    ("max_depth", "tree_depth", "depth"),
    ("min_child_weight", "min_sum_hessian", "min_sum_hessian_in_leaf"),
    ("subsample", "bagging_fraction", "row_sample", "sub_row"),
    ("colsample_bytree", "feature_fraction", "sub_feature"),
    ("colsample_bylevel", "colsample_bynode", "feature_fraction_bynode", "rsm"),
    ("gamma", "min_split_loss", "min_gain_to_split", "min_split_gain"),
    ("reg_lambda", "lambda", "lambda_l2", "l2_regularization", "l2_leaf_reg", "l2"),
    ("reg_alpha", "alpha", "lambda_l1", "l1"),
    ("scale_pos_weight", "pos_weight"),
    ("max_bin", "max_bins", "border_count"),
    # trees and forests
    ("max_leaf_nodes", "num_leaves", "max_leaves"),
    ("min_samples_leaf", "min_data_in_leaf", "min_child_samples", "min_node_size", "minbucket"),
    ("min_samples_split", "minsplit"),
    ("max_samples", "sample_fraction"),
    ("max_features", "mtry", "mtry_ratio"),
    ("bootstrap", "replace"),
    ("ccp_alpha", "cp"),
    # networks
    ("batch_size", "bs", "train_batch_size", "per_device_train_batch_size", "mini_batch_size",
     "minibatch_size"),
    ("epochs", "n_epochs", "max_epochs", "num_epochs", "nb_epoch", "num_train_epochs", "max_iter"),
    ("hidden_size", "hidden_dim", "hidden_units", "hidden_channels", "hidden_features",
     "hidden_layer_size", "hidden_layer_sizes", "mlp_hidden_size", "n_hidden", "num_hidden",
     "n_units", "num_units", "units", "max_units", "width"),
    ("embedding_size", "embedding_dim", "embed_dim"),
    ("num_layers", "n_layers", "n_hidden_layers", "num_hidden_layers", "num_mlp_layers", "depth"),
    ("dropout", "dropout_rate", "dropout_prob", "dropout_p", "p_drop", "drop_rate", "max_dropout",
     "hidden_dropout_prob"),
    ("weight_decay", "wd", "l2", "alpha", "reg_weight"),
    ("momentum", "sgd_momentum"),
    ("optimizer", "opt", "optim", "solver"),
    ("activation", "activation_fn", "activation_function", "act_fn", "nonlinearity", "hidden_act"),
    ("lr_schedule", "lr_scheduler", "scheduler", "lr_scheduler_type"),
    ("warmup_steps", "num_warmup_steps"),
    ("beta1", "beta_1", "adam_beta1"),
    ("beta2", "beta_2", "adam_beta2"),
    ("epsilon", "eps", "adam_epsilon", "adam_eps"),
    # the rest
    ("n_neighbors", "k"),
    ("cost", "c"),
)  # fmt: skip
"""Names of hyperparameters that mean the same in scikit-learn, XGBoost, LightGBM, CatBoost,
PyTorch, Keras, Hugging Face and R. A name in two groups means one of two things, depending on the
others."""


def plain_name(name: str) -> str:
    """Return the name of a hyperparameter without prefix, case and punctuation.

    `clf__max_depth` and `model.max-depth` are `maxdepth`.
    """
    last = re.split(r"__|[./]", name)[-1]
    return re.sub(r"[^a-z0-9]", "", last.lower()) or name


def _synonyms_by_name() -> dict[str, frozenset[int]]:
    found: dict[str, set[int]] = {}
    for number, names in enumerate(_SYNONYMS):
        for name in names:
            found.setdefault(plain_name(name), set()).add(number)
    return {name: frozenset(numbers) for name, numbers in found.items()}


_SYNONYM_SETS = _synonyms_by_name()
"""Plain name -> indices of the rows of `_SYNONYMS` that it is in."""


@dataclass(frozen=True, slots=True)
class MatchedGroup:
    """Parameters of two tasks that mean the same: one on each side, or one for each layer."""

    names_in_first: tuple[str, ...]
    names_in_second: tuple[str, ...]

    @property
    def first(self) -> str:
        """The name in the first task; of a group, that of its first parameter."""
        return self.names_in_first[0]

    @property
    def second(self) -> str:
        """The name in the second task."""
        return self.names_in_second[0]

    def extra_in_first(self, names: Container[str]) -> int:
        """Return how many of the names in the first task are in `names`, less one."""
        return max(0, sum(name in names for name in self.names_in_first) - 1)

    def extra_in_second(self, names: Container[str]) -> int:
        """Return how many of the names in the second task are in `names`, less one."""
        return max(0, sum(name in names for name in self.names_in_second) - 1)


def match_groups(a: Sequence[str], b: Sequence[str]) -> list[MatchedGroup]:
    """Return the hyperparameters of `a` and `b` that mean the same.

    Equal names match first, then plain names, then synonyms, the last two only where exactly one
    on each side fits; then groups, whose members are left.
    """
    pairs = {name: name for name in a if name in b}
    _add_pairs(pairs, a, b, lambda x, y: plain_name(x) == plain_name(y))
    _add_pairs(pairs, a, b, _are_synonyms)
    groups = [MatchedGroup((x,), (y,)) for x, y in pairs.items()]
    left_a = _group_by_base(name for name in a if name not in pairs)
    left_b = _group_by_base(name for name in b if name not in pairs.values())
    bases: dict[str, str] = {base: base for base in left_a if base in left_b}
    _add_pairs(bases, list(left_a), list(left_b), _are_synonyms)
    groups += [MatchedGroup(left_a[x], left_b[y]) for x, y in bases.items()]
    order = {name: index for index, name in enumerate(a)}
    return sorted(groups, key=lambda group: order[group.first])


def match_parameters(a: Sequence[str], b: Sequence[str]) -> dict[str, str]:
    """Return, for each hyperparameter of `a` that `b` has too, its name in `b`.

    The parameters of a group of `a` match the first of the group of `b`, or each its own where
    both are as large.
    """
    found = {}
    for group in match_groups(a, b):
        as_large = len(group.names_in_first) == len(group.names_in_second)
        for index, name in enumerate(group.names_in_first):
            found[name] = group.names_in_second[index if as_large else 0]
    return {name: found[name] for name in a if name in found}


def find_known_name(name: str, known: Collection[str]) -> str | None:
    """Return the known name of what a hyperparameter is; None where there is none.

    That is the same name without prefix, case and punctuation, then without the number of a layer,
    then its first synonym.
    """
    by_plain: dict[str, str] = {}
    for one in sorted(known):
        by_plain.setdefault(plain_name(one), one)
    plain = plain_name(name)
    base = _without_number(plain)
    for rest in (plain, base):
        if rest in by_plain:
            return by_plain[rest]
    rows = sorted(_SYNONYM_SETS.get(base, ()))
    synonyms = (plain_name(synonym) for row in rows for synonym in _SYNONYMS[row])
    return next((by_plain[one] for one in synonyms if one in by_plain), None)


def _are_synonyms(a: str, b: str) -> bool:
    sets_a, sets_b = (_SYNONYM_SETS.get(plain_name(name), frozenset()) for name in (a, b))
    return bool(sets_a & sets_b)


def _group_by_base(names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return the names by their plain name without the number of a layer.

    Names of one group differ by numbers alone. A plain name that stands for different things
    (`encoder.depth` and `decoder.depth`) is left out.
    """
    found: dict[str, list[str]] = {}
    for name in names:
        found.setdefault(_without_number(plain_name(name)), []).append(name)
    return {
        base: tuple(group)
        for base, group in found.items()
        if len({re.sub(r"\d+", "", name) for name in group}) == 1
    }


def _without_number(plain: str) -> str:
    """Return a plain name without a number at its end, where that is the number of a layer.

    It is where what is left is a name of `_SYNONYMS`: `beta1` is no layer of `beta`.
    """
    base = re.sub(r"\d+$", "", plain)
    return base if base in _SYNONYM_SETS else plain


def _add_pairs(
    pairs: dict[str, str], a: Sequence[str], b: Sequence[str], alike: Callable[[str, str], bool]
) -> None:
    """Pair the remaining names that are alike, where both have one candidate only."""
    left_a = [name for name in a if name not in pairs]
    left_b = [name for name in b if name not in pairs.values()]
    for x in left_a:
        candidates = [y for y in left_b if alike(x, y)]
        if len(candidates) == 1 and sum(alike(z, candidates[0]) for z in left_a) == 1:
            pairs[x] = candidates[0]
