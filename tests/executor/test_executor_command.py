"""`localhpo.executor.command`: from a command and a configuration to an argument list."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localhpo.errors import TaskError
from localhpo.executor.command import build_arguments, check_command
from localhpo.space import Categorical, Float, Int, Space
from localhpo.trial import Value

SPACE = Space(
    [
        Float("lr", 1e-4, 1e-1, log=True),
        Categorical("booster", ("gbtree", "dart")),
        Float("rate_drop", 0.0, 0.5, when={"booster": ("dart",)}),
    ]
)
TREE: Mapping[str, Value] = {"lr": 3.1e-4, "booster": "gbtree"}
DART: Mapping[str, Value] = {"lr": 3.1e-4, "booster": "dart", "rate_drop": 0.25}
KNOWN = {"config": "/t/config.json", "trial.dir": "/t", "trial.number": "4", "seed": "7"}


@pytest.mark.parametrize(
    ("command", "config", "expected"),
    [
        # appending
        ("train", TREE, "train --lr 0.00031 --booster gbtree"),
        ("train --data x.csv", DART, "train --data x.csv --lr 0.00031 --booster dart"
         " --rate_drop 0.25"),
        ("train --out {trial.dir}/m --seed {seed} -n{trial.number}", TREE,
         "train --out /t/m --seed 7 -n4 --lr 0.00031 --booster gbtree"),
        ("train {{x}} }}{{", TREE, "train {x} }{ --lr 0.00031 --booster gbtree"),
        # placeholders switch it off
        ("train --rate={lr}", TREE, "train --rate=0.00031"),
        ("train --config {config}", DART, "train --config /t/config.json"),
        ("train a{lr}b{booster}c {{{lr}}}", TREE, "train a0.00031bgbtreec {0.00031}"),
        # what is inactive is dropped, with its flag
        ("train --rate {lr} --drop {rate_drop} --fast", DART,
         "train --rate 0.00031 --drop 0.25 --fast"),
        ("train --rate {lr} --drop {rate_drop} --fast", TREE, "train --rate 0.00031 --fast"),
        ("train --drop={rate_drop} {lr}", TREE, "train 0.00031"),
        ("train --all --lr={lr} {rate_drop}", TREE, "train --all --lr=0.00031"),
        ("train {lr} {rate_drop}", TREE, "train 0.00031"),
        ("train {lr} -- {rate_drop}", TREE, "train 0.00031 --"),
        ("train {lr} -d {rate_drop}{booster}", TREE, "train 0.00031"),
    ],
)  # fmt: skip
def test_arguments(command: str, config: Mapping[str, Value], expected: str) -> None:
    assert build_arguments(command.split(), config, SPACE.names, KNOWN) == expected.split()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3.1e-4, ["--x", "0.00031"]),
        (1e-05, ["--x", "1e-05"]),
        (1.0, ["--x", "1.0"]),
        (7, ["--x", "7"]),
        (True, ["--x", "true"]),
        (False, ["--x", "false"]),
        ("adam", ["--x", "adam"]),
        ("", ["--x", ""]),
        ("a b\n$c {x} {{", ["--x", "a b\n$c {x} {{"]),
        # argparse takes a plain negative number for a value, and all else for a flag
        (-3, ["--x", "-3"]),
        (-0.5, ["--x", "-0.5"]),
        (-1e-05, ["--x", "-0.00001"]),
        (-2.5e22, ["--x", "-25000000000000000000000"]),
        ("-x", ["--x=-x"]),
    ],
)
def test_values_are_spelled_as_a_script_reads_them(value: Value, expected: list[str]) -> None:
    space = Space([Categorical("x", (value, "another"))])
    assert build_arguments(["train"], {"x": value}, space.names, KNOWN) == ["train", *expected]
    inserted = build_arguments(["train", "{x}"], {"x": value}, space.names, KNOWN)
    assert inserted == ["train", expected[-1].removeprefix("--x=")]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_argparse_reads_each_number_behind_a_flag_of_the_users(value: float) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--x", type=float)
    filled = build_arguments(["train", "--x", "{x}"], {"x": value}, ("x",), KNOWN)
    assert parser.parse_args(filled[1:]).x == value


def test_a_leading_python_is_this_interpreter() -> None:
    assert build_arguments(["python", "python", "{lr}"], TREE, SPACE.names, KNOWN)[:2] == [
        sys.executable,
        "python",
    ]
    assert build_arguments(["python3", "{lr}"], TREE, SPACE.names, KNOWN)[0] == "python3"


def test_parameter_takes_precedence_over_builtin_placeholder() -> None:
    space = Space([Int("seed", 1, 9)])
    assert build_arguments(["train", "{seed}"], {"seed": 3}, space.names, KNOWN) == ["train", "3"]


@pytest.mark.parametrize(
    ("command", "message", "hint"),
    [
        ([], "must name a program", "train.py"),
        ([""], "must name a program", "train.py"),
        (["t", "{learning}"], r"'\{learning\}' holds \{learning\}, which is neither", "{{ or }}"),
        (["t", "{boster}"], "neither a parameter nor one of config", "did you mean {booster}?"),
        (["t", "--d={trialdir}"], "which is neither", "did you mean {trial.dir}?"),
        (["t", "{ lr }"], "which is neither", "did you mean {lr}?"),
        (["t", '{"lr": 1}'], "which is neither", "{{ or }}"),
        (["t", "{}"], r"holds \{\}, which is neither", "{{ or }}"),
        (["t", "{lr"], r"the braces of '\{lr' do not match", "doubled"),
        (["t", "lr}"], "do not match", "doubled"),
        (["{booster}"], "must not depend on the parameter booster", "script"),
    ],
)
def test_what_cannot_be_used_is_told_before_any_trial(
    command: list[str], message: str, hint: str
) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        check_command(command, SPACE.names)
    assert hint in caught.value.hint
    with pytest.raises(TaskError, match=message):
        build_arguments(command, TREE, SPACE.names, KNOWN)
