"""What a trial with a slot and no place waits for: resources or the turn of another study."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from localhpo.resources.broker import ResourceBroker
from localhpo.resources.placement import Assignment, Gpu, Inventory
from localhpo.scheduler.accounting import current_wait
from localhpo.store.records import WaitCause
from localhpo.task import Resources

TWO = Inventory(cpus=2)
ONE_CPU = Assignment(cpus=1.0)
MakeBroker = Callable[..., ResourceBroker]


class Waits:
    """An observer that keeps what was waited for, each thing once."""

    def __init__(self) -> None:
        self.seen: list[WaitCause | None] = []

    def on_event(self, event: Any) -> None:
        pass

    def on_change(self, snapshot: Any) -> None:
        if (cause := current_wait(snapshot)) not in self.seen:
            self.seen.append(cause)


@pytest.mark.parametrize(
    ("held", "cause", "notes"),
    [
        (Assignment(2.0), "cpus", ["a trial waits for CPUs that another study uses"]),
        (Assignment(0.0, gpus=("0",)), "gpus", ["a trial waits for GPUs that another study uses"]),
        (Assignment(0.0, gpus=("0",), gpu_share=0.0, gpu_memory_mb=20_000), "memory", []),
    ],
)
def test_waiting_for_another_study_is_not_waiting_for_memory(
    make_bench: Callable[..., Any],
    make_task: Callable[..., Any],
    make_broker: MakeBroker,
    held: Assignment,
    cause: WaitCause,
    notes: list[str],
) -> None:
    inventory = Inventory(cpus=2, gpus=(Gpu("0", memory_mb=24_000),))
    mine, other = (make_broker(name, inventory) for name in ("mine", "other"))
    assert other.claim("0", held, lambda others: held)
    task = make_task(resources=Resources(cpus=2, gpus=1, gpu_memory_mb=10_000))
    bench, waits = make_bench(task=task, trials=2), Waits()
    loop = bench.loop(inventory=inventory, broker=mine, observers=[waits])

    def leave() -> None:
        if bench.clock.monotonic() > 10:
            other.release("0")

    bench.clock.on_sleep = leave
    loop.run()
    assert waits.seen[0] == cause
    assert set(waits.seen) <= {cause, None}
    assert [text for text in bench.recorder.messages("note") if "waits" in text] == notes


def test_waiting_for_the_turn_of_another_study(
    make_bench: Callable[..., Any], make_broker: MakeBroker, times: list[float]
) -> None:
    mine, first = make_broker("mine"), make_broker("first")
    assert mine.claim("9", ONE_CPU, lambda others: ONE_CPU)
    times[0] += 5  # mine has used more
    bench, waits = make_bench(trials=1), Waits()
    loop = bench.loop(inventory=TWO, broker=mine, observers=[waits])

    def pass_on() -> None:
        if bench.clock.monotonic() > 10:
            first.close()

    bench.clock.on_sleep = pass_on
    first.claim("0", ONE_CPU, lambda others: None)
    loop.run()
    assert waits.seen[0] == "turn"
