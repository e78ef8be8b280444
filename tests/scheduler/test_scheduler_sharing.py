"""How trials and the model's server share memory: the decision, and its effect."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest
from fake_server import FakeServer

from localhpo.errors import ModelError
from localhpo.executor.clock import RealClock
from localhpo.resources.placement import Assignment, Gpu, Inventory, MemoryNeed
from localhpo.scheduler.loaded_model import InProcessModel, ServerModel
from localhpo.scheduler.model_residency import ModelResidency
from localhpo.scheduler.sharing import (
    SharingMode,
    SharingStatistics,
    choose_mode,
    count_prefetch,
)
from localhpo.task import Resources
from scripts.benchmarks.sharing.model import SimulatedModel

SHORT_OF_MEMORY = SharingStatistics(
    slots_resident=1,
    slots_elsewhere=0,
    slots_asleep=3,
    slots_stopped=3,
    propose_s=2,
    trial_s=600,
    results=1,
)


@pytest.mark.parametrize(
    ("changes", "mode"),
    [
        ({}, "sleep"),
        ({"trial_s": 0.0, "results": 0}, "sleep"),  # trials of ten seconds would pay for it
        ({"trial_s": 10.0, "propose_s": 50.0}, "resident"),  # the model is needed all the time
        ({"trial_s": 10.0, "propose_s": 6.0, "slots_resident": 2.5}, "resident"),
        ({"propose_s": 6.0, "slots_resident": 2.5}, "sleep"),
        ({"slots_asleep": None}, "stop"),
        ({"slots_asleep": None, "trial_s": 10.0}, "resident"),  # a restart takes longer
        ({"slots_resident": 0, "slots_asleep": None, "trial_s": 10.0}, "stop"),  # or none would run
        ({"slots_resident": 0, "slots_asleep": 0, "trial_s": 10.0}, "stop"),
        ({"slots_asleep": None, "slots_stopped": None}, "resident"),
        ({"slots_resident": 0, "slots_asleep": 0, "slots_stopped": 0}, "resident"),
        ({"slots_resident": 3}, "resident"),
        ({"slots_resident": 3, "slots_elsewhere": 3}, "device"),
        ({"slots_resident": 2, "slots_elsewhere": 2}, "sleep"),
        ({"slots_asleep": 1}, "stop"),
        ({"slots_asleep": 1, "trial_s": 10.0}, "resident"),
        ({"trial_s": 0.0}, "resident"),  # simulated trials may take no time
        ({"contended": False}, "cpu"),
    ],
)
def test_auto_chooses_the_highest_rate_of_trials(changes: dict[str, Any], mode: str) -> None:
    decision = choose_mode("auto", replace(SHORT_OF_MEMORY, **changes))
    assert decision.mode == mode
    assert decision.reason


def test_the_mode_is_chosen_once_the_sizes_of_trials_are_known() -> None:
    unknown = replace(SHORT_OF_MEMORY, sizes_known=False)
    assert choose_mode("auto", unknown).mode == "resident"
    # Otherwise no trial would ever start.
    assert choose_mode("auto", replace(unknown, slots_resident=0)).mode == "sleep"


def test_the_users_setting_is_followed_where_the_server_supports_it() -> None:
    assert choose_mode("resident", SHORT_OF_MEMORY).mode == "resident"
    no_sleep = choose_mode("sleep", replace(SHORT_OF_MEMORY, slots_asleep=None))
    assert (no_sleep.mode, "cannot sleep" in no_sleep.reason) == ("stop", True)


@pytest.mark.parametrize("present", ["resident", "sleep"])
def test_modes_do_not_alternate_with_the_sizes_of_trials(present: SharingMode) -> None:
    near = replace(SHORT_OF_MEMORY, slots_resident=2.9)
    assert choose_mode("auto", near, present).mode == present
    equal = replace(SHORT_OF_MEMORY, slots_resident=3)
    assert choose_mode("auto", equal, present).mode == "resident"


def test_a_mode_in_which_no_trial_runs_is_left() -> None:
    none_resident = replace(SHORT_OF_MEMORY, slots_resident=0)
    assert choose_mode("auto", none_resident, "resident").mode == "sleep"


def test_proposals_are_prefetched_only_where_waiting_costs() -> None:
    assert count_prefetch("resident", 2, SHORT_OF_MEMORY) == 0
    assert count_prefetch("resident", 2, replace(SHORT_OF_MEMORY, trial_s=10.0)) == 2
    assert count_prefetch("sleep", 3, replace(SHORT_OF_MEMORY, slots_resident=3)) == 0
    assert count_prefetch("stop", 3, SHORT_OF_MEMORY) == 3
    assert count_prefetch("stop", 3, replace(SHORT_OF_MEMORY, results=0)) == 0


def test_a_single_slot_waits_for_a_server_that_is_back_soon() -> None:
    one = replace(SHORT_OF_MEMORY, slots_resident=0)
    assert count_prefetch("sleep", 1, one) == 0
    assert count_prefetch("stop", 1, one) == 1


@pytest.mark.parametrize(
    ("mode", "trial_s", "rounds"),
    [("sleep", 100.0, 2), ("sleep", 600.0, 1), ("resident", 3.0, 2), ("resident", 10.0, 1)],
)
def test_short_trials_get_two_prefetched_proposals_per_slot(
    mode: SharingMode, trial_s: float, rounds: int
) -> None:
    numbers = replace(SHORT_OF_MEMORY, trial_s=trial_s)
    assert count_prefetch(mode, 3, numbers) == 3 * rounds


@pytest.mark.parametrize(("think_s", "unseen"), [(0.3, 0), (4.0, 1)])
def test_with_one_slot_nothing_is_prefetched_where_waiting_costs_little(
    make_bench: Any, fakes: Any, think_s: float, unseen: int
) -> None:
    bench = make_bench(trials=6)

    class Thinking(fakes.Creator):
        def propose(self, history: Any, n: int) -> Any:
            bench.clock.sleep(think_s)
            return super().propose(history, n)

    bench.creator = Thinking()
    bench.run()
    for history, _ in bench.creator.shown[:2]:
        assert history.next_number == count_complete(history)  # none before the first result
    missed = [h.next_number - count_complete(h) for h, _ in bench.creator.shown]
    assert max(missed) == unseen


def count_complete(history: Any) -> int:
    return sum(trial.state == "complete" for trial in history.trials)


# The loop, with a simulated server on a device of 24 GB.

GPU = Inventory(cpus=8, gpus=(Gpu("0", memory_mb=24_000),))
RESIDENT = Assignment(0.0, gpus=("0",), gpu_share=0.0, gpu_memory_mb=16_000)


class LateClockModel(SimulatedModel):
    """Gets its clock after it was made, since the bench makes its clock later."""

    def __init__(self) -> None:
        self.assignment = RESIDENT

    def begin(self, clock: Any, asleep_mb: float) -> None:
        super().__init__(
            clock,
            assignment=RESIDENT,
            asleep_mb=asleep_mb,
            sleep_s=2,
            wake_s=3,
            stop_s=3,
            start_s=40,
        )


def run_beside_server(bench: Any, *, asleep_mb: float = 1_500, trial_mb: float = 18_000) -> Any:
    model = LateClockModel()
    loop = bench.loop(inventory=GPU, loaded_model=model, estimate_mb=lambda config: trial_mb)
    model.begin(bench.clock, asleep_mb)
    return loop.run()


def gpu_bench(make_bench: Any, make_task: Any, sharing: str, **changes: Any) -> Any:
    resources = Resources(gpus=0.25, cpus=1.0, sharing=sharing)  # type: ignore[arg-type]
    return make_bench(task=make_task(resources=resources), **changes)


def test_the_server_sleeps_for_a_trial_that_does_not_fit_beside_it(
    make_bench: Any, make_task: Any
) -> None:
    bench = gpu_bench(make_bench, make_task, "auto", trials=3)
    trials = run_beside_server(bench)
    assert [trial.state for trial in trials] == ["complete"] * 3
    events = [e for e in bench.recorder.events if e.kind == "sharing"]
    decisions = [e for e in events if "mode" in e.data]
    assert [e.data["mode"] for e in decisions] == ["resident", "sleep"]
    assert decisions[-1].message.startswith("sleep: ")
    slept = next(e for e in events if "act" in e.data)
    assert slept.message == (
        "the model's server went to sleep to free memory for a trial (2.0 s, it freed 14500 of"
        " 16000 MB)"
    )
    data = {key: slept.data[key] for key in ("act", "seconds", "freed_mb", "held_mb")}
    assert data == {"act": "sleep", "seconds": 2.0, "freed_mb": 14_500, "held_mb": 1_500}
    assert bench.executor.max_running == 1


def test_the_first_call_asks_for_as_many_as_any_mode_can_run(
    make_bench: Any, make_task: Any
) -> None:
    bench = gpu_bench(make_bench, make_task, "auto", trials=8, parallel=4)
    run_beside_server(bench, trial_mb=5_000)  # one beside the server
    assert bench.creator.shown[0][1] == 4


def test_resident_refuses_trials_that_cannot_fit_beside_the_server(
    make_bench: Any, make_task: Any
) -> None:
    bench = gpu_bench(make_bench, make_task, "resident", trials=1)
    with pytest.raises(Exception, match="20 infeasible proposals"):
        run_beside_server(bench)
    assert (
        "at most 8000 MB can be free beside the model" in bench.recorder.messages("infeasible")[0]
    )


def test_a_server_whose_sleep_frees_nothing_is_stopped(make_bench: Any, make_task: Any) -> None:
    bench = gpu_bench(make_bench, make_task, "auto", trials=2)
    trials = run_beside_server(bench, asleep_mb=15_900)
    assert [trial.state for trial in trials] == ["complete"] * 2
    assert bench.recorder.messages("warning") == [
        "sleep freed 100 of 16000 MB: the model's server is stopped instead, now and later"
    ]


def test_stale_prefetched_proposals_are_discarded_and_recorded(
    make_bench: Any, make_task: Any, fakes: Any
) -> None:
    def script(job: Any) -> Any:  # each one is better than those before
        return fakes.TrialScript(10.0 + 20.0 * (job.number == 1), curve=(-float(job.number),))

    bench = gpu_bench(make_bench, make_task, "auto", trials=6, parallel=2, script=script)

    class Slow(fakes.Creator):
        def propose(self, history: Any, n: int) -> Any:
            bench.clock.sleep(4.0)
            return super().propose(history, n)

    bench.creator = Slow()
    trials = run_beside_server(bench, trial_mb=2_000)
    assert [trial.state for trial in trials] == ["complete"] * 6
    assert bench.recorder.messages("dropped")[0].startswith(
        "a prefetched proposal was discarded: a better"
    )
    assert trials[3].started_at - trials[2].started_at < 11  # a stale one, and no empty slot


@pytest.mark.parametrize(
    ("sharing", "warns"),
    [
        ("auto", False),
        ("resident", False),  # as without a server
        ("sleep", True),
        ("stop", True),
        ("device", True),
        ("cpu", True),
    ],
)
def test_a_setting_without_effect_is_warned_of_once(
    make_bench: Any, make_task: Any, sharing: Any, warns: bool
) -> None:
    bench = make_bench(task=make_task(resources=Resources(sharing=sharing)), trials=3)
    trials = bench.loop(loaded_model=None).run()
    assert [trial.state for trial in trials] == ["complete"] * 3
    assert bench.recorder.messages("sharing") == []
    warned = bench.recorder.messages("warning")
    assert len(warned) == warns
    assert all(f'sharing = "{sharing}" has no effect' in message for message in warned)


@pytest.mark.parametrize(
    ("sharing", "assignment", "why"),
    [
        ("cpu", RESIDENT, "the model's server is on device 0"),
        ("device", Assignment(0.0, memory_mb=100), "the model's server is in host memory"),
        ("cpu", Assignment(0.0, memory_mb=100), None),
        ("device", RESIDENT, None),
        ("sleep", RESIDENT, None),
    ],
)
def test_a_setting_for_memory_that_the_server_does_not_use_is_warned_of(
    sharing: Any, assignment: Assignment, why: str | None
) -> None:
    residency = ModelResidency(
        InProcessModel(assignment),
        resources=Resources(sharing=sharing),
        inventory=replace(GPU, memory_mb=1_000),
        clock=RealClock(),
    )
    messages = [event.message for event in residency.take_events()]
    assert messages == ([f'sharing = "{sharing}" has no effect: {why}'] if why else [])


def test_a_stopped_server_is_not_put_to_sleep() -> None:
    residency = ModelResidency(
        SimulatedModel(
            RealClock(), assignment=RESIDENT, asleep_mb=10, sleep_s=0, wake_s=0, stop_s=0, start_s=0
        ),
        resources=Resources(gpus=1),
        inventory=GPU,
        clock=RealClock(),
    )
    need = MemoryNeed(gpu_memory_mb={"0": 20_000})
    residency.choose_mode([need], trial_s=9.0, propose_s=1.0, results=1)
    assert residency.find_offload(need, [], [], is_last=False) == "sleep"
    residency.offload("stop")
    assert residency.find_offload(need, [], [], is_last=False) is None


# A real server process that holds real memory.


def resident_mb(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 1e6


@pytest.mark.parametrize(("kind", "after"), [("frees", "offloaded"), ("keeps", "stopped")])
def test_memory_freed_by_sleep_is_measured(kind: Literal["frees", "keeps"], after: str) -> None:
    server = FakeServer(kind)
    model = ServerModel(server, assignment=Assignment(0.0, memory_mb=150), measure=resident_mb)
    residency = ModelResidency(
        model,
        resources=Resources(memory_mb=200),
        inventory=Inventory(cpus=2, memory_mb=250),
        clock=RealClock(),
    )
    model.wake()
    try:
        need = MemoryNeed(memory_mb=200)
        residency.choose_mode([need], trial_s=0.0, propose_s=0.0, results=0)
        assert residency.mode == "sleep"
        assert residency.find_offload(need, [], [], is_last=False) == "sleep"
        residency.offload("sleep")
        assert not residency.is_ready
        assert (server.pid is None) == (after == "stopped")
        assert residency.current_assignment.memory_mb < 50
        events = residency.take_events()
        warned = [event.message for event in events if event.kind == "warning"]
        assert len(warned) == (after == "stopped")
        assert events[-1].data["act"] == ("stop" if after == "stopped" else "sleep")
        assert events[-1].data["freed_mb"] > 100
        residency.begin_wake()()
        (woken,) = residency.take_events()
        assert woken.data["act"] == ("start" if after == "stopped" else "wake")
        assert woken.data["held_mb"] > 120
        assert residency.is_ready
        assert (model.measure_mb() or 0) > 120
        assert server.starts == (2 if after == "stopped" else 1)
    finally:
        server.stop()


def test_a_model_in_this_process_cannot_free_its_memory() -> None:
    model = InProcessModel(RESIDENT)
    assert model.offload_methods == frozenset()
    for offload in (model.sleep, model.stop):
        with pytest.raises(ModelError):
            offload()


@pytest.mark.slow
def test_auto_is_never_much_worse_than_the_best_fixed_mode() -> None:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "scripts.benchmarks.sharing", "--quick", "--seeds", "5"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "worse than the best by more than 5 %: 0" in done.stdout
