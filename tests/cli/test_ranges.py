import pytest

from localhpo.cli.init.argparse_reader import Option
from localhpo.cli.init.ranges import propose_range
from localhpo.space import Space


def given(name, kind="float", default=None, choices=()):
    return Option(name=name, flag=f"--{name}", line=1, kind=kind, default=default, choices=choices)


def log(low, high, default):
    table = {"type": "float", "low": low, "high": high, "log": True}
    return table if default is None else {**table, "default": default}


@pytest.mark.parametrize(
    ("option", "table"),
    [
        (given("lr", default=1e-3), log(3e-5, 3e-2, 1e-3)),
        (given("learning-rate", default=3e-4), log(1e-5, 1e-2, 3e-4)),
        (given("learning_rate", default=5e-5), log(1e-6, 3e-3, 5e-5)),
        (given("eta", default=0.1), log(3e-3, 1.0, 0.1)),
        (given("baseLr", default=2.0), log(0.03, 2.0, 2.0)),
        (given("lr"), log(3e-5, 3e-2, None)),
        (given("optim.lr", default=0.0), log(3e-5, 3e-2, None)),
        (given("weight-decay", default=1e-4), log(1e-6, 1e-2, 1e-4)),
        (given("weight-decay", default=0.0), log(1e-6, 1e-2, None)),
        (given("dropout", default=0.1), dict(type="float", low=0.0, high=0.5, default=0.1)),
        (given("dropout", default=0.8), dict(type="float", low=0.0, high=0.8, default=0.8)),
        (given("subsample", default=1.0), dict(type="float", low=0.5, high=1.0, default=1.0)),
        (given("gamma", default=0.99), dict(type="float", low=0.8, high=0.999, default=0.99)),
        (given("gamma", default=0.0), dict(type="float", low=0.0, high=0.5, default=0.0)),
        (
            given("batch-size", "int", 32),
            dict(type="ordinal", values=[8, 16, 32, 64, 128], default=32),
        ),
        (
            given("batch_size", "int", 50),
            dict(type="ordinal", values=[25, 50, 100, 200], default=50),
        ),
        (given("hidden", "int"), dict(type="ordinal", values=[32, 64, 128, 256, 512])),
        (given("max_depth", "int", 6), dict(type="int", low=3, high=11, default=6)),
        (given("epochs", "int", 10), dict(type="int", low=5, high=20, default=10)),
        (
            given("n_estimators", "int", 100),
            dict(type="int", low=25, high=400, log=True, default=100),
        ),
        (given("layers", "int", 1), dict(type="int", low=1, high=2, default=1)),
        (
            given("steps_total", "int", 1000),
            dict(type="int", low=250, high=4000, log=True, default=1000),
        ),
        (given("alpha_x", default=2.0), dict(type="float", low=0.0, high=2.0, default=2.0)),
        (given("unheard", default=0.3), dict(type="float", low=0.0, high=1.0, default=0.3)),
        (given("unheard", default=1e-6), log(1e-7, 1e-5, 1e-6)),
        (
            given("opt", "str", "sgd", ("adam", "sgd")),
            dict(type="categorical", values=["adam", "sgd"], default="sgd"),
        ),
        (given("k", "int", 3, (1, 2, 3, 4)), dict(type="int", low=1, high=4, default=3)),
        (given("k", "int", None, (8, 2, 4)), dict(type="ordinal", values=[2, 4, 8])),
        (
            given("nesterov", "bool", True, (True, False)),
            dict(type="categorical", values=[True, False], default=True),
        ),
    ],
)
def test_rules(option, table):
    proposed = propose_range(option)
    assert proposed.table == table
    Space.from_table({option.name: table})


@pytest.mark.parametrize(
    "name",
    ["seed", "data-dir", "output", "num-workers", "device", "test-batch-size", "log_interval"],
)
def test_options_on_where_and_how_to_run_are_not_tuned(name):
    assert propose_range(given(name, "int", 4)).table is None


@pytest.mark.parametrize(
    "option",
    [
        given("activation", "str", "relu"),
        given("unheard", "float", 0.0),
        given("unheard", "float", -2.0),
        given("unheard", "int", 0),
        given("unheard", "int"),
        given("opt", "str", "adam", ("adam",)),
        given("opt", "str", None, ((1, 2), (3, 4))),
    ],
)
def test_options_without_a_derivable_range_are_left_out_with_a_reason(option):
    proposed = propose_range(option)
    assert proposed.table is None
    assert proposed.why


def test_a_default_outside_of_the_range_is_remarked():
    assert "0.0" in propose_range(given("weight-decay", default=0.0)).why


@pytest.mark.parametrize("name", ["lr", "weight_decay", "dropout", "beta1", "gamma", "eps", "zeta"])
@pytest.mark.parametrize("default", [1e-12, 3e-7, 0.0299999, 0.9, 7.0, 1e9])
def test_every_range_holds_the_default_and_is_a_space(name, default):
    table = propose_range(given(name, default=default)).table
    assert table["low"] <= default <= table["high"]
    Space.from_table({name: table})
