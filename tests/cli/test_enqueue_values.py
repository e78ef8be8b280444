import pytest

from localhpo.cli.study.enqueue import _assigned, _completed, _tuned
from localhpo.errors import ConfigurationError, InputError
from localhpo.space import Categorical, Float, Int, Ordinal, Space

SPACE = Space(
    [
        Float("lr", low=1e-4, high=1.0, log=True, default=0.1),
        Int("depth", low=1, high=9),
        Ordinal("size", values=(16, 32, 64)),
        Categorical("flag", values=(True, False)),
        Categorical("text", values=("1", "2", "a=b")),
        Float("drop", low=0.0, high=0.5, when={"flag": (True,)}),
    ]
)


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("lr=1e-3", 1e-3), ("lr=1", 1), ("depth=3", 3), ("size=32", 32), ("flag=true", True),
        ("flag=True", True), ("text=1", "1"), ("text=a=b", "a=b"), ("lr=fast", "fast"),
    ],
)  # fmt: skip
def test_texts_become_values_of_their_parameter(assignment, value):
    (read,) = _assigned((assignment,), SPACE).values()
    assert (read, type(read)) == (value, type(value))


def test_parameters_that_are_not_set_take_default_or_middle():
    assert _completed({"size": 64}, SPACE) == {
        "lr": 0.1, "depth": 5, "size": 64, "flag": True, "text": "1", "drop": 0.25,
    }  # fmt: skip


def test_an_inactive_parameter_is_not_filled_in():
    assert "drop" not in _completed({"flag": False}, SPACE)


@pytest.mark.parametrize(
    "given", [{"lr": "fast"}, {"lr": 7.0}, {"unknown": 1}, {"flag": False, "drop": 0.1}]
)
def test_configurations_outside_of_the_space_are_refused(given):
    with pytest.raises(ConfigurationError):
        _completed(given, SPACE)


def test_an_assignment_needs_an_equals_sign():
    with pytest.raises(InputError, match="--set must be NAME=VALUE, got 'lr'"):
        _assigned(("lr",), SPACE)


def test_fixed_values_may_be_given_unchanged_and_are_left_out():
    fixed = {"trees": 300, "method": "hist"}
    assert _tuned({"lr": 0.1, "trees": 300, "method": "hist"}, fixed) == {"lr": 0.1}
    assert _tuned({"trees": "300"}, fixed) == {}
    with pytest.raises(InputError, match="trees is fixed at 300"):
        _tuned({"trees": 400}, fixed)
