"""What a server holds while it sleeps, and after it failed to sleep or to wake up."""

from __future__ import annotations

from typing import Any

import pytest
from fake_server import FakeServer

from localhpo.errors import ModelError
from localhpo.executor.clock import RealClock
from localhpo.resources.placement import Assignment, Gpu, Inventory, MemoryNeed
from localhpo.scheduler.loaded_model import ServerModel
from localhpo.scheduler.model_residency import ModelResidency
from localhpo.task import Resources

GPU = Inventory(cpus=8, gpus=(Gpu("0", memory_mb=24_000),))
RESIDENT = Assignment(0.0, gpus=("0",), gpu_share=0.0, gpu_memory_mb=16_000)


def make_model(server: Any, *, host_mb: float, **changes: Any) -> ServerModel:
    """Return a model whose weights are 8 GB, on a host that nothing else uses."""
    measure = changes.pop("measure", lambda pid: 500.0 if server.sleeping else 16_000.0)
    return ServerModel(
        server, assignment=RESIDENT, measure=measure, weights_mb=8_000, host_free_mb=lambda: host_mb
    )


@pytest.mark.parametrize(("free_mb", "level"), [(12_000, 1), (8_500, 2), (5_000, 2)])
def test_sleep_is_of_level_two_where_host_memory_cannot_hold_the_weights(
    free_mb: float, level: int
) -> None:
    model = make_model(FakeServer(), host_mb=free_mb)
    assert model.level == level
    assert model.sleep_host_mb == (8_000 if level == 1 else 0)


class FailingServer(FakeServer):
    """Fails in the named transitions, and is in the given state afterwards."""

    def __init__(self, *fails: str, then: str = "resident") -> None:
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
        state = self._then if fails else {"sleep": "offloaded", "stop": "stopped"}.get(what)
        self.sleeping, self._lives = state == "offloaded", state != "stopped"
        if fails:
            raise ModelError(f"{what} fails in this test")


def make_residency(model: ServerModel, *, host_mb: float = 64_000) -> ModelResidency:
    inventory = Inventory(cpus=2, memory_mb=host_mb, gpus=GPU.gpus)
    residency = ModelResidency(
        model, resources=Resources(gpus=1), inventory=inventory, clock=RealClock()
    )
    need = MemoryNeed(gpu_memory_mb={"0": 20_000})
    residency.choose_mode([need], trial_s=0.0, propose_s=0.0, results=0)
    return residency


@pytest.mark.parametrize(("free_mb", "kept_mb"), [(60_000, 8_000), (5_000, 0)])
def test_weights_count_in_host_memory_during_sleep_of_level_one(
    free_mb: float, kept_mb: float
) -> None:
    residency = make_residency(make_model(FailingServer(), host_mb=free_mb))
    assert (
        residency.current_assignment.memory_mb,
        residency.smallest_assignment_now.memory_mb,
    ) == (0.0, kept_mb)
    residency.offload("sleep")
    assert (residency.current_assignment.gpu_memory_mb, residency.current_assignment.memory_mb) == (
        500,
        kept_mb,
    )
    residency.begin_wake()()
    assert residency.current_assignment == RESIDENT


@pytest.mark.parametrize(
    ("then", "holds_mb"), [("offloaded", 500), ("stopped", 0), ("resident", 16_000)]
)
def test_after_a_failed_wake_the_state_is_read_from_the_server(then: str, holds_mb: float) -> None:
    residency = make_residency(make_model(FailingServer("wake", then=then), host_mb=60_000))
    residency.offload("sleep")
    residency.begin_wake()()
    assert residency.current_assignment.gpu_memory_mb == holds_mb
    assert residency.is_ready  # it is asked, and the Creator handles the error
    assert [event.kind for event in residency.take_events()][-1] == "warning"


@pytest.mark.parametrize(("then", "holds_mb"), [("offloaded", 500), ("resident", 16_000)])
def test_after_a_failed_sleep_the_state_is_read_from_the_server(then: str, holds_mb: float) -> None:
    residency = make_residency(make_model(FailingServer("sleep", then=then), host_mb=60_000))
    residency.offload("sleep")
    assert residency.current_assignment.gpu_memory_mb == holds_mb
    assert residency.is_ready == (then == "resident")
