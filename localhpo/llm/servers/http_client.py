"""HTTP client of a model server; each failure is a BackendError."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Collection, Mapping
from typing import Any

import httpx

from localhpo.errors import BackendError, InputError

API_KEY = "LOCALHPO_API_KEY"
"""Environment variable for the API key of a server."""
CONNECT_S = 5.0
"""Timeout of connecting, in seconds."""

_START_ONE = (
    "start it (`vllm serve MODEL --host 127.0.0.1`, `llama-server -m MODEL.gguf`,"
    " `ollama serve`), or correct the url"
)


class UnreachableError(BackendError):
    """No server, no answer in time, or a connection that broke."""


class HttpError(BackendError):
    """The server answered with an HTTP error status.

    Attributes:
        status: HTTP status: 4xx for a fault of the request, 5xx of the server.
    """

    def __init__(self, message: str, *, status: int) -> None:
        """Store the message and the status."""
        super().__init__(message)
        self.status = status


class ServerClient:
    """Client of one server, on this machine unless its host is allowed by name.

    Proxies and other settings of the environment are ignored, and redirects are not followed:
    prompts go to the given address only.
    """

    def __init__(
        self,
        url: str,
        *,
        allow_remote: Collection[str] = (),
        timeout_s: float,
        key: str | None = None,
    ) -> None:
        """Check the address; connect at the first request.

        Args:
            url: Address of the server.
            allow_remote: Hosts other than this machine that may be contacted.
            timeout_s: Timeout of a request, in seconds.
            key: API key; that of the environment by default.

        Raises:
            InputError: the url is no http address, or that of another machine.
        """
        base = _base(url)
        if not _is_loopback(base.host) and base.host not in {h.lower() for h in allow_remote}:
            raise InputError(
                f"{base.host} is not this machine; the url must name localhost, 127.0.0.1 or ::1,"
                f" but is {url}",
                hint=f'to let prompts leave this machine, add allow_remote = ["{base.host}"]',
            )
        key = key or os.environ.get(API_KEY)
        self.url = str(base.copy_with(userinfo=b""))
        self._base = base
        self._timeout_s = timeout_s
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=httpx.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s)),
            follow_redirects=False,
            trust_env=False,
        )

    def get(self, path: str) -> Any:
        """Return the JSON at a path: below the url, or below the host if it begins with a slash.

        Raises:
            BackendError: the answer is not JSON; `UnreachableError` where none came,
                `HttpError` for an error status.
        """
        return _json(self._request("GET", path))

    def post(self, path: str, body: Mapping[str, Any]) -> Any:
        """Send JSON, and return the JSON that comes back. Raises as `get`."""
        return _json(self._request("POST", path, body))

    def list_models(self) -> list[Mapping[str, Any]]:
        """Return the entries of the models that the server serves; at least one.

        Raises:
            BackendError: no answer, or one that is not in the OpenAI format.
        """
        reply = self.get("models")
        entries = reply.get("data") if isinstance(reply, dict) else None
        if not isinstance(entries, list) or not all(
            isinstance(entry, dict) and isinstance(entry.get("id"), str) for entry in entries
        ):
            raise BackendError(
                f"the server at {self.url} does not list its models as OpenAI's interface does",
                hint="is this the address of the server's OpenAI interface? It ends in /v1",
            )
        if not entries:
            raise BackendError(f"the server at {self.url} serves no model", hint="load one into it")
        return entries

    def send(self, path: str, body: Mapping[str, Any] | None = None, **query: str) -> None:
        """Send a POST request whose answer does not matter. Raises as `get`."""
        self._request("POST", path, body, query)

    def is_healthy(self, path: str) -> bool:
        """Return whether a path answers without an error status."""
        try:
            self._request("GET", path)
        except BackendError:
            return False
        return True

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        url = self._base.copy_with(path=path if path[0] == "/" else f"{self._base.path}/{path}")
        try:
            response = self._client.request(method, url, json=body, params=query)
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            raise UnreachableError(
                f"no server listens at {self.url}: {exc}", hint=_START_ONE
            ) from exc
        except httpx.TimeoutException as exc:
            raise UnreachableError(
                f"the server at {self.url} did not answer within {self._timeout_s:g} s",
                hint="look at the server's own log",
            ) from exc
        except httpx.TransportError as exc:
            raise UnreachableError(f"the connection to {self.url} broke: {exc}") from exc
        self._check(response)
        return response

    def _check(self, response: httpx.Response) -> None:
        if response.is_redirect:
            raise BackendError(
                f"{response.url} redirects to {response.headers.get('location')}, which is not"
                " followed",
                hint="give the final address as url",
            )
        if response.status_code in (401, 403):
            raise BackendError(
                f"the server at {self.url} refuses the API key (HTTP {response.status_code})",
                hint=f"set {API_KEY}",
            )
        if not response.is_success:
            reason = _reason(response)
            raise HttpError(
                f"the server at {self.url} refused: HTTP {response.status_code}: {reason}",
                status=response.status_code,
            )


def _json(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as exc:
        raise BackendError(
            f"{response.url} answered with something that is not JSON: {response.text[:200]!r}",
            hint="is this the address of the server's OpenAI interface? It ends in /v1",
        ) from exc


def _base(url: str) -> httpx.URL:
    try:
        base = httpx.URL(url)
    except httpx.InvalidURL as exc:
        raise InputError(f"url {url!r} is not an address: {exc}") from exc
    if base.scheme not in ("http", "https") or not base.host:
        raise InputError(f"url must be an address such as http://127.0.0.1:8000/v1, but is {url!r}")
    path = base.path.rstrip("/")
    return base.copy_with(path=path if path.endswith("/v1") else f"{path}/v1")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False  # a name could resolve to any address


def _reason(response: httpx.Response) -> str:
    """Return the error message in a response."""
    try:
        body = response.json()
    except ValueError:
        return response.text[:300]
    error = body.get("error", body) if isinstance(body, dict) else body
    message = error.get("message", error) if isinstance(error, dict) else error
    return str(message)[:300]
