"""A server that is offloaded from one of several devices: when it is restored and asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import pytest

from localhpo.resources.placement import Assignment, Gpu, Inventory
from localhpo.task import Resources, Sharing
from localhpo.trial import State
from scripts.benchmarks.sharing.model import SimulatedModel

HOME = "2"
DEVICES = Inventory(cpus=8, gpus=tuple(Gpu(id, memory_mb=24_000) for id in ("0", "1", HOME)))
RESIDENT = Assignment(0.0, gpus=(HOME,), gpu_share=0.0, gpu_memory_mb=16_000)
TRIAL_MB = 10_000  # two of them on a device, none beside the server
BEGIN_S = 1_000.0  # of the bench's clock

Study = Callable[[Sharing], Any]


class LoggedModel(SimulatedModel):
    """Writes down what it does; its clock is made after it, as the bench's is."""

    def __init__(self) -> None:
        self.assignment = RESIDENT
        self.log: list[str] = []

    def begin(self, clock: Any) -> None:
        super().__init__(
            clock, assignment=RESIDENT, asleep_mb=1_500, sleep_s=2, wake_s=3, stop_s=3, start_s=40
        )

    def wake(self) -> None:
        self.log.append("wake")
        super().wake()

    def stop(self) -> None:
        self.log.append("stop")
        super().stop()


@pytest.fixture
def study(make_bench: Any, make_task: Any, fakes: Any) -> Study:
    """Run trials of a minute, more or less, in a mode of sharing; return the bench."""

    def run(sharing: Sharing) -> Any:
        class Asked(fakes.Creator):
            """Writes down when it was asked, and how many results it knew of."""

            knew: ClassVar[list[tuple[float, int]]] = []

            def propose(self, history: Any, n: int) -> Any:
                results = sum(trial.state is State.COMPLETE for trial in history.trials)
                self.knew.append((bench.clock.time(), results))
                return super().propose(history, n)

        def script(job: Any) -> Any:
            server.log.append(job.env["CUDA_VISIBLE_DEVICES"])
            return fakes.TrialScript(40.0 + 17 * job.number % 40)

        task = make_task(resources=Resources(gpus=0.25, cpus=1.0, sharing=sharing))
        bench = make_bench(task=task, trials=60, parallel=12, script=script, creator=Asked())
        server = bench.server = LoggedModel()
        loop = bench.loop(
            inventory=DEVICES, loaded_model=server, estimate_mb=lambda config: TRIAL_MB
        )
        server.begin(bench.clock)
        loop.run()
        return bench

    return run


def test_other_devices_stay_busy_until_the_servers_own_is_free(study: Study) -> None:
    trials = study("sleep").recorder.trials.values()
    took_s = max(trial.finished_at for trial in trials) - BEGIN_S
    assert sum(trial.usage.wall_s for trial in trials) > 0.9 * 6 * took_s


def test_a_server_is_offloaded_only_for_a_trial(study: Study) -> None:
    log = study("stop").server.log
    offloads = " ".join(log).split("stop")[1:]
    assert len(offloads) > 3
    assert all(HOME in after.split("wake")[0] for after in offloads)


def test_each_transition_is_one_event(study: Study) -> None:
    bench = study("stop")
    transitions = [e.data for e in bench.recorder.events if e.kind == "sharing" and "act" in e.data]
    did = [{"stop": "stop", "start": "wake"}[data["act"]] for data in transitions]
    assert did == [word for word in bench.server.log if word in ("stop", "wake")]
    assert {data["seconds"] for data in transitions if data["act"] == "stop"} == {3.0}
    assert {data["freed_mb"] for data in transitions if data["act"] == "stop"} == {16_000.0}
    assert {data["seconds"] for data in transitions if data["act"] == "start"} == {40.0}


def test_a_call_for_proposals_knows_the_results_until_the_server_has_started(study: Study) -> None:
    bench = study("stop")
    ends = [trial.finished_at for trial in bench.recorder.trials.values()]
    for asked_at, results in bench.creator.knew:
        assert results >= sum(end <= asked_at - bench.settings.poll_s for end in ends)
