"""The API key of a server. test_llm_vllm_real.py tests that vLLM loads the middleware."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from localhpo.llm.vllm import ManagedServer, Settings, auth_middleware
from localhpo.llm.vllm.settings import server_command, server_environment

KEY = [(b"authorization", b"Bearer sesame")]
PASSED = {"type": "passed on"}


def send_request(
    scope: Mapping[str, Any], monkeypatch: pytest.MonkeyPatch
) -> list[Mapping[str, Any]]:
    """Return the messages of an application behind the middleware for a request."""
    monkeypatch.setenv("VLLM_API_KEY", "sesame")
    sent: list[Mapping[str, Any]] = []

    async def receive() -> None:
        raise AssertionError("a refused request must not be read")

    async def send(message: Mapping[str, Any]) -> None:
        sent.append(message)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(PASSED)

    asyncio.run(auth_middleware.KeyMiddleware(app)(scope, receive, send))
    return sent


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"Bearer sesam")],
        [(b"authorization", b"sesame")],
        [(b"authorization", b"\xff")],
        [(b"x-key", b"Bearer sesame")],
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_requests_without_the_key_are_refused(
    headers: list[tuple[bytes, bytes]], method: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    scope = {"type": "http", "method": method, "path": "/sleep", "headers": headers}
    sent = send_request(scope, monkeypatch)
    assert [message.get("status") for message in sent] == [401, None]
    scope = {"type": "websocket", "path": "/v1/realtime", "headers": headers}
    assert send_request(scope, monkeypatch) == [{"type": "websocket.close"}]


@pytest.mark.parametrize("kind", ["http", "websocket"])
def test_requests_with_the_key_pass(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    scope = {"type": kind, "path": "/sleep", "headers": [(b"host", b"x"), *KEY]}
    assert send_request(scope, monkeypatch) == [PASSED]


def test_the_start_up_event_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert send_request({"type": "lifespan"}, monkeypatch) == [PASSED]


def test_a_server_without_a_key_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VLLM_API_KEY", raising=False)
    with pytest.raises(KeyError):
        auth_middleware.KeyMiddleware(lambda *_: asyncio.sleep(0))


def test_the_middleware_imports_the_standard_library_only(tmp_path: Path) -> None:
    # The copy is loaded by a server that may not find LocalHPO.
    copy = tmp_path / f"{auth_middleware.MODULE}.py"
    copy.write_bytes(Path(auth_middleware.__file__).read_bytes())
    code = f"import {auth_middleware.MODULE} as it; assert it.__file__ == {str(copy)!r}"
    program = f"import sys; sys.path[:0] = [{str(tmp_path)!r}]; {code}; it.KeyMiddleware"
    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True)


def test_a_server_is_started_with_the_middleware(make: Callable[..., ManagedServer]) -> None:
    server = make(on_cpu=False)
    server.start()
    for path in ("/is_sleeping", "/v1/models", "/health"):
        url = f"{server.http.url.removesuffix('/v1')}{path}"
        assert httpx.get(url, trust_env=False).status_code == 401
        assert server.http.is_healthy(path)


def test_the_middleware_is_found_in_the_server_folder(
    sprout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"context_tokens": 64, "name": "x", "port": 1, "on_cpu": True}
    argv = server_command(Settings(), sprout, **given)  # type: ignore[arg-type]
    assert argv[argv.index("--middleware") + 1] == "localhpo_auth.KeyMiddleware"
    # With this variable set Python would not look there.
    assert server_environment(Settings(), key="sesame", on_cpu=True)["PYTHONSAFEPATH"] == ""
