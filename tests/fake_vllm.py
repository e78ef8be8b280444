"""A fake vLLM server, for tests of failures.

It takes vLLM's arguments, loads the middleware as vLLM does, checks the key in the same way, and
has the part of vLLM's interface that LocalHPO uses. The environment variable FAKE_VLLM selects its
behavior. It enforces only the constraint of the probe, and answers everything else with `{"a":3}`.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

CALLS = "calls.jsonl"
"""In the server's folder: each request that changes something, and its body."""
CRASH = """\
(EngineCore pid=7) ERROR 11-24 06:46:11 [core.py:1510]     raise ValueError(
(EngineCore pid=7) ERROR 11-24 06:46:11 [core.py:1510] ValueError: no room for the KV cache.
(APIServer pid=5) Traceback (most recent call last):
(APIServer pid=5) RuntimeError: Engine core initialization failed. See root cause above.
"""


def calls(folder: Path) -> list[list[Any]]:
    """Return the path and body of each request that a server in this folder was sent to act on."""
    return [json.loads(line) for line in (folder / CALLS).read_text().splitlines()]


def argument(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


MODELS: list[str] = []
ASLEEP: set[str] = set()
"""Parts that sleep."""


def complete(body: Mapping[str, Any]) -> dict[str, Any]:
    behavior = os.environ["FAKE_VLLM"]
    is_probe = "41[7-9]" in body["structured_outputs"]["grammar"]
    if behavior.startswith("dies") and not is_probe:
        marker = Path("has-died")
        if behavior == "dies always" or not marker.exists():
            marker.touch()
            os._exit(1)
    text = '{"side":"left","count":420}' if is_probe and behavior != "ignores" else '{"a":3}'
    choice = {"text": text, "finish_reason": "stop", "token_ids": [1, 2, 3]}
    return {"choices": [choice] * body["n"], "usage": {"prompt_tokens": len(body["prompt"])}}


def tokenize(body: Mapping[str, Any]) -> dict[str, Any]:
    texts = [m["content"] for m in body.get("messages", ())] or [body["prompt"]]
    return {"tokens": list("".join(texts).encode())}


def load(body: Mapping[str, Any]) -> str:
    MODELS.append(body["lora_name"])
    return f"Success: LoRA adapter '{body['lora_name']}' added successfully."


def unload(body: Mapping[str, Any]) -> str:
    MODELS.remove(body["lora_name"])
    return f"Success: LoRA adapter '{body['lora_name']}' removed successfully."


def sleep(query: Mapping[str, list[str]]) -> dict[str, Any]:
    if os.environ["FAKE_VLLM"] != "sleepless":
        ASLEEP.update({"weights", "kv_cache"})
    if os.environ["FAKE_VLLM"] == "dozes":
        raise RuntimeError("it sleeps, but reports an error")
    return {"status": "sleeping", "level": query["level"]}


def wake(query: Mapping[str, list[str]]) -> dict[str, Any]:
    ASLEEP.difference_update(query.get("tags", list(ASLEEP)))
    return {"status": "awake"}


POSTS: Mapping[str, Callable[[Any], Any]] = {
    "/v1/completions": complete,
    "/tokenize": tokenize,
    "/v1/load_lora_adapter": load,
    "/v1/unload_lora_adapter": unload,
    "/collective_rpc": lambda body: {"results": [None]},
}
POSTS_BY_QUERY: Mapping[str, Callable[[Mapping[str, list[str]]], Any]] = {
    "/sleep": sleep,
    "/wake_up": wake,
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if not self.refused():
            models = [{"id": name} for name in MODELS]
            self.answer({"data": models, "is_sleeping": bool(ASLEEP)})

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = json.loads(data or "null")
        with Path(CALLS).open("a") as calls:
            calls.write(json.dumps([self.path, body]) + "\n")
        if self.refused():
            return
        parts = urlsplit(self.path)
        if body and body.get("model", MODELS[0]) not in MODELS:
            self.answer({"error": f"The model {body['model']} does not exist."}, 404)
        elif parts.path in POSTS_BY_QUERY:
            self.answer(POSTS_BY_QUERY[parts.path](parse_qs(parts.query)))
        else:
            self.answer(POSTS[parts.path](body))

    def refused(self) -> bool:
        key = f"Bearer {os.environ['VLLM_API_KEY']}"
        is_open = os.environ["FAKE_VLLM"] == "open"
        if not is_open and self.headers.get("Authorization") != key:
            self.answer({"error": "Unauthorized"}, 401)
            return True
        return False

    def answer(self, content: Any, status: int = 200) -> None:
        data = (content if isinstance(content, str) else json.dumps(content)).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        del format, args


def main() -> None:
    behavior = os.environ["FAKE_VLLM"]
    if behavior == "crashes":
        sys.stderr.write(CRASH)
        sys.exit(1)
    if behavior == "hangs":
        sys.stderr.write("INFO loading weights\n")
        time.sleep(600)
    module, _, name = argument("--middleware").rpartition(".")
    getattr(importlib.import_module(module), name)  # fails if there is none
    MODELS.append(argument("--served-model-name"))
    if behavior == "other":
        MODELS[:] = ["another-model"]
    ThreadingHTTPServer((argument("--host"), int(argument("--port"))), Handler).serve_forever()
