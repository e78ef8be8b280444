"""What a trial waits for that has a slot, and no place: what another study holds, or its turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from localhpo.scheduler.accountant import waits_for
from localhpo.scheduler.machine import Machine
from localhpo.scheduler.placement import Assignment, Gpu, Inventory
from localhpo.store.records import Wait
from localhpo.task import Resources

TWO = Inventory(cpus=2)
ONE_CPU = Assignment(cpus=1.0)
MakeMachine = Callable[..., Machine]


class Waits:
    """An observer that keeps what was waited for, each thing once."""

    def __init__(self) -> None:
        self.seen: list[Wait | None] = []

    def on_event(self, event: Any) -> None:
        pass

    def on_change(self, snapshot: Any) -> None:
        if (cause := waits_for(snapshot)) not in self.seen:
            self.seen.append(cause)


@pytest.mark.parametrize(
    ("held", "cause", "said"),
    [
        (Assignment(2.0), "cpus", ["a trial waits for CPUs that another study holds"]),
        (Assignment(0.0, gpus=("0",)), "gpus", ["a trial waits for GPUs that another study holds"]),
        (Assignment(0.0, gpus=("0",), gpu_share=0.0, gpu_memory_mb=20_000), "memory", []),
    ],
)
def test_what_another_study_holds_is_told_from_memory(
    make_stage: Callable[..., Any],
    make_task: Callable[..., Any],
    make_machine: MakeMachine,
    held: Assignment,
    cause: Wait,
    said: list[str],
) -> None:
    inventory = Inventory(cpus=2, gpus=(Gpu("0", memory_mb=24_000),))
    mine, other = (make_machine(name, inventory) for name in ("mine", "other"))
    assert other.claim("0", held, lambda others: held)
    task = make_task(resources=Resources(cpus=2, gpus=1, gpu_memory_mb=10_000))
    stage, waits = make_stage(task=task, trials=2), Waits()
    loop = stage.loop(inventory=inventory, machine=mine, observers=[waits])

    def leave() -> None:
        if stage.clock.monotonic() > 10:
            other.release("0")

    stage.clock.on_sleep = leave
    loop.run()
    assert waits.seen[0] == cause
    assert set(waits.seen) <= {cause, None}
    assert [text for text in stage.recorder.said("note") if "waits" in text] == said


def test_a_wait_for_the_turn_of_another_study_is_called_that(
    make_stage: Callable[..., Any], make_machine: MakeMachine, times: list[float]
) -> None:
    mine, first = make_machine("mine"), make_machine("first")
    assert mine.claim("9", ONE_CPU, lambda others: ONE_CPU)
    times[0] += 5  # mine has used more
    stage, waits = make_stage(trials=1), Waits()
    loop = stage.loop(inventory=TWO, machine=mine, observers=[waits])

    def pass_on() -> None:
        if stage.clock.monotonic() > 10:
            first.close()

    stage.clock.on_sleep = pass_on
    first.claim("0", ONE_CPU, lambda others: None)
    loop.run()
    assert waits.seen[0] == "turn"
