"""Servers that enforce constraints, and servers that fail to in various ways."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from model_server import Answer, Body, Reply, completion, enforcing, failure, serving
from tiny_model import add_card

from localhpo.errors import BackendError, ConstraintError, GenerationError, InputError
from localhpo.llm import AnswerConstraint, Backend, Completion, Message, open_backend
from localhpo.llm.protocol import GenerationRequest
from localhpo.llm.servers.openai import ASSUMED_CONTEXT, OpenAIBackend

ASKED = [Message("user", "Propose.")]
CONSTRAINT = AnswerConstraint('start: "{\\"a\\":" /[1-9]/ "}"', {"type": "object"})
ANSWER = '{"a":3}'


def is_probe(body: Body) -> bool:
    return "exactly this" in body["messages"][0]["content"]


def holding(answer: Answer, *, form: str = "structured_outputs") -> Answer:
    """Return a server that passes the probe in one form, then gives the given answer."""

    def respond(body: Body) -> Reply:
        if not is_probe(body):
            return answer(body)
        return completion(['{"side":"right","share":0.0314}' if form in body else "Sure!"])

    return respond


def three(body: Body) -> Reply:
    return completion([ANSWER] * body["n"])


def ask(answer: Answer, n: int = 1, **options: Any) -> tuple[list[Completion], list[Body]]:
    """Open a backend on such a server; return one completion and the requests."""
    with serving(holding(answer)) as server:
        backend = OpenAIBackend(server.url, **options)
        server.requests.clear()
        return backend.generate(
            GenerationRequest(ASKED, CONSTRAINT, n=n, max_tokens=50, seed=7)
        ), server.requests


# What is sent, and which form


@pytest.fixture(scope="module")
def in_process(tiny_model: Path) -> Iterator[Backend]:
    backend = open_backend("transformers", model=str(tiny_model), device="cpu")
    yield backend
    backend.close()


@pytest.mark.parametrize(
    ("takes", "form", "exact"),
    [
        (("structured_outputs", "response_format"), "structured_outputs.grammar", True),
        (("grammar", "response_format"), "grammar", True),
        (("ebnf", "response_format"), "ebnf", True),
        (("response_format",), "response_format", False),
    ],
)
def test_the_strictest_enforced_form_is_used(
    in_process: Backend, takes: tuple[str, ...], form: str, exact: bool
) -> None:
    with serving(enforcing(in_process, takes=takes)) as server:
        backend = OpenAIBackend(server.url)
        assert (backend.form.name, backend.form.exact) == (form, exact)


def test_every_request_has_max_tokens_and_a_seed() -> None:
    _, (body,) = ask(three, n=3)
    assert body == {
        "model": "tiny",
        "messages": [{"role": "user", "content": "Propose."}],
        "n": 3,
        "seed": 7,
        "max_tokens": 50,
        "temperature": 1.0,
        "chat_template_kwargs": {"enable_thinking": False},
        "structured_outputs": {"grammar": CONSTRAINT.grammar},
    }


# How a model is kept from thinking


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("tiny", {"chat_template_kwargs": {"enable_thinking": False}}),
        ("Qwen/Qwen3-8B", {"chat_template_kwargs": {"enable_thinking": False}}),
        ("Qwen/Qwen3-4B-Instruct-2507", {}),
        (
            "openai/gpt-oss-20b",
            {"chat_template_kwargs": {"reasoning_effort": "low"}, "reasoning_effort": "low"},
        ),
        ("mine", {"chat_template_kwargs": {"think": "little"}}),
    ],
)
def test_requests_switch_reasoning_off(
    name: str, sent: dict[str, Any], tiny_model: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("LOCALHPO_MODELS", str(tmp_path))
    shutil.copytree(tiny_model, tmp_path / "mine")
    add_card(tmp_path / "mine", chat_template_kwargs={"think": "little"})
    with serving(holding(three), models=[{"id": name}]) as server:
        backend = OpenAIBackend(server.url)
        backend.generate(GenerationRequest(ASKED, CONSTRAINT, max_tokens=50))
        switches = [
            {k: body[k] for k in ("chat_template_kwargs", "reasoning_effort") if k in body}
            for body in server.requests
        ]
    assert len(switches) > 4 and all(switch == sent for switch in switches)


def test_requests_leave_out_a_reasoning_switch_that_is_refused() -> None:
    def strict(body: Body) -> Reply:
        if "chat_template_kwargs" in body:
            return failure(400, "unrecognized field: chat_template_kwargs")
        return holding(three)(body)

    with serving(strict) as server:
        backend = OpenAIBackend(server.url)
        assert (
            backend.generate(GenerationRequest(ASKED, CONSTRAINT, max_tokens=50))[0].text == ANSWER
        )
        assert ["chat_template_kwargs" in body for body in server.requests[:2]] == [True, False]
        assert "chat_template_kwargs" not in server.requests[-1]


def test_the_api_key_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(holding(three)) as server:
        OpenAIBackend(server.url)
        assert "Authorization" not in server.headers
        monkeypatch.setenv("LOCALHPO_API_KEY", "sesame")
        OpenAIBackend(server.url)
        assert server.headers["Authorization"] == "Bearer sesame"


def test_a_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    completions, _ = ask(three)
    assert completions[0].text == ANSWER


# Servers that do not hold the constraint


def obedient(body: Body) -> Reply:
    """Returns what the prompt asks for, ignoring the constraint."""
    return completion([body["messages"][0]["content"].partition(": ")[2]])


def shape_only(body: Body) -> Reply:
    """Enforces keys and types of the schema, but not its bounds."""
    if "response_format" not in body:
        return failure(400, "unknown field")
    return completion(['{"side": "left", "count": 12}'])


def branch_blind(body: Body) -> Reply:
    """Enforces bounds, but not the branch that they belong to."""
    return completion(['{"side":"left","share":0.0315}'])


def endless(body: Body) -> Reply:
    return completion(["{" + " " * body["max_tokens"]], "length")


IGNORING: Mapping[str, tuple[Answer, str]] = {
    "free text": (lambda body: completion(["Sure! Here you go."]), "it answered 'Sure! Here"),
    "obedient": (obedient, 'it answered \'{"side":"left","count":7}\''),
    "shape without bounds": (shape_only, r"unknown field[\s\S]*response_format: it answered"),
    "bounds without branches": (branch_blind, "it answered"),
    "endless": (endless, "did not end within 96 tokens"),
    "unknown field": (lambda body: failure(400, "extra fields not permitted"), "extra fields"),
    "error inside": (lambda body: (500, "Internal ServerClient Error"), "HTTP 500: Internal"),
}


@pytest.mark.parametrize(("answer", "message"), IGNORING.values(), ids=IGNORING)
def test_a_server_that_ignores_the_constraint_is_refused(answer: Answer, message: str) -> None:
    with serving(answer) as server, pytest.raises(ConstraintError, match=message) as caught:
        OpenAIBackend(server.url)
    for part in (server.url, "417 to 423", "structured_outputs.grammar", "response_format"):
        assert part in str(caught.value)
    assert "--structured-outputs-config" in caught.value.hint


def test_white_space_in_json_is_no_violation() -> None:
    spaced = '{\n  "side": "left",\n  "count": 420\n}\n'
    with serving(lambda body: completion([spaced])) as server:
        assert not OpenAIBackend(server.url).form.exact


# Servers that break


def test_without_a_server_the_error_says_how_to_start_one() -> None:
    with serving(three) as server:
        url = server.url
    with pytest.raises(BackendError, match=f"no server listens at {url}") as caught:
        OpenAIBackend(url)
    assert "vllm serve" in caught.value.hint


def test_a_slow_server_times_out() -> None:
    held = threading.Event()

    def slow(body: Body) -> Reply:
        held.wait(5)
        return completion([ANSWER])

    with serving(slow) as server:
        with pytest.raises(BackendError, match=r"did not answer within 0\.2 s"):
            OpenAIBackend(server.url, timeout_s=0.2)
        held.set()


GETS: Mapping[str, tuple[Reply, str]] = {
    "redirect": ((307, "http://10.0.0.1/v1/models"), "redirects to http://10.0.0.1"),
    "not json": ((200, "<html>hello</html>"), "not JSON: '<html>hello"),
    "key": ((401, {"error": "no"}), "refuses the API key"),
    "another interface": ((200, {"models": []}), "does not list its models"),
    "odd entries": ((200, {"data": [{"name": "x"}]}), "does not list its models"),
    "no models": ((200, {"data": []}), "serves no model"),
    "not found": (failure(404, "no such path"), "HTTP 404: no such path"),
}


@pytest.mark.parametrize(("reply", "message"), GETS.values(), ids=GETS)
def test_other_servers_are_refused(reply: Reply, message: str) -> None:
    with (
        serving(three, gets={"/v1/models": reply}) as server,
        pytest.raises(BackendError, match=message),
    ):
        OpenAIBackend(server.url)


REPLIES: Mapping[str, tuple[Reply, type[Exception], str]] = {
    "length": (completion(["{"], "length"), GenerationError, "did not end within 50 tokens"),
    "empty": (completion([""]), BackendError, "and text ''"),
    "filtered": (completion(["{}"], "content_filter"), BackendError, "content_filter"),
    "no choice": ((200, {"choices": []}), BackendError, "has no answer"),
    "another thing": ((200, {"text": "x"}), BackendError, "is no completion"),
    "redirect": ((302, "http://10.0.0.1/"), BackendError, "redirects"),
    "refused": (failure(400, "context is 2048 tokens"), BackendError, "context is 2048"),
}


@pytest.mark.parametrize(("reply", "error", "message"), REPLIES.values(), ids=REPLIES)
def test_a_reply_without_an_answer_is_an_error(
    reply: Reply, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ask(lambda body: reply)


# Several answers


def one(body: Body) -> Reply:
    return completion([json.dumps({"seed": body["seed"]})])


def one_alone(body: Body) -> Reply:
    return one(body) if body["n"] == 1 else failure(400, "only one completion choice is allowed")


@pytest.mark.parametrize("answer", [one, one_alone], ids=["fewer", "refused"])
def test_one_answer_per_request_leads_to_more_requests(answer: Answer) -> None:
    with serving(holding(answer)) as server:
        backend = OpenAIBackend(server.url)
        completions = backend.generate(GenerationRequest(ASKED, CONSTRAINT, n=4, seed=7))
        assert completions[0].seed == 7
        seeds = [json.loads(completion.text)["seed"] for completion in completions]
        assert seeds == [completion.seed for completion in completions]
        assert len(set(seeds)) == 4
        server.requests.clear()
        backend.generate(GenerationRequest(ASKED, CONSTRAINT, n=4, seed=7))
        assert [body["n"] for body in server.requests] == [1] * 4


def test_token_counts_come_from_the_server() -> None:
    completions, _ = ask(
        lambda body: completion([ANSWER] * 3, prompt_tokens=40, completion_tokens=23), n=3
    )
    assert [c.prompt_tokens for c in completions] == [40, 40, 40]
    assert [c.completion_tokens for c in completions] == [8, 8, 7]
    (estimated,), _ = ask(three)
    assert estimated.completion_tokens > 0


# Models and addresses


def test_a_model_is_chosen_by_name() -> None:
    models = [{"id": "small", "max_model_len": 512}, {"id": "large", "meta": {"n_ctx_train": 9}}]
    gets = {"/props": (200, {"default_generation_settings": {"n_ctx": 1024}})}
    with serving(holding(three), models=models, gets=gets) as server:
        for name, length in (("small", 512), ("large", 1024)):
            model = OpenAIBackend(server.url, model=name).model
            assert (model.name, model.context_length) == (name, length)
        with pytest.raises(InputError, match="several models; it serves: small, large"):
            OpenAIBackend(server.url)
        with pytest.raises(InputError, match="no model 'huge'; it serves: small, large"):
            OpenAIBackend(server.url, model="huge")


@pytest.mark.parametrize("entry", [{"id": "x"}, {"id": "x", "meta": None}])
def test_an_unknown_context_length_has_a_default(entry: dict[str, Any]) -> None:
    with serving(holding(three), models=[entry]) as server:
        assert OpenAIBackend(server.url).model.context_length == ASSUMED_CONTEXT


@pytest.mark.parametrize(
    "url",
    [
        "http://10.1.2.3:8000/v1",
        "http://0.0.0.0:8000/v1",
        "http://127.0.0.1.example.org/v1",
        "http://localhost.example.org/v1",
        "http://2130706433/v1",
        "https://[2001:db8::1]/v1",
        "http://127.0.0.1@example.org/v1",
    ],
)
def test_another_machine_must_be_allowed_by_name(url: str) -> None:
    with pytest.raises(InputError, match="is not this machine") as caught:
        open_backend("openai", url=url)
    assert "allow_remote" in caught.value.hint


def test_an_allowed_machine_is_contacted() -> None:
    with pytest.raises(BackendError, match=r"no server listens at http://no-such-host\.invalid"):
        OpenAIBackend("http://no-such-host.invalid/v1", allow_remote=["no-such-host.invalid"])


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://localhost/", "http://", "http://[/", ""])
def test_an_invalid_url_is_an_error(url: str) -> None:
    with pytest.raises(InputError, match="url"):
        OpenAIBackend(url)


def test_an_address_may_leave_v1_out_and_keeps_its_password_secret() -> None:
    with serving(holding(three)) as server:
        with_name = server.url.removesuffix("/v1").replace("127", "user:secret@127") + "/"
        assert (
            OpenAIBackend(with_name).generate(GenerationRequest(ASKED, CONSTRAINT))[0].text
            == ANSWER
        )
    with pytest.raises(BackendError) as caught:
        OpenAIBackend(with_name)
    assert "secret" not in str(caught.value)
