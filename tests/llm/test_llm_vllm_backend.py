"""The backend of a vLLM server: its requests, and its behavior when the server fails.

The server is the program of tests/fake_vllm.py.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from fake_vllm import calls

from localhpo.errors import (
    BackendError,
    CardError,
    ConstraintError,
)
from localhpo.llm import AnswerConstraint, Message, open_backend
from localhpo.llm.models import registry as model_registry
from localhpo.llm.models.card import TuningRecord, templates_sha256
from localhpo.llm.protocol import GenerationRequest
from localhpo.llm.vllm import ManagedServer, Settings, VllmBackend

ASKED = [Message("user", "Propose.")]
CONSTRAINT = AnswerConstraint('start: "{\\"a\\":" /[1-9]/ "}"', {"type": "object"})

Make = Callable[..., ManagedServer]


# The backend


def test_a_request_is_bounded_seeded_and_holds_the_grammar(make: Make) -> None:
    server = make()
    backend = VllmBackend(server)
    answers = backend.generate(
        GenerationRequest(ASKED, CONSTRAINT, n=3, max_tokens=50, temperature=0.5, seed=7)
    )
    assert [answer.seed for answer in answers] == [7, 8, 9]
    assert [answer.completion_tokens for answer in answers] == [3, 3, 3]
    assert calls(server.adapter_folder.parent)[-1] == [
        "/v1/completions",
        {
            "model": server.name,
            "prompt": list(b"Propose."),
            "return_token_ids": True,
            "n": 3,
            "max_tokens": 50,
            "temperature": 0.5,
            "seed": 7,
            "structured_outputs": {"grammar": CONSTRAINT.grammar},
        },
    ]


def test_control_tokens_in_texts_are_sent_escaped(make: Make) -> None:
    server = make()
    VllmBackend(server).count_tokens([Message("user", "a <eos> b")])
    _, body = calls(server.adapter_folder.parent)[-1]
    assert body["messages"] == [{"role": "user", "content": "a < eos> b"}]


def test_a_prompt_beyond_the_context_is_not_sent(make: Make) -> None:
    backend = VllmBackend(make(settings=Settings(context_tokens=250)))
    with pytest.raises(BackendError, match="8 tokens of prompt and 243 of answer do not fit"):
        backend.generate(GenerationRequest(ASKED, CONSTRAINT, max_tokens=243))


def test_a_vllm_that_ignores_grammars_is_refused(make: Make) -> None:
    server = make("ignores")
    with pytest.raises(ConstraintError, match="does not enforce grammars"):
        VllmBackend(server)
    assert not server.running


def test_a_crashed_server_is_restarted_and_asked_again(make: Make) -> None:
    server = make("dies")
    backend = VllmBackend(server)
    before = server.pid
    assert backend.generate(GenerationRequest(ASKED, CONSTRAINT))[0].text == '{"a":3}'
    assert server.pid != before


def test_counting_tokens_restarts_a_crashed_server(make: Make) -> None:
    server = make()
    backend = VllmBackend(server)
    assert server.pid is not None
    os.kill(psutil.Process(server.pid).children()[0].pid, signal.SIGKILL)
    assert backend.count_tokens([Message("user", "abc")]) == 3


def test_restarts_are_limited(make: Make) -> None:
    backend = VllmBackend(make("dies always"))
    for _ in range(3):
        with pytest.raises(BackendError, match=r"broke|no server listens"):
            backend.generate(GenerationRequest(ASKED, CONSTRAINT))
    with pytest.raises(BackendError, match="has crashed 4 times; the last reason: it ended with"):
        backend.generate(GenerationRequest(ASKED, CONSTRAINT))


def test_closing_stops_an_owned_server(make: Make) -> None:
    server = make()
    VllmBackend(server, owned=False).close()
    assert server.running
    VllmBackend(server).close()
    assert not server.running


# Adapters


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"r": 8}')
    (folder / "adapter_model.safetensors").write_bytes(b"first")
    return folder


def test_each_version_of_an_adapter_has_its_name_and_folder(make: Make, adapter: Path) -> None:
    server = make(settings=Settings(adapter_rank=8))
    backend = VllmBackend(server)
    digests, asked = set(), []
    for weights in (b"first", b"second"):
        (adapter / "adapter_model.safetensors").write_bytes(weights)
        backend.use_adapter(adapter)
        backend.use_adapter(adapter)
        backend.generate(GenerationRequest(ASKED, CONSTRAINT))
        digests.add(backend.model.digest)
    backend.use_adapter(None)
    backend.generate(GenerationRequest(ASKED, CONSTRAINT))
    for path, body in calls(server.adapter_folder.parent):
        if "adapter" in path or (path == "/v1/completions" and body["prompt"] == list(b"Propose.")):
            asked.append((path.rpartition("/")[2], body.get("lora_name", body.get("model"))))
    first, second = (name for path, name in asked if path == "load_lora_adapter")
    assert first != second
    assert asked == [
        ("load_lora_adapter", first),
        ("completions", first),
        ("load_lora_adapter", second),
        ("unload_lora_adapter", first),
        ("completions", second),
        ("unload_lora_adapter", second),
        ("completions", server.name),
    ]
    shelved = {p.read_bytes() for p in server.adapter_folder.glob("*/adapter_model.safetensors")}
    assert shelved == {b"first", b"second"}
    assert len(digests | {backend.model.digest}) == 3


def test_an_adapter_is_loaded_again_after_a_crash(make: Make, adapter: Path) -> None:
    server = make("dies", settings=Settings(adapter_rank=8))
    backend = VllmBackend(server)
    backend.use_adapter(adapter)
    assert backend.generate(GenerationRequest(ASKED, CONSTRAINT))
    loads = [
        body["lora_name"]
        for path, body in calls(server.adapter_folder.parent)
        if path == "/v1/load_lora_adapter"
    ]
    assert len(loads) == 2
    assert len(set(loads)) == 1
    assert calls(server.adapter_folder.parent)[-1][1]["model"] == loads[0]


def test_an_adapter_is_loaded_again_after_a_restart(make: Make, adapter: Path) -> None:
    server = make(settings=Settings(adapter_rank=8))
    backend = VllmBackend(server)
    backend.use_adapter(adapter)
    server.stop()
    server.start()  # as who shares the device out does it
    assert backend.generate(GenerationRequest(ASKED, CONSTRAINT))
    assert backend.generate(GenerationRequest(ASKED, CONSTRAINT))
    paths = [path.rpartition("/")[2] for path, _ in calls(server.adapter_folder.parent)]
    assert paths[-3:] == ["load_lora_adapter", "completions", "completions"]
    backend.use_adapter(None)
    assert backend.generate(GenerationRequest(ASKED, CONSTRAINT))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("adapter_config.json", '{"r": 16}', "rank 16; the server accepts up to 8"),
        ("adapter_config.json", "{}", "does not have the rank"),
        ("adapter_config.json", '{"r": "8"}', "must be an integer"),
        ("adapter_model.bin", "x", "could run code"),
    ],
)
def test_an_adapter_that_cannot_be_loaded_is_refused(
    make: Make, adapter: Path, file: str, content: str, message: str
) -> None:
    backend = VllmBackend(make(settings=Settings(adapter_rank=8)))
    (adapter / file).write_text(content)
    with pytest.raises(CardError, match=message):
        backend.use_adapter(adapter)
    assert backend.generate(GenerationRequest(ASKED, CONSTRAINT))


def test_a_server_started_without_adapters_refuses_them(make: Make, adapter: Path) -> None:
    with pytest.raises(BackendError, match="accepts no adapters"):
        VllmBackend(make()).use_adapter(adapter)


def test_a_fine_tuned_model_is_served_as_its_base_with_an_adapter(
    program: Callable[[str], None],
    adapter: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program("")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("LOCALHPO_MODELS", str(tmp_path))
    base = model_registry.read_card(model_registry.find_model("sprout"))
    tuned = TuningRecord(
        base="sprout", base_digest=base.digest, method="lora", status="accepted", reason="better",
        prompt_sha256=templates_sha256(base.prompt), studies=(), held_out=(), trials=0, made_at=0.0,
    )  # fmt: skip
    card = replace(
        base,
        name="adapter",
        files=model_registry.hash_files(adapter),
        tuned=tuned,
        known_parameters=("new_name",),
    )
    (adapter / "card.toml").write_text(model_registry.render_card(card))
    backend = open_backend("vllm", model="adapter")
    assert isinstance(backend, VllmBackend)
    assert backend.server.folder == model_registry.find_model("sprout")
    assert backend.model.digest == f"{base.digest}+{card.digest}"
    assert "new_name" in backend.model.known_parameters
    assert backend.generate(GenerationRequest(ASKED, CONSTRAINT))
    backend.close()
    assert not backend.server.running
