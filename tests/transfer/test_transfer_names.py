"""Names of hyperparameters: which of two tasks, and which known one, mean the same."""

from __future__ import annotations

import pytest

from localhpo.transfer.names import find_known_name, match_groups, match_parameters

NETWORK = (
    "learning_rate", "batch_size", "epochs", "hidden_size", "num_layers", "dropout", "weight_decay",
    "activation", "optimizer",
)  # fmt: skip


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("init_lr", "n_units_1", "n_units_2"), ("learning_rate", "hidden_size", "hidden_size")),
        (
            ("optim.lr", "data.batchSize", "model.layer1.dropout", "model.layer2.dropout"),
            ("learning_rate", "batch_size", "dropout", "dropout"),
        ),
        (("per_device_train_batch_size", "num_train_epochs"), ("batch_size", "epochs")),
        (("units_1", "units_2", "activation_fn_1"), ("hidden_size", "hidden_size", "activation")),
        (("solver", "learning_rate_init"), ("optimizer", "learning_rate")),
        (("Op0", "Op1"), ()),
    ],
)
def test_names_of_other_libraries_and_of_layers_match(names, expected):
    assert tuple(match_parameters(names, NETWORK).values()) == expected


def test_betas_are_no_layers():
    assert match_parameters(("beta_1", "beta_2"), ("beta1", "beta2")) == {
        "beta_1": "beta1", "beta_2": "beta2",
    }  # fmt: skip
    assert match_parameters(("beta_1", "beta_2"), ("gamma",)) == {}


def test_layers_match_layers_each_its_own_where_there_are_as_many():
    first, second = ("dropout_1", "dropout_2"), ("drop_rate1", "drop_rate2")
    assert match_parameters(first, second) == dict(zip(first, second, strict=True))


def test_a_group_and_one_parameter_match_in_both_directions():
    (group,) = match_groups(("dropout",), ("dropout_1", "dropout_2"))
    assert group.names_in_second == ("dropout_1", "dropout_2")
    assert match_parameters(("dropout",), ("dropout_1", "dropout_2")) == {"dropout": "dropout_1"}


@pytest.mark.parametrize(
    ("name", "known", "expected"),
    [
        ("lr", {"lr", "learning_rate"}, "lr"),
        ("clf__Learning-Rate", {"learning_rate"}, "learning_rate"),
        ("init_lr", {"lr", "learning_rate"}, "learning_rate"),
        ("dropout_2", {"dropout"}, "dropout"),
        ("beta2", {"beta"}, None),
        ("Op1", {"op"}, None),
        ("x", set(), None),
    ],
)
def test_the_known_name_of_a_hyperparameter(name, known, expected):
    assert find_known_name(name, known) == expected
