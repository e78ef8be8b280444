"""Runs the real vLLM for tests; they are skipped where it is not installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from localhpo.llm.models import registry as model_registry
from localhpo.llm.vllm import ManagedServer, Settings, VllmBackend

FORCING = Settings(arguments=("--logits-processors", "vllm_forcing:Forcing"))
"""The default settings, and a logits processor that forces a text."""


def skip_without_vllm() -> None:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vllm is not installed")


class RealServer:
    """A server of the built-in model that each test adopts."""

    def __init__(self, server: ManagedServer, place: Path) -> None:
        self.server = server
        self._place = place

    @contextmanager
    def adopted(self) -> Iterator[VllmBackend]:
        """Yield a backend, as for a second study on this machine."""
        backend = VllmBackend(
            ManagedServer(self.server.folder, FORCING, runtime_folder=self._place)
        )
        try:
            assert backend.server.pid == self.server.pid
            yield backend
        finally:
            backend.close()

    def acceptance(self, grammar: str) -> Callable[[str], bool]:
        """Return a function that says whether the engine accepts a text as complete."""

        def accepts(text: str) -> bool:
            forced = [*self._tokens(text), END]
            body = {
                "model": self.server.name,
                "prompt": [1],
                "max_tokens": len(forced) + SPARE,
                "temperature": 0.0,
                "structured_outputs": {"grammar": grammar},
                "vllm_xargs": {"force": forced},
            }
            (choice,) = self.server.http.post("completions", body)["choices"]
            # Compares texts: a forced text may be tokenized in another way.
            return bool(choice["finish_reason"] == "stop" and choice["text"] == text)

        return accepts

    def _tokens(self, text: str) -> list[int]:
        if not text:
            return []
        body = {"model": self.server.name, "prompt": text, "add_special_tokens": False}
        tokens: list[int] = self.server.http.post("/tokenize", body)["tokens"]
        return tokens


SPARE = 16
"""Spare tokens, for a text with more tokens than its tokenizer gives."""
END = 2
"""End token of the built-in model."""


@contextmanager
def running(server: ManagedServer) -> Iterator[ManagedServer]:
    """Run a server for the block; it finds the tests' own modules."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent))
        server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def real_server(place: Path, **options: Any) -> Iterator[RealServer]:
    """Run a server of the built-in model for the block."""
    skip_without_vllm()
    folder = model_registry.find_model(model_registry.DEFAULT)
    with running(ManagedServer(folder, FORCING, runtime_folder=place, **options)) as server:
        yield RealServer(server, place)
