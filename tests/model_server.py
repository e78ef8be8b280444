"""A model server for tests: with constraints enforced, or ignored in various ways.

It has OpenAI's chat completions interface over real HTTP. Its answer is a function of the request;
`enforcing` runs a real backend, which enforces constraints.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from localhpo.errors import BackendError, ConstraintError, GenerationError
from localhpo.llm.protocol import AnswerConstraint, Backend, GenerationRequest, Message

Body = dict[str, Any]
Reply = tuple[int, Any]
"""Status and body: JSON, or a text."""
Answer = Callable[[Body], Reply]

VLLM = ("structured_outputs", "response_format")
MODELS = ({"id": "tiny", "object": "model", "max_model_len": 2048},)


def completion(texts: Sequence[str], reason: str = "stop", **usage: int) -> Reply:
    """Return a chat completion with these answers."""
    choices = [
        {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": reason}
        for i, text in enumerate(texts)
    ]
    return 200, {"choices": choices, "usage": usage or None}


def failure(status: int, message: str) -> Reply:
    """Return an error in the format of OpenAI's interface."""
    return status, {"error": {"message": message, "type": "invalid_request_error"}}


def enforcing(backend: Backend, *, takes: Sequence[str] = VLLM) -> Answer:
    """Return a server that enforces known forms of constraints and ignores others, like vLLM."""
    lock = threading.Lock()  # a backend is not thread-safe

    def answer(body: Body) -> Reply:
        known = {key: value for key, value in body.items() if key in takes}
        messages = [Message(m["role"], m["content"]) for m in body["messages"]]
        try:
            with lock:
                completions = backend.generate(
                    GenerationRequest(
                        messages,
                        AnswerConstraint(_grammar(known), {}),
                        n=body["n"],
                        max_tokens=body["max_tokens"],
                        temperature=body["temperature"],
                        seed=body["seed"],
                    )
                )
        except GenerationError:
            return completion(["{"] * body["n"], "length")
        except (BackendError, ConstraintError) as exc:
            return failure(400, str(exc))
        return completion(
            [c.text for c in completions],
            prompt_tokens=completions[0].prompt_tokens,
            completion_tokens=sum(c.completion_tokens for c in completions),
        )

    return answer


def _grammar(known: Mapping[str, Any]) -> str:
    """Return the grammar for llguidance; free text if there is no constraint."""
    from llguidance import LLMatcher

    if "structured_outputs" in known:
        return str(known["structured_outputs"]["grammar"])
    for field in ("grammar", "ebnf"):
        if field in known:
            return str(known[field])
    if "response_format" in known:
        schema = known["response_format"]["json_schema"]["schema"]
        return str(LLMatcher.grammar_from_json_schema(schema))
    return "start: /[a-z ]{1,40}/"


class ModelServer:
    """A server that is running.

    Attributes:
        url: Where.
        requests: The bodies that were posted, in order.
        headers: Those of the last request.
    """

    def __init__(self, answer: Answer, gets: Mapping[str, Reply]) -> None:
        self.requests: list[Body] = []
        self.headers: dict[str, str] = {}
        self.answer = answer
        self.gets = gets
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.headers = dict(self.headers)
                self._send(*server.gets.get(self.path, failure(404, "not found")))

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                server.headers = dict(self.headers)
                server.requests.append(body)
                if self.path == "/v1/chat/completions":
                    self._send(*server.answer(body))
                else:
                    self._send(*failure(404, "not found"))

            def _send(self, status: int, content: Any) -> None:
                data = content if isinstance(content, str) else json.dumps(content)
                self.send_response(status)
                if status in (301, 302, 307, 308):
                    self.send_header("Location", data)
                self.send_header("Content-Length", str(len(data.encode())))
                self.end_headers()
                self.wfile.write(data.encode())

            def log_message(self, format: str, *args: Any) -> None:
                del format, args

        return Handler


@contextmanager
def serving(
    answer: Answer,
    *,
    models: Sequence[Mapping[str, Any]] = MODELS,
    gets: Mapping[str, Reply] | None = None,
) -> Iterator[ModelServer]:
    """Run a server for the block."""
    server = ModelServer(answer, {"/v1/models": (200, {"data": list(models)}), **(gets or {})})
    try:
        yield server
    finally:
        server.stop()
