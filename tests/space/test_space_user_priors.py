"""`prior` and `likely` of a parameter: what they mean, what is refused, what they do not change."""

from __future__ import annotations

import pytest

from localhpo.errors import SpaceError
from localhpo.space import Space

TABLE = {
    "rate": {
        "type": "float", "low": 1e-5, "high": 1e-1, "log": True,
        "prior": {"center": 1e-3, "spread": 3.0},
    },
    "depth": {"type": "int", "low": 1, "high": 12, "prior": {"center": 6, "spread": 1.5}},
    "opt": {"type": "categorical", "values": ["sgd", "adam", "lion"], "likely": ["adam", "lion"]},
    "batch": {"type": "ordinal", "values": [16, 32, 64], "likely": [64]},
    "free": {"type": "float", "low": 0.0, "high": 1.0},
}  # fmt: skip


def without_priors():
    return {
        name: {key: value for key, value in row.items() if key not in ("prior", "likely")}
        for name, row in TABLE.items()
    }


def test_the_expected_values_are_where_a_study_starts():
    space = Space.from_table(TABLE)
    assert space.default() == {"rate": 1e-3, "depth": 6, "opt": "adam", "batch": 64, "free": 0.5}
    assert space.has_defaults
    named = Space.from_table({**TABLE, "depth": {**TABLE["depth"], "default": 2}})
    assert named.default()["depth"] == 2, "a default is what the user wants first"


def test_they_are_written_back():
    assert Space.from_table(TABLE).to_table() == TABLE
    again = Space.from_table(Space.from_table(TABLE).to_table())
    assert again.parameters == Space.from_table(TABLE).parameters


def test_they_change_no_configuration_so_a_study_goes_on_with_others():
    assert Space.from_table(TABLE).signature() == Space.from_table(without_priors()).signature()


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        ("rate", {"prior": {"center": 1.0, "spread": 3.0}}, "prior center must be from 1e-5"),
        ("rate", {"prior": {"center": 1e-3, "spread": 0.5}}, "prior spread must be a factor above"),
        ("rate", {"prior": {"center": 1e-3}}, "prior must have center and spread"),
        ("rate", {"prior": {"center": "small", "spread": 2.0}}, "prior center must be"),
        ("rate", {"prior": 1e-3}, "prior must have center and spread"),
        ("rate", {"likely": [1e-3]}, "is not a key of type float"),
        ("depth", {"prior": {"center": 6, "spread": 0}}, "prior spread must be above 0"),
        ("opt", {"likely": ["adamw"]}, "each value of likely must be one of"),
        ("opt", {"likely": "adam"}, "likely must be a list of values"),
        ("opt", {"prior": {"center": 1, "spread": 1}}, "is not a key of type categorical"),
    ],
)
def test_what_cannot_hold_is_refused(name, change, says):
    with pytest.raises(SpaceError, match=says):
        Space.from_table({**TABLE, name: {**TABLE[name], **change}})
