"""Middleware that checks the API key on every path of a vLLM server. Runs inside that server.

vLLM checks the key on its paths below /v1 only. Others are open: /tokenize, /metrics, and in
developer mode, which sleep needs, also /sleep and /collective_rpc, which calls any method of its
workers. The server listens on this machine only, but every user of the machine could connect. (A
Unix socket, `--uds`, would also do, but its path is limited to 107 bytes.)

A copy of this file lies beside the server's log, where Python finds it however LocalHPO was
installed; so it imports the standard library only. vLLM loads it by `--middleware`, as an ASGI
application around its own (https://asgi.readthedocs.io/en/latest/specs/main.html).
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

MODULE = "localhpo_auth"
"""Module name of the copy."""

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]


class KeyMiddleware:
    """ASGI middleware that refuses requests without the API key."""

    def __init__(self, app: App) -> None:
        """Take the key from the environment, as vLLM does; without a key the server must fail."""
        self._app = app
        self._expected = f"Bearer {os.environ['VLLM_API_KEY']}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] == "lifespan" or self._has_key(scope):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            headers = [(b"content-type", b"application/json")]
            await send({"type": "http.response.start", "status": 401, "headers": headers})
            await send({"type": "http.response.body", "body": b'{"error": "Unauthorized"}'})

    def _has_key(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"authorization", b"")
        return secrets.compare_digest(given, self._expected)
