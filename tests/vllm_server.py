"""The real vLLM, for the tests that are about what it does. Skipped where it is not installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from localhpo.llm import model_registry
from localhpo.llm.vllm import ManagedServer, Settings, VllmBackend

FORCING = Settings(arguments=("--logits-processors", "vllm_forcing:Forcing"))
"""The default settings, and the means to have a text written."""


def skip_without_vllm() -> None:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vllm is not installed")


class RealServer:
    """A server of the built-in model, whom each test adopts."""

    def __init__(self, server: ManagedServer, place: Path) -> None:
        self.server = server
        self._place = place

    @contextmanager
    def adopted(self) -> Iterator[VllmBackend]:
        """Give the block a backend as a second study on this machine would have it."""
        backend = VllmBackend(ManagedServer(self.server.folder, FORCING, runtime_folder=self._place))
        try:
            assert backend.server.pid == self.server.pid
            yield backend
        finally:
            backend.close()

    def acceptance(self, grammar: str) -> Callable[[str], bool]:
        """Return what says whether the server's engine lets a text be written, and then end."""

        def accepts(text: str) -> bool:
            wanted = [*self._tokens(text), END]
            body = {
                "model": self.server.name,
                "prompt": [1],
                "max_tokens": len(wanted) + SPARE,
                "temperature": 0.0,
                "structured_outputs": {"grammar": grammar},
                "vllm_xargs": {"force": wanted},
            }
            (choice,) = self.server.http.post("completions", body)["choices"]
            # Not by tokens: where one text alone is left, the engine spells it in its own way.
            return bool(choice["finish_reason"] == "stop" and choice["text"] == text)

        return accepts

    def _tokens(self, text: str) -> list[int]:
        if not text:
            return []
        body = {"model": self.server.name, "prompt": text, "add_special_tokens": False}
        tokens: list[int] = self.server.http.post("/tokenize", body)["tokens"]
        return tokens


SPARE = 16
"""Tokens, for a text that is spelled in more than its tokenizer would take."""
END = 2
"""The built-in model's token that ends a text."""


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
