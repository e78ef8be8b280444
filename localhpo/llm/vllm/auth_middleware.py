"""Asks for the key on every path of a vLLM server. Runs inside that server.

vLLM asks for it on its paths below /v1, and leaves the others open: /tokenize, /metrics, and in
developer mode, without which there is no sleep, also /sleep and /collective_rpc, which calls any
method of its workers. It listens for this machine alone, but that is all of its users. (A socket
in a folder, by `--uds`, would do as well where its path is short: 107 bytes at the most.)

A copy lies beside the server's log, where Python finds it however LocalHPO was installed; so it
imports the standard library alone. vLLM loads it by `--middleware`, an ASGI application around
its own (https://asgi.readthedocs.io/en/latest/specs/main.html).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

MODULE = "localhpo_auth"
"""What the copy is called."""

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class KeyMiddleware:
    """An application that only those can use who know the key."""

    def __init__(self, app: App) -> None:
        """Take the key from the environment, as vLLM does; without one the server is not to run."""
        self._app = app
        self._expected = f"Bearer {os.environ['VLLM_API_KEY']}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan" or self._knows_the_key(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": b'{"error": "Unauthorized"}'})

    def _knows_the_key(self, scope: Scope) -> bool:
        said = dict(scope["headers"]).get(b"authorization", b"")
        return secrets.compare_digest(said, self._expected)
