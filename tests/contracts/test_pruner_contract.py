"""The laws of `localhpo.scheduler.pruning`, run over every pruner."""

from __future__ import annotations

import pytest

from localhpo.scheduler.pruning import PRUNERS
from localhpo.testing import PrunerContract


class TestPruners(PrunerContract):
    @pytest.fixture(params=[name for name in PRUNERS.names if name != "none"], autouse=True)
    def named(self, request: pytest.FixtureRequest) -> None:
        self.name = request.param
