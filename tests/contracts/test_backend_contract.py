"""Contract of `localhpo.llm.protocol`, tested for every backend."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoder import Decoder
from model_server import enforcing, serving
from tiny_model import make_model

from localhpo import grammar
from localhpo.errors import BackendError, ConstraintError, GenerationError
from localhpo.llm import AnswerConstraint, Backend, Message, open_backend
from localhpo.llm.servers.openai import OpenAIBackend
from localhpo.space import Categorical, Float, Int, Ordinal, Space

SPACE = Space(
    [
        Int("max_depth", 3, 11),
        Float("learning_rate", 1e-3, 1.0, log=True),
        Int("min_child_weight", 1, 10),
        Float("subsample", 0.5, 1.0),
        Float("colsample_bytree", 0.5, 1.0),
        Int("n_estimators", 100, 500),
        Float("gamma", 0.0, 0.5),
        Float("reg_lambda", 0.0, 1.0),
        Ordinal("max_bin", (64, 128, 256)),
        Categorical("booster", ("gbtree", "dart")),
        Float("rate_drop", 0.0, 0.5, when={"booster": ("dart",)}),
        Categorical("shuffle", (True, False)),
    ]
)


@dataclass(frozen=True)
class Case:
    """A constraint, and what holds for the value of an answer that matches it."""

    constraint: AnswerConstraint
    holds: Callable[[Any], bool]


def _object(**properties: Any) -> dict[str, Any]:
    return {
        "x-guidance": {"whitespace_flexible": False},
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _is_config(value: Any) -> bool:
    grammar.parse_answer(json.dumps(value), SPACE)
    return True


def _is_rationale(value: Any) -> bool:
    answer = grammar.parse_answer(json.dumps(value), SPACE, rationale=True, trials=[1, 4])
    return set(answer.evidence) <= {1, 4}


CASES = {
    "one to ten": Case(
        AnswerConstraint(
            r'start: "{\"a\":" /[1-9]|10/ "}"',
            _object(a={"type": "integer", "minimum": 1, "maximum": 10}),
        ),
        lambda value: 1 <= value["a"] <= 10,
    ),
    "negative": Case(
        AnswerConstraint(
            r'start: "{\"a\":" /-(4[1-9]|5[0-3])/ "}"',
            _object(a={"type": "integer", "minimum": -53, "maximum": -41}),
        ),
        lambda value: -53 <= value["a"] <= -41,
    ),
    "choice": Case(
        AnswerConstraint(
            r'start: "{\"b\":" ("\"gbtree\"" | "\"dart\"" | "true") "}"',
            _object(b={"enum": ["gbtree", "dart", True]}),
        ),
        lambda value: value["b"] in ("gbtree", "dart", True),
    ),
    "one sentence": Case(
        AnswerConstraint(r'start: "{\"c\":3}"', _object(c={"enum": [3]})),
        lambda value: value == {"c": 3},
    ),
    "space": Case(
        AnswerConstraint(grammar.lark_grammar(SPACE), grammar.json_schema(SPACE)), _is_config
    ),
    "rationale": Case(
        AnswerConstraint(
            grammar.lark_grammar(SPACE, rationale=True, trials=[1, 4]),
            grammar.json_schema(SPACE, rationale=True, trials=[1, 4]),
        ),
        _is_rationale,
    ),
}
PROMPT = [
    Message("system", "You tune hyperparameters."),
    Message("user", "Trials, worst to best: 1: 0.71, 4: 0.83. Propose the next configuration."),
]
IMPLEMENTATIONS = (
    "scripted",
    "transformers",
    "openai-grammar",
    "openai-schema",
    pytest.param("vllm", marks=pytest.mark.slow),  # the real one, with the built-in model
)


BROKEN = AnswerConstraint("start: /[/", {"type": "no such type"})


def _random_answer(messages: Sequence[Message], constraint: AnswerConstraint, seed: int) -> str:
    if constraint is BROKEN:
        return "{}"
    rng = np.random.default_rng(seed)
    return Decoder(constraint.grammar).write(lambda allowed: int(rng.choice(allowed)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(params=IMPLEMENTATIONS)
def backend(request: pytest.FixtureRequest, folder: Path) -> Iterator[Backend]:
    name, _, form = request.param.partition("-")
    if name == "scripted":
        yield open_backend("scripted", script=_random_answer)
        return
    if name == "vllm":
        with request.getfixturevalue("vllm_server").adopted() as adopted:
            yield adopted
        return
    in_process = open_backend("transformers", model=str(folder), device="cpu")
    if name == "transformers":
        yield in_process
        return
    takes = ("structured_outputs",) if form == "grammar" else ("response_format",)
    with serving(enforcing(in_process, takes=takes)) as server:
        yield open_backend("openai", url=server.url)


def _is_exact(backend: Backend) -> bool:
    return not isinstance(backend, OpenAIBackend) or backend.form.exact


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_completion_matches_the_constraint(backend: Backend, case: Case) -> None:
    completions = backend.generate(PROMPT, case.constraint, n=4, max_tokens=900, seed=3)
    for completion in completions:
        assert case.holds(json.loads(completion.text)), completion.text
        if _is_exact(backend):
            assert Decoder(case.constraint.grammar).accepts(completion.text)


def test_each_completion_has_its_cost(backend: Backend) -> None:
    completions = backend.generate(PROMPT, CASES["space"].constraint, n=3, seed=3)
    for completion in completions:
        assert 0 < completion.prompt_tokens <= backend.count_tokens(PROMPT)
        assert 0 < completion.completion_tokens <= 1024
        assert completion.seconds > 0
        assert completion.logprob is None or completion.logprob < 0


def test_n_completions_are_independent_samples(backend: Backend) -> None:
    completions = backend.generate(PROMPT, CASES["space"].constraint, n=6, seed=3)
    assert len({completion.text for completion in completions}) == 6


def test_the_same_seed_gives_the_same_texts(backend: Backend) -> None:
    if not backend.model.deterministic:
        pytest.skip("this backend is not deterministic")
    case = CASES["space"].constraint
    first = backend.generate(PROMPT, case, n=3, seed=3)
    backend.generate([Message("user", "something else")], CASES["choice"].constraint, seed=8)
    again = backend.generate(PROMPT, case, n=3, seed=3)
    assert [c.text for c in first] == [c.text for c in again]
    assert [c.text for c in backend.generate(PROMPT, case, n=3, seed=4)] != [c.text for c in first]
    for completion in first:  # and each can be drawn again alone
        (alone,) = backend.generate(PROMPT, case, seed=completion.seed)
        assert replace(alone, seconds=0, logprob=0) == replace(completion, seconds=0, logprob=0)


def test_a_truncated_answer_is_an_error(backend: Backend) -> None:
    with pytest.raises(GenerationError, match="token"):
        backend.generate(PROMPT, CASES["space"].constraint, max_tokens=12)


def test_an_invalid_constraint_is_an_error(backend: Backend) -> None:
    with pytest.raises((ConstraintError, BackendError), match=r"invalid|type"):
        backend.generate(PROMPT, BROKEN)
    assert backend.generate(PROMPT, CASES["choice"].constraint)  # and the backend goes on


def test_a_backend_describes_its_model(backend: Backend) -> None:
    assert backend.model.name
    assert backend.model.digest
    assert backend.model.context_length > 0
    assert backend.model.prompt in ("chat", "compact")


def test_a_closed_backend_refuses_requests(backend: Backend) -> None:
    backend.close()
    backend.close()
    with pytest.raises(BackendError, match="closed"):
        backend.generate(PROMPT, CASES["choice"].constraint)
