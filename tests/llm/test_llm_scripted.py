"""Backend with prepared answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from localhpo.errors import BackendError, ConstraintError, GenerationError, InputError
from localhpo.llm import AnswerConstraint, Message, open_backend
from localhpo.llm.protocol import GenerationRequest

ASKED = [Message("user", "Propose.")]
DIGIT = AnswerConstraint('start: "{\\"a\\":" /[1-9]/ "}"', {})


def test_a_list_of_answers_is_used_in_order() -> None:
    backend = open_backend("scripted", script=['{"a":1}', '{"a":2}', '{"a":3}'])
    assert [c.text for c in backend.generate(GenerationRequest(ASKED, DIGIT, n=2))] == [
        '{"a":1}',
        '{"a":2}',
    ]
    assert [c.text for c in backend.generate(GenerationRequest(ASKED, DIGIT))] == ['{"a":3}']
    with pytest.raises(BackendError, match="it had 3"):
        backend.generate(GenerationRequest(ASKED, DIGIT))


def test_a_function_gets_messages_constraint_and_seed() -> None:
    def script(messages: object, constraint: object, seed: int) -> str:
        assert (messages, constraint) == (ASKED, DIGIT)
        return json.dumps({"a": seed % 9 + 1}, separators=(",", ":"))

    backend = open_backend("scripted", script=script)
    (first, second) = backend.generate(GenerationRequest(ASKED, DIGIT, n=2, seed=4))
    assert first.text == '{"a":5}'
    assert second.seed != first.seed


@pytest.mark.parametrize("text", ['{"a":0}', '{"a":1', '{"a":1}}', ' {"a":1}', "ä", ""])
def test_an_answer_outside_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(ConstraintError, match="does not match the grammar"):
        open_backend("scripted", script=[text]).generate(GenerationRequest(ASKED, DIGIT))


def test_a_broken_grammar_is_refused() -> None:
    with pytest.raises(ConstraintError, match="cannot be compiled"):
        open_backend("scripted", script=["a"]).generate(
            GenerationRequest(ASKED, AnswerConstraint("start: /[/", {}))
        )


def test_a_long_answer_is_an_error_as_with_a_model() -> None:
    with pytest.raises(GenerationError, match="over 3"):
        open_backend("scripted", script=['{"a":1}']).generate(
            GenerationRequest(ASKED, DIGIT, max_tokens=3)
        )


def test_a_file_has_an_answer_on_each_line(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"a":1}\n\n{"a":2}\n', encoding="utf-8")
    backend = open_backend("scripted", model=str(path))
    assert [c.text for c in backend.generate(GenerationRequest(ASKED, DIGIT, n=2))] == [
        '{"a":1}',
        '{"a":2}',
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [(b'{"a":1}\n{"a":\n', "line 2: an answer must be JSON"), (b"\xff", "cannot be read")],
)
def test_an_invalid_script_file_is_an_error(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_backend("scripted", model=str(path))
    with pytest.raises(InputError, match="cannot be read"):
        open_backend("scripted", model=str(tmp_path / "missing.jsonl"))
