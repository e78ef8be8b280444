"""Fixtures for tests of backends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_model import make_model

from localhpo.llm.models import registry as model_registry
from localhpo.llm.vllm import ManagedServer, Settings


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random Llama, without a card. Tests must not change it: copy it."""
    return make_model(tmp_path_factory.mktemp("models") / "tiny")


TESTS = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def sprout() -> Path:
    """The folder of the built-in model."""
    return model_registry.find_model("sprout")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Replace `vllm` by a fake one; return a function that sets its behavior."""
    package = tmp_path / "path" / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    (package / "api_server.py").write_text("import fake_vllm\nfake_vllm.main()\n")
    (package.parents[1] / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "path")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'path'}:{TESTS}")
    return lambda behavior: monkeypatch.setenv("FAKE_VLLM", behavior)


@pytest.fixture
def make(
    sprout: Path, program: Callable[[str], None], tmp_path: Path
) -> Iterator[Callable[..., ManagedServer]]:
    """Return a function that makes servers, which are stopped after the test."""
    made: list[ManagedServer] = []

    def make(behavior: str = "works", **options: Any) -> ManagedServer:
        program(behavior)
        changes: dict[str, Any] = {"on_cpu": True, "runtime_folder": tmp_path / "run"}
        settings = options.pop("settings", Settings())
        made.append(ManagedServer(sprout, settings, **{**changes, **options}))
        return made[-1]

    yield make
    for server in made:
        server.stop()
