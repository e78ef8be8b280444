"""The laws of `localhpo.llm.protocol`, run over every backend."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from decoder import Decoder
from model_server import enforcing, serving
from tiny_model import make_model

from localhpo.llm import BACKENDS, AnswerConstraint, Backend, Message, open_backend
from localhpo.llm.protocol import GenerationRequest
from localhpo.llm.servers.openai import OpenAIBackend
from localhpo.testing import CONSTRAINTS, INVALID, PROMPT, BackendContract, ConstraintCase

IMPLEMENTATIONS = (
    "scripted",
    "transformers",
    "openai-grammar",
    "openai-schema",
    pytest.param("vllm", marks=pytest.mark.slow),  # the real one, with the built-in model
)


def _random_answer(messages: Sequence[Message], constraint: AnswerConstraint, seed: int) -> str:
    if constraint is INVALID:
        return "{}"
    rng = np.random.default_rng(seed)
    return Decoder(constraint.grammar).write(lambda allowed: int(rng.choice(allowed)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


class TestBackends(BackendContract):
    @pytest.fixture(params=IMPLEMENTATIONS)
    def backend(self, request: pytest.FixtureRequest, folder: Path) -> Iterator[Backend]:
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

    @pytest.mark.parametrize("case", CONSTRAINTS.values(), ids=CONSTRAINTS)
    def test_an_exact_backend_keeps_to_the_spelling(
        self, backend: Backend, case: ConstraintCase
    ) -> None:
        if isinstance(backend, OpenAIBackend) and not backend.form.exact:
            pytest.skip("the server takes a schema, which leaves spellings open")
        for completion in backend.generate(
            GenerationRequest(PROMPT, case.constraint, n=2, max_tokens=900, seed=3)
        ):
            assert Decoder(case.constraint.grammar).accepts(completion.text)


def test_every_backend_is_tried() -> None:
    tried = {str(getattr(one, "values", (one,))[0]).partition("-")[0] for one in IMPLEMENTATIONS}
    assert tried == set(BACKENDS.built_in)
