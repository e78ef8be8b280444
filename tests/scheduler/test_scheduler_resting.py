"""A server that rests on one of several devices: when it is woken, and what it is asked then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from localhpo.scheduler.placement import Assignment, Gpu, Inventory
from localhpo.scheduler.tenant import Simulated
from localhpo.task import Resources, Sharing
from localhpo.trial import State

HOME = "2"
DEVICES = Inventory(cpus=8, gpus=tuple(Gpu(id, memory_mb=24_000) for id in ("0", "1", HOME)))
HOLDS = Assignment(0.0, gpus=(HOME,), gpu_share=0.0, gpu_memory_mb=16_000)
TRIAL_MB = 10_000  # two of them on a device, none beside the server
BEGIN_S = 1_000.0  # of the stage's clock

Study = Callable[[Sharing], Any]


class Logged(Simulated):
    """Writes down what it does; its clock is made after it, as the stage's is."""

    def __init__(self) -> None:
        self.holds = HOLDS
        self.log: list[str] = []

    def begin(self, clock: Any) -> None:
        super().__init__(
            clock, holds=HOLDS, asleep_mb=1_500, sleep_s=2, wake_s=3, stop_s=3, start_s=40
        )

    def wake(self) -> None:
        self.log.append("wake")
        super().wake()

    def stop(self) -> None:
        self.log.append("stop")
        super().stop()


@pytest.fixture
def study(make_stage: Any, make_task: Any, hands: Any) -> Study:
    """Run trials of a minute, more or less, in a way of sharing; return the stage."""

    def run(sharing: Sharing) -> Any:
        class Asked(hands.Creator):
            """Writes down when it was asked, and how many results it knew of."""

            knew: ClassVar[list[tuple[float, int]]] = []

            def propose(self, history: Any, n: int) -> Any:
                results = sum(trial.state is State.COMPLETE for trial in history.trials)
                self.knew.append((stage.clock.time(), results))
                return super().propose(history, n)

        def play(job: Any) -> Any:
            server.log.append(job.env["CUDA_VISIBLE_DEVICES"])
            return hands.Play(40.0 + 17 * job.number % 40)

        task = make_task(resources=Resources(gpus=0.25, cpus=1.0, sharing=sharing))
        stage = make_stage(task=task, trials=60, parallel=12, play=play, creator=Asked())
        server = stage.server = Logged()
        loop = stage.loop(inventory=DEVICES, tenant=server, estimate=lambda config: TRIAL_MB)
        server.begin(stage.clock)
        loop.run()
        return stage

    return run


def test_other_devices_stay_busy_until_the_server_has_its_own(study: Study) -> None:
    trials = study("sleep").recorder.trials.values()
    took_s = max(trial.finished_at for trial in trials) - BEGIN_S
    assert sum(trial.usage.wall_s for trial in trials) > 0.9 * 6 * took_s


def test_a_server_makes_room_for_a_trial_and_never_for_none(study: Study) -> None:
    log = study("stop").server.log
    rests = " ".join(log).split("stop")[1:]
    assert len(rests) > 3
    assert all(HOME in rest.split("wake")[0] for rest in rests)


def test_each_rest_and_each_return_is_one_event(study: Study) -> None:
    stage = study("stop")
    told = [e.data for e in stage.recorder.events if e.kind == "sharing" and "act" in e.data]
    did = [{"stop": "stop", "start": "wake"}[data["act"]] for data in told]
    assert did == [word for word in stage.server.log if word in ("stop", "wake")]
    assert {data["seconds"] for data in told if data["act"] == "stop"} == {3.0}
    assert {data["freed_mb"] for data in told if data["act"] == "stop"} == {16_000.0}
    assert {data["seconds"] for data in told if data["act"] == "start"} == {40.0}


def test_a_question_takes_account_of_what_ended_while_the_server_started(study: Study) -> None:
    stage = study("stop")
    ends = [trial.finished_at for trial in stage.recorder.trials.values()]
    for asked_at, results in stage.creator.knew:
        assert results >= sum(end <= asked_at - stage.settings.poll_s for end in ends)
