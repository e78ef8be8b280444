"""What a server holds while it sleeps, and after it failed to sleep or to wake."""

from __future__ import annotations

from typing import Any

import pytest
from resting_server import RestingServer

from localhpo.errors import ModelError
from localhpo.executor.clock import RealClock
from localhpo.scheduler.placement import Assignment, Gpu, Inventory, Need
from localhpo.scheduler.tenancy import Tenancy
from localhpo.scheduler.tenant import Managed
from localhpo.task import Resources

GPU = Inventory(cpus=8, gpus=(Gpu("0", memory_mb=24_000),))
HOLDS = Assignment(0.0, gpus=("0",), gpu_share=0.0, gpu_memory_mb=16_000)


def on_a_device(server: Any, *, host_mb: float, **changes: Any) -> Managed:
    """A server whose weights are 8 GB; nobody else holds anything of the host."""
    measure = changes.pop("measure", lambda pid: 500.0 if server.sleeping else 16_000.0)
    return Managed(
        server, holds=HOLDS, measure=measure, weights_mb=8_000, host_free_mb=lambda: host_mb
    )


@pytest.mark.parametrize(("free_mb", "level"), [(12_000, 1), (8_500, 2), (5_000, 2)])
def test_level_two_where_host_memory_cannot_hold_the_weights_with_a_margin(
    free_mb: float, level: int
) -> None:
    tenant = on_a_device(RestingServer(), host_mb=free_mb)
    assert tenant.level == level
    assert tenant.keeps_mb == (8_000 if level == 1 else 0)


class Failing(RestingServer):
    """Is awake by its own account, and fails in the ways that it is told to."""

    def __init__(self, *fails: str, then: str = "awake") -> None:
        super().__init__()
        self._fails = fails
        self._then = then
        self._lives = True

    @property
    def pid(self) -> int | None:
        return 1 if self._lives else None

    def start(self) -> None:
        self._do("start")

    def stop(self) -> None:
        self._do("stop")

    def sleep(self, level: int) -> None:
        self._do("sleep")

    def wake(self) -> None:
        self._do("wake")

    def _do(self, what: str) -> None:
        fails = what in self._fails
        standing = self._then if fails else {"sleep": "asleep", "stop": "stopped"}.get(what)
        self.sleeping, self._lives = standing == "asleep", standing != "stopped"
        if fails:
            raise ModelError(f"it was told to {what}")


def tenancy_of(tenant: Managed, *, host_mb: float = 64_000) -> Tenancy:
    inventory = Inventory(cpus=2, memory_mb=host_mb, gpus=GPU.gpus)
    tenancy = Tenancy(tenant, resources=Resources(gpus=1), inventory=inventory, clock=RealClock())
    need = Need(gpu_memory_mb={"0": 20_000})
    tenancy.consider([need], [], trial_s=None, propose_s=0.0, results=0, left=None, in_hand=0)
    return tenancy


@pytest.mark.parametrize(("free_mb", "kept_mb"), [(60_000, 8_000), (5_000, 0)])
def test_the_weights_of_a_server_that_sleeps_at_level_one_are_counted_in_host_memory(
    free_mb: float, kept_mb: float
) -> None:
    tenancy = tenancy_of(on_a_device(Failing(), host_mb=free_mb))
    assert (tenancy.holding.memory_mb, tenancy.least.memory_mb) == (0.0, kept_mb)
    tenancy.rest("sleep")
    assert (tenancy.holding.gpu_memory_mb, tenancy.holding.memory_mb) == (500, kept_mb)
    tenancy.call()()
    assert tenancy.holding == HOLDS


@pytest.mark.parametrize(("then", "holds_mb"), [("asleep", 500), ("stopped", 0), ("awake", 16_000)])
def test_after_a_waking_that_failed_the_server_holds_what_it_holds_by_its_own_account(
    then: str, holds_mb: float
) -> None:
    tenancy = tenancy_of(on_a_device(Failing("wake", then=then), host_mb=60_000))
    tenancy.rest("sleep")
    tenancy.call()()
    assert tenancy.holding.gpu_memory_mb == holds_mb
    assert tenancy.awake  # it is asked, and what follows is the Creator's business
    assert [news.kind for news in tenancy.take_news()][-1] == "warning"


@pytest.mark.parametrize(("then", "holds_mb"), [("asleep", 500), ("awake", 16_000)])
def test_after_a_sleep_that_failed_the_server_holds_what_it_holds_by_its_own_account(
    then: str, holds_mb: float
) -> None:
    tenancy = tenancy_of(on_a_device(Failing("sleep", then=then), host_mb=60_000))
    tenancy.rest("sleep")
    assert tenancy.holding.gpu_memory_mb == holds_mb
    assert tenancy.awake == (then == "awake")
