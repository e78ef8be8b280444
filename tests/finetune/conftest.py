"""Fixtures for tests of fine-tuning."""

from __future__ import annotations

import pytest
from made_history import make_past
from tiny_model import make_model


@pytest.fixture
def past_studies():
    return [make_past(number) for number in range(10)]


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """An empty model registry."""
    folder = tmp_path / "registry"
    folder.mkdir()
    monkeypatch.setenv("LOCALHPO_MODELS", str(folder))
    return folder


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A random model of a user, with a chat template and without a card."""
    return make_model(tmp_path_factory.mktemp("models") / "tiny", max_position_embeddings=4096)
