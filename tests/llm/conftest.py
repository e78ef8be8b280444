"""What the tests of backends share: a tiny model on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_model import make_model


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a random Llama, without a card. Not to be changed: copy it."""
    return make_model(tmp_path_factory.mktemp("models") / "tiny")
