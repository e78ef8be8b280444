"""The chat rendering is compared with a golden file.

After an intended change, read the difference and write the file again:
`python tests/creator/test_creator_prompt.py`.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jinja2
import pytest

from localhpo import assets
from localhpo.creator import History, context, prompt
from localhpo.creator.context import Facts, ParameterFact, RetrievedFact, TrialFact

GOLDEN = Path(__file__).parent / "prompt.golden.txt"


def parameter(name: str, kind: str, **more: object) -> ParameterFact:
    blank = {"log": False, "low": "", "high": "", "step": "", "values": ()}
    blank |= {"default": "", "help": "", "when": ""}
    return ParameterFact(name=name, kind=kind, **{**blank, **more})


def trial(number: int, state: str, config: str, **more: object) -> TrialFact:
    blank = {"value": "", "quality": None, "cause": "", "summary": ""}
    return TrialFact(number=number, state=state, config=config, **{**blank, **more})


BEST = trial(
    1,
    "complete",
    '{"learning_rate":1e-1,"batch":32,"booster":"gbtree"}',
    value="0.9711",
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
            value="0.9503",
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
    return prompt.join_messages(prompt.render_messages(facts, "chat")) + "\n"


def test_the_chat_prompt_equals_the_golden_file():
    assert rendered(FACTS) == GOLDEN.read_text()


def test_the_prompt_of_an_empty_study_has_no_results():
    text = rendered(EMPTY)
    assert "None has finished yet." in text
    assert "lower is better" in text
    for absent in ("Description", "Best: trial", "Running", "| trial |"):
        assert absent not in text
    assert "this one included" not in text


def test_trials_that_do_not_fit_are_mentioned():
    text = rendered(dataclasses.replace(FACTS, trials=(), shown=0))
    assert "5 finished; they do not fit in this prompt." in text
    assert "None has finished yet." not in text


def test_no_remaining_trials_are_claimed_beyond_the_budget():
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


def test_other_objectives_constraints_and_past_studies_are_told():
    result = dataclasses.replace(BEST, other_results="size 12, violates latency_ms <= 200 by 30")
    past = RetrievedFact(
        study="old/main", config="{}", metric="f1", value="0.9", similarity="0.81", reasons="a; b"
    )
    text = rendered(
        dataclasses.replace(
            FACTS,
            trials=(result,),
            best=result,
            other_objectives=("minimize size",),
            constraints=("latency_ms <= 200",),
            retrieved=(past,),
        )
    )
    assert "Further objectives, of less importance: minimize size." in text
    assert "Constraints: latency_ms <= 200." in text
    assert "| size 12, violates latency_ms <= 200 by 30; val_f1 rose to 0.9711" in text
    assert "with val_f1 0.9711 (size 12, violates latency_ms <= 200 by 30)." in text
    assert "| old/main | 0.81 (a; b) | f1 0.9 | {} |" in text
    assert "Further objectives" not in rendered(FACTS)


def test_a_compact_prompt_is_one_message():
    (message,) = prompt.render_messages(FACTS, "compact")
    assert message.role == "user"
    assert prompt.render_messages(EMPTY, "compact")


@pytest.mark.parametrize("style", ["chat", "compact"])
def test_fixed_values_follow_the_space(make_task, style):
    fixed = {"n_estimators": 300, "gamma": 0.03124, "tree_method": "hist", "dart": False}
    history = History(task=make_task(fixed=fixed), trials=(), seed=0, next_number=0)
    text = prompt.join_messages(prompt.render_messages(context.build_facts(history), style))
    lines = [line.removeprefix("- ") for line in text.splitlines()]
    first = lines.index("n_estimators = 300") + 1
    assert lines[first : first + 3] == ["gamma = 3.12e-2", 'tree_method = "hist"', "dart = false"]
    without = dataclasses.replace(history, task=make_task())
    assert "ixed" not in prompt.join_messages(
        prompt.render_messages(context.build_facts(without), style)
    )


def test_the_hash_changes_with_the_facts():
    assert prompt.sha256(prompt.render_messages(FACTS, "chat")) != prompt.sha256(
        prompt.render_messages(EMPTY, "chat")
    )


def test_an_undefined_name_in_a_template_is_an_error(tmp_path, monkeypatch):
    (tmp_path / "compact.txt.j2").write_text("{{ facts.secret }}")
    monkeypatch.setattr(assets, "folder", lambda name: tmp_path)
    prompt._environment.cache_clear()
    try:
        with pytest.raises(jinja2.UndefinedError, match="secret"):
            prompt.render_messages(FACTS, "compact")
    finally:
        prompt._environment.cache_clear()


if __name__ == "__main__":
    GOLDEN.write_text(rendered(FACTS))
