"""The chat rendering is compared with a golden file.

After a change that is meant, look at the difference and write it anew:
`python tests/creator/test_creator_prompt.py`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jinja2
import pytest

from localhpo import resources
from localhpo.creator import History, context, prompt
from localhpo.creator.facts import Facts, ParameterFact, TrialFact

GOLDEN = Path(__file__).parent / "prompt.golden.txt"


def parameter(name: str, kind: str, **more: object) -> ParameterFact:
    blank = {"log": False, "low": "", "high": "", "step": "", "values": ()}
    blank |= {"default": "", "help": "", "when": ""}
    return ParameterFact(name=name, kind=kind, **{**blank, **more})


def trial(number: int, state: str, config: str, **more: object) -> TrialFact:
    blank = {"score": "", "quality": None, "cause": "", "summary": ""}
    return TrialFact(number=number, state=state, config=config, **{**blank, **more})


BEST = trial(
    1,
    "complete",
    '{"learning_rate":1e-1,"batch":32,"booster":"gbtree"}',
    score="0.9711",
    quality=9,
    summary="val_f1 rose to 0.9711 | still rising at the end",
)

FACTS = Facts(
    task="water-xgboost",
    background="Gradient boosting on 3,276 rows.\n\nTwo classes (61/39).",
    metric="val_f1",
    direction="maximize",
    parameters=(
        parameter(
            "learning_rate",
            "float",
            log=True,
            low="1e-3",
            high="1e0",
            default="1e-1",
            help="shrinkage per tree",
        ),
        parameter("batch", "ordinal", values=("32", "64")),
        parameter("booster", "categorical", values=('"gbtree"', '"dart"')),
        parameter("drop", "float", low="0", high="0.5", step="0.1", when='booster is "dart"'),
    ),
    trials=(
        trial(
            2,
            "failed",
            '{"learning_rate":1e0,"batch":64,"booster":"gbtree"}',
            cause="timeout",
            summary="ended after 600 s",
        ),
        trial(
            0,
            "complete",
            '{"learning_rate":1e-2,"batch":64,"booster":"dart","drop":0.1}',
            score="0.9503",
            quality=0,
        ),
        BEST,
    ),
    running=('{"learning_rate":2e-1,"batch":32,"booster":"gbtree"}',),
    best=BEST,
    shown=3,
    finished=5,
    remaining=4,
)

EMPTY = dataclasses.replace(
    FACTS,
    background="",
    direction="minimize",
    trials=(),
    running=(),
    best=None,
    shown=0,
    finished=0,
    remaining=None,
)


def rendered(facts: Facts) -> str:
    return prompt.text(prompt.messages(facts, "chat")) + "\n"


def test_the_chat_prompt_is_the_golden_one():
    assert rendered(FACTS) == GOLDEN.read_text()


def test_an_empty_study_says_so_and_claims_nothing():
    text = rendered(EMPTY)
    assert "None has finished yet." in text
    assert "lower is better" in text
    for absent in ("Description", "Best: trial", "Running", "| trial |"):
        assert absent not in text
    assert "this one included" not in text


def test_history_without_room_is_not_called_absent():
    text = rendered(dataclasses.replace(FACTS, trials=(), shown=0))
    assert "5 finished; there is no room to list them." in text
    assert "None has finished yet." not in text


def test_a_trial_beyond_the_budget_is_not_promised_a_remainder():
    assert "this one included" not in rendered(dataclasses.replace(FACTS, remaining=0))


def test_a_users_words_are_never_read_as_a_template():
    words = "{{ facts.metric }} {% for x in y %} {# gone #} <b>&"
    hostile = dataclasses.replace(
        FACTS,
        background=words,
        parameters=(parameter("x", "int", low="1", high="2", help=words),),
    )
    assert rendered(hostile).count(words) == 2


def test_a_remark_cannot_add_a_column_to_the_table():
    (row,) = (line for line in rendered(FACTS).splitlines() if line.startswith("| 1 "))
    assert row.count("|") == 6


def test_a_compact_prompt_is_one_message():
    (message,) = prompt.messages(FACTS, "compact")
    assert message.role == "user"
    assert prompt.messages(EMPTY, "compact")


@pytest.mark.parametrize("style", ["chat", "compact"])
def test_what_is_fixed_is_told_after_the_space(make_task, style):
    fixed = {"n_estimators": 300, "gamma": 0.03124, "tree_method": "hist", "dart": False}
    history = History(task=make_task(fixed=fixed), trials=(), seed=0, next_number=0)
    text = prompt.text(prompt.messages(context.facts(history), style))
    lines = [line.removeprefix("- ") for line in text.splitlines()]
    first = lines.index("n_estimators = 300") + 1
    assert lines[first : first + 3] == ["gamma = 3.12e-2", 'tree_method = "hist"', "dart = false"]
    without = dataclasses.replace(history, task=make_task())
    assert "ixed" not in prompt.text(prompt.messages(context.facts(without), style))


def test_the_hash_changes_with_the_facts():
    assert prompt.sha256(prompt.messages(FACTS, "chat")) != prompt.sha256(
        prompt.messages(EMPTY, "chat")
    )


def test_a_name_that_is_not_given_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "compact.txt.j2").write_text("{{ facts.secret }}")
    monkeypatch.setattr(resources, "folder", lambda name: tmp_path)
    prompt._environment.cache_clear()
    try:
        with pytest.raises(jinja2.UndefinedError, match="secret"):
            prompt.messages(FACTS, "compact")
    finally:
        prompt._environment.cache_clear()


if __name__ == "__main__":
    GOLDEN.write_text(rendered(FACTS))
