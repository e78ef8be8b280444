"""What is trained on, chosen on, and tested on: never mixed."""

import dataclasses

import pytest

from localhpo.errors import InputError
from scripts.benchmarks.problems import functions, splits, suites, yahpo
from scripts.benchmarks.problems.problem import compute_reference
from scripts.benchmarks.problems.registry import DataFolders, open_problem

ALL = suites.all_suites()
SPLITS = yahpo.splits()
SETTINGS = set(SPLITS["bench"]["settings_data_sets"])
FINAL = set(SPLITS["bench"]["final_data_sets"])
SIZES = {
    "yahpo-seen": 40, "yahpo-unseen": 12, "xgboost": 6, "mlp": 6, "quadratics": 2,
    "functions": 12, "taskset": 3, "yahpo-settings": 24, "yahpo-settings-wide": 60,
    "xgboost-settings": 6, "mlp-settings": 6, "functions-settings": 12,
    "tables-fcnet": 4, "tables-fcnet-keras": 4, "tables-fcnet-nested": 4, "tables-nb201": 3,
    "ordinal-lcbench": 5,
}  # fmt: skip


def data_sets(suite):
    """Return the OpenML data ids that the problems of a suite stand for."""
    parts = [name.split("/") for name in suite.problems if name.startswith("yahpo/")]
    return {splits.data_set_id(family, instance) for _, family, instance, *_ in parts}


def trained_on():
    families = SPLITS["yahpo"]["families"].items()
    return {splits.data_set_id(f, i) for f, parts in families for i in parts["train"]}


def test_settings_and_final_data_sets_are_the_held_out_ones():
    families = SPLITS["yahpo"]["families"].items()
    held_out = {splits.data_set_id(f, i) for f, parts in families for i in parts["held_out"]}
    assert held_out == SETTINGS | FINAL
    assert not SETTINGS & FINAL
    assert not trained_on() & held_out
    assert not SETTINGS & set(splits.NEVER_TRAIN)
    assert all(splits.is_for_settings(name) for name in SETTINGS)


@pytest.mark.parametrize("suite", ALL.values(), ids=list(ALL))
def test_a_suite_keeps_to_its_side(suite):
    assert data_sets(suite) <= (FINAL if suite.use == "final" else SETTINGS)
    assert not data_sets(suite) & trained_on()
    families = {name.split("/")[1] for name in suite.problems if name.startswith("yahpo/")}
    unseen = set(SPLITS["yahpo"]["unseen_families"])
    assert (families == unseen) if suite.name == "yahpo-unseen" else not families & unseen
    tables = {name.split("/")[1] for name in suite.problems if name.startswith("taskset/")}
    assert tables <= set(SPLITS["taskset"]["held_out"])
    made = ("/made-" in name for name in suite.problems if name.startswith(("xgboost/", "mlp/")))
    assert all(made) if suite.use == "settings" else not any(made)


def test_no_problem_is_in_suites_of_both_kinds():
    by_use = {
        use: {p for suite in ALL.values() if suite.use == use for p in suite.problems}
        for use in ("settings", "final")
    }
    assert not by_use["settings"] & by_use["final"]
    assert all(len(set(suite.problems)) == len(suite.problems) for suite in ALL.values())


def test_the_suites_are_as_large_as_they_are_said_to_be():
    assert {suite.name: len(suite.problems) for suite in ALL.values()} == SIZES
    seen = ALL["yahpo-seen"].problems
    assert sum(name.endswith("/full") for name in seen) == 20
    assert {name.split("/")[1] for name in seen} == {
        family for family, parts in SPLITS["yahpo"]["families"].items() if parts["held_out"]
    }


def test_the_file_of_splits_is_what_its_rule_gives(data):
    assert splits.render(data) == yahpo.SPLITS.read_text()


@pytest.mark.parametrize(
    ("suite", "every"),
    [
        ("taskset", 1),
        ("yahpo-seen", 7),
        *(
            pytest.param(suite, 1, marks=pytest.mark.slow, id=f"{suite}-all")
            for suite in ("yahpo-seen", "yahpo-unseen", "yahpo-settings")
        ),
    ],
)
def test_every_problem_of_a_suite_can_be_measured(suite, every, data, tmp_path):
    folders = DataFolders(data, tmp_path)
    for name in ALL[suite].problems[::every]:
        problem = open_problem(name, folders)
        assert problem.digest == open_problem(name, folders).digest
        known = compute_reference(dataclasses.replace(problem, draws=200, crosses=40))
        assert known.best != known.median
        sign = 1.0 if problem.direction == "maximize" else -1.0
        assert sign * known.best > sign * known.median


def test_functions_of_suites_exist():
    for suite in ALL.values():
        for name in suite.problems:
            if name.startswith("function/"):
                _, function, variant = name.split("/")
                assert function in functions.names()
                assert variant.isdigit()


def test_full_and_crop_score_alike(data, tmp_path):
    """A configuration of a crop, with what is held, is one of the full space."""
    import numpy as np

    folders = DataFolders(data, tmp_path)
    for name in ALL["yahpo-settings"].problems:
        if not name.endswith("/crop"):
            continue
        crop = open_problem(name, folders)
        full = open_problem(name.removesuffix("crop") + "full", folders)
        rng = np.random.default_rng(0)
        held = crop.definition["held"]
        for _ in range(5):
            config = crop.space.sample(rng)
            whole = {**held, **config}
            active = {n: whole[n] for n in full.space.names if n in whole}
            active = {n: v for n, v in active.items() if full.space.is_active(n, active)}
            on_grid = full.space.canonical(active)
            if on_grid == active:
                assert full.evaluate(on_grid) == pytest.approx(crop.evaluate(config), rel=1e-5)


def test_what_a_user_may_name():
    assert suites.find_suite("quadratics").use == "final"
    assert suites.find_suite("function/branin/1").problems == ("function/branin/1",)
    with pytest.raises(InputError, match="a suite must be one of yahpo-seen") as caught:
        suites.find_suite("yahpo-sen")
    assert caught.value.hint == "did you mean 'yahpo-seen'?"
    with pytest.raises(InputError, match="no such table"):
        suites.find_suite("nowhere.csv")
