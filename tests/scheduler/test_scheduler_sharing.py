"""How trials and the model's server share memory: the decision, and what comes of it."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import psutil
import pytest
from resting_server import RestingServer

from localhpo.errors import ModelError
from localhpo.executor.clock import RealClock
from localhpo.scheduler.placement import Assignment, Gpu, Inventory, Need
from localhpo.scheduler.sharing import Mode, Numbers, ahead, decide, finish_s
from localhpo.scheduler.tenancy import Tenancy
from localhpo.scheduler.tenant import InProcess, Managed, Simulated
from localhpo.task import Resources

SHORT_OF_ROOM = Numbers(
    beside=1,
    elsewhere=0,
    asleep=3,
    stopped=3,
    propose_s=2,
    rest_s={"sleep": 1, "stop": 5},
    back_s={"sleep": 3, "stop": 55},
    trial_s=600,
    results=1,
    left=30,
)


@pytest.mark.parametrize(
    ("changes", "mode"),
    [
        ({}, "sleep"),
        ({"trial_s": None}, "sleep"),  # even trials of a few seconds would make up for it
        ({"trial_s": None, "asleep": None, "left": 20}, "resident"),  # for a start they would not
        ({"trial_s": None, "beside": 0, "asleep": None}, "stop"),
        ({"trial_s": 1.0, "back_s": {"sleep": 9, "stop": 55}}, "resident"),  # waking costs more
        ({"asleep": None}, "stop"),
        ({"asleep": None, "trial_s": 5.0}, "resident"),
        ({"asleep": None, "stopped": None}, "resident"),
        ({"beside": 3}, "resident"),
        ({"beside": 3, "elsewhere": 3}, "device"),
        ({"asleep": 1, "stopped": 3}, "stop"),
        ({"contended": False}, "cpu"),
    ],
)
def test_auto_decides_by_numbers(changes: dict[str, Any], mode: str) -> None:
    decision = decide("auto", replace(SHORT_OF_ROOM, **changes))
    assert decision.mode == mode
    assert decision.reason


def test_what_the_user_chose_is_done_where_it_can_be() -> None:
    assert decide("resident", SHORT_OF_ROOM).mode == "resident"
    no_sleep = decide("sleep", replace(SHORT_OF_ROOM, asleep=None))
    assert (no_sleep.mode, "cannot sleep" in no_sleep.reason) == ("stop", True)


@pytest.mark.parametrize("present", ["resident", "sleep"])
def test_two_modes_as_good_as_each_other_do_not_take_turns(present: Mode) -> None:
    near = replace(SHORT_OF_ROOM, beside=2.95)
    for left in range(4, 40):
        assert decide("auto", replace(near, left=left), present).mode == present


def test_one_slot_more_of_many_is_worth_a_change_but_no_second_one() -> None:
    many = replace(SHORT_OF_ROOM, beside=23, elsewhere=21, asleep=24, trial_s=60, left=240)
    assert decide("auto", many, "resident").mode == "sleep"
    assert decide("auto", many, "resident", changes=1).mode == "resident"


def test_a_dear_change_waits_until_the_length_of_trials_is_known() -> None:
    gains = {"beside": 20, "elsewhere": 18, "asleep": None, "stopped": 21, "left": 60}  # 3 %
    dear = replace(SHORT_OF_ROOM, **gains, trial_s=50)
    assert decide("auto", replace(dear, results=2)).mode == "resident"
    assert decide("auto", replace(dear, results=3)).mode == "stop"
    # A trial takes longer than the server is away: nothing much can be lost.
    assert decide("auto", replace(dear, trial_s=61, results=2)).mode == "stop"


def test_each_change_makes_the_next_one_dearer() -> None:
    worse = replace(SHORT_OF_ROOM, beside=2.4)
    assert decide("auto", worse, "resident").mode == "sleep"
    assert decide("auto", worse, "resident", changes=10).mode == "resident"


def test_a_sleeping_server_that_is_to_be_stopped_takes_a_start_to_be_back() -> None:
    asleep = replace(SHORT_OF_ROOM, standing="asleep", in_hand=3, left=4)
    slow = replace(asleep, back_s={"sleep": 3, "stop": 955})
    assert finish_s("stop", 3, slow) > finish_s("stop", 3, asleep) + 500
    assert finish_s("sleep", 3, slow) == finish_s("sleep", 3, asleep)


def test_a_rest_is_never_free() -> None:
    """Where sizes are mixed, a server that rests makes room for less than one more."""
    mixed = replace(SHORT_OF_ROOM, beside=3.56, asleep=3.94, stopped=4, trial_s=10)
    for way in ("sleep", "stop"):
        slow = replace(mixed, back_s={"sleep": 500, "stop": 500})
        assert finish_s(way, 3.94, slow) > finish_s(way, 3.94, mixed) + 400


def test_the_mode_is_decided_after_the_first_proposals() -> None:
    blank = replace(SHORT_OF_ROOM, trial_s=None, propose_s=0, results=0)
    assert decide("auto", blank).mode == "resident"
    assert decide("auto", replace(blank, in_hand=3)).mode == "sleep"
    assert decide("auto", replace(blank, beside=0)).mode == "sleep"  # no trial would ever start


def test_a_bad_mode_is_left_in_a_short_study_too() -> None:
    short = replace(SHORT_OF_ROOM, left=5)
    assert decide("auto", short, "resident").mode == "sleep"
    in_hand = replace(short, in_hand=5)  # room is made for the last ones in any mode
    assert decide("auto", in_hand, "resident").mode == "resident"


def test_proposals_are_drawn_ahead_only_where_waiting_costs() -> None:
    assert ahead("resident", 2, SHORT_OF_ROOM) == 0
    assert ahead("resident", 2, replace(SHORT_OF_ROOM, trial_s=10.0)) == 2
    assert ahead("sleep", 3, replace(SHORT_OF_ROOM, beside=3)) == 0
    assert ahead("stop", 3, SHORT_OF_ROOM) == 3
    assert ahead("stop", 3, replace(SHORT_OF_ROOM, results=0)) == 0  # they would know nothing


@pytest.mark.parametrize(("propose_s", "most"), [(2, 4), (5, 4), (8, 7), (100, 8)])
def test_what_is_in_hand_lasts_while_two_questions_take(propose_s: float, most: int) -> None:
    numbers = replace(SHORT_OF_ROOM, trial_s=10.0, propose_s=propose_s)
    assert ahead("resident", 4, numbers) == most


def test_before_the_first_result_no_more_than_one_is_drawn_ahead_for_each_slot() -> None:
    apart = replace(SHORT_OF_ROOM, beside=2, elsewhere=2, trial_s=10.0)
    assert ahead("stop", 3, apart) == 6
    assert ahead("stop", 3, replace(apart, results=0)) == 3


@pytest.mark.parametrize(("think_s", "unseen"), [(0.3, 0), (4.0, 1)])
def test_with_one_slot_a_proposal_knows_all_results_where_waiting_costs_little(
    make_stage: Any, hands: Any, think_s: float, unseen: int
) -> None:
    stage = make_stage(trials=6)

    class Thinking(hands.Creator):
        def propose(self, history: Any, n: int) -> Any:
            stage.clock.sleep(think_s)
            return super().propose(history, n)

    stage.creator = Thinking()
    stage.run()
    for history, _ in stage.creator.shown[:2]:
        assert history.next_number == count_complete(history)  # none before the first result
    missed = [h.next_number - count_complete(h) for h, _ in stage.creator.shown]
    assert max(missed) == unseen


def count_complete(history: Any) -> int:
    return sum(trial.state == "complete" for trial in history.trials)


# The loop, with a simulated server on a device of 24 GB.

GPU = Inventory(cpus=8, gpus=(Gpu("0", memory_mb=24_000),))
HOLDS = Assignment(0.0, gpus=("0",), gpu_share=0.0, gpu_memory_mb=16_000)


class Late(Simulated):
    """Takes its times by a clock that is made after it, as the stage's is."""

    def __init__(self) -> None:
        self.holds = HOLDS

    def begin(self, clock: Any, asleep_mb: float) -> None:
        super().__init__(
            clock, holds=HOLDS, asleep_mb=asleep_mb, sleep_s=2, wake_s=3, stop_s=3, start_s=40
        )


def run_beside_server(stage: Any, *, asleep_mb: float = 1_500, trial_mb: float = 18_000) -> Any:
    tenant = Late()
    loop = stage.loop(inventory=GPU, tenant=tenant, estimate=lambda config: trial_mb)
    tenant.begin(stage.clock, asleep_mb)
    return loop.run()


def gpu_stage(make_stage: Any, make_task: Any, sharing: str, **changes: Any) -> Any:
    resources = Resources(gpus=0.25, cpus=1.0, sharing=sharing)  # type: ignore[arg-type]
    return make_stage(task=make_task(resources=resources), **changes)


def test_a_trial_that_does_not_fit_beside_the_server_makes_it_sleep(
    make_stage: Any, make_task: Any
) -> None:
    stage = gpu_stage(make_stage, make_task, "auto", trials=3)
    trials = run_beside_server(stage)
    assert [trial.state for trial in trials] == ["complete"] * 3
    events = [e for e in stage.recorder.events if e.kind == "sharing"]
    decisions = [e for e in events if "mode" in e.data]
    assert [e.data["mode"] for e in decisions] == ["resident", "sleep"]
    assert decisions[-1].message.startswith("sleep: ")
    slept = next(e for e in events if "act" in e.data)
    assert slept.message == (
        "the server went to sleep, to make room for a trial: it took 2.0 s, and freed 14500 of"
        " 16000 MB"
    )
    told = {key: slept.data[key] for key in ("act", "seconds", "freed_mb", "held_mb")}
    assert told == {"act": "sleep", "seconds": 2.0, "freed_mb": 14_500, "held_mb": 1_500}
    assert stage.executor.most_at_once == 1


def test_the_first_question_is_for_as_many_as_any_mode_can_run(
    make_stage: Any, make_task: Any
) -> None:
    stage = gpu_stage(make_stage, make_task, "auto", trials=8, parallel=4)
    run_beside_server(stage, trial_mb=5_000)  # one beside the server
    assert stage.creator.shown[0][1] == 4


def test_resident_refuses_what_cannot_fit_beside(make_stage: Any, make_task: Any) -> None:
    stage = gpu_stage(make_stage, make_task, "resident", trials=1)
    with pytest.raises(Exception, match="20 infeasible proposals"):
        run_beside_server(stage)
    assert "at most 8000 can be free beside the model" in stage.recorder.said("infeasible")[0]


def test_a_sleep_that_frees_nothing_becomes_a_stop(make_stage: Any, make_task: Any) -> None:
    stage = gpu_stage(make_stage, make_task, "auto", trials=2)
    trials = run_beside_server(stage, asleep_mb=15_900)
    assert [trial.state for trial in trials] == ["complete"] * 2
    assert stage.recorder.said("warning") == [
        "sleep freed 100 of 16000 MB: the server is stopped instead, now and later"
    ]


def test_stale_drafts_are_dropped_and_recorded(make_stage: Any, make_task: Any, hands: Any) -> None:
    def play(job: Any) -> Any:  # each one is better than those before
        return hands.Play(10.0 + 20.0 * (job.number == 1), curve=(-float(job.number),))

    stage = gpu_stage(make_stage, make_task, "auto", trials=6, parallel=2, play=play)

    class Slow(hands.Creator):
        def propose(self, history: Any, n: int) -> Any:
            stage.clock.sleep(4.0)
            return super().propose(history, n)

    stage.creator = Slow()
    trials = run_beside_server(stage, trial_mb=2_000)
    assert [trial.state for trial in trials] == ["complete"] * 6
    assert stage.recorder.said("dropped")[0].startswith("drawn before the best trial was known")
    assert trials[3].started_at - trials[2].started_at < 11  # a stale one, and no empty slot


@pytest.mark.parametrize(
    ("sharing", "warns"),
    [
        ("auto", False),
        ("resident", False),  # what happens anyway
        ("sleep", True),
        ("stop", True),
        ("device", True),
        ("cpu", True),
    ],
)
def test_a_choice_that_has_no_effect_is_said_once(
    make_stage: Any, make_task: Any, sharing: Any, warns: bool
) -> None:
    stage = make_stage(task=make_task(resources=Resources(sharing=sharing)), trials=3)
    trials = stage.loop(tenant=None).run()
    assert [trial.state for trial in trials] == ["complete"] * 3
    assert stage.recorder.said("sharing") == []
    warned = stage.recorder.said("warning")
    assert len(warned) == warns
    assert all(f'sharing = "{sharing}" has no effect' in message for message in warned)


@pytest.mark.parametrize(
    ("sharing", "holds", "why"),
    [
        ("cpu", HOLDS, "the model's server is on device 0"),
        ("device", Assignment(0.0, memory_mb=100), "the model's server is in host memory"),
        ("cpu", Assignment(0.0, memory_mb=100), None),
        ("device", HOLDS, None),
        ("sleep", HOLDS, None),
    ],
)
def test_a_choice_of_a_place_where_the_server_is_not_is_said(
    sharing: Any, holds: Assignment, why: str | None
) -> None:
    tenancy = Tenancy(
        InProcess(holds),
        resources=Resources(sharing=sharing),
        inventory=replace(GPU, memory_mb=1_000),
        clock=RealClock(),
    )
    said = [news.message for news in tenancy.take_news()]
    assert said == ([f'sharing = "{sharing}" has no effect: {why}'] if why else [])


def test_a_stopped_server_is_not_put_to_sleep() -> None:
    tenancy = Tenancy(
        Simulated(RealClock(), holds=HOLDS, asleep_mb=10, sleep_s=0, wake_s=0, stop_s=0, start_s=0),
        resources=Resources(gpus=1),
        inventory=GPU,
        clock=RealClock(),
    )
    need = Need(gpu_memory_mb={"0": 20_000})
    tenancy.consider([need], [], trial_s=9.0, propose_s=1.0, results=1, left=None, in_hand=0)
    assert tenancy.rest_for(need, [], [], is_last=False) == "sleep"
    tenancy.rest("stop")
    assert tenancy.rest_for(need, [], [], is_last=False) is None


# A real server process that holds real memory.


def resident_mb(pid: int) -> float:
    return psutil.Process(pid).memory_info().rss / 1e6


@pytest.mark.parametrize(("kind", "after"), [("frees", "asleep"), ("lies", "stopped")])
def test_what_a_sleep_freed_is_measured(kind: Literal["frees", "lies"], after: str) -> None:
    server = RestingServer(kind)
    tenant = Managed(server, holds=Assignment(0.0, memory_mb=150), measure=resident_mb)
    tenancy = Tenancy(
        tenant,
        resources=Resources(memory_mb=200),
        inventory=Inventory(cpus=2, memory_mb=250),
        clock=RealClock(),
    )
    tenant.wake()
    try:
        need = Need(memory_mb=200)
        tenancy.consider([need], [], trial_s=None, propose_s=0.0, results=0, left=None, in_hand=0)
        assert tenancy.mode == "sleep"
        assert tenancy.rest_for(need, [], [], is_last=False) == "sleep"
        tenancy.rest("sleep")
        assert not tenancy.awake
        assert (server.pid is None) == (after == "stopped")
        assert tenancy.holding.memory_mb < 50
        heard = tenancy.take_news()
        warned = [news.message for news in heard if news.kind == "warning"]
        assert len(warned) == (after == "stopped")
        assert heard[-1].data["act"] == ("stop" if after == "stopped" else "sleep")
        assert heard[-1].data["freed_mb"] > 100
        tenancy.call()()
        (woken,) = tenancy.take_news()
        assert woken.data["act"] == ("start" if after == "stopped" else "wake")
        assert woken.data["held_mb"] > 120
        assert tenancy.awake
        assert (tenant.used_mb() or 0) > 120
        assert server.starts == (2 if after == "stopped" else 1)
    finally:
        server.stop()


def test_a_model_in_this_process_makes_no_room() -> None:
    tenant = InProcess(HOLDS)
    assert tenant.rests == frozenset()
    for rest in (tenant.sleep, tenant.stop):
        with pytest.raises(ModelError):
            rest()


@pytest.mark.slow
def test_auto_is_never_much_worse_than_the_best_fixed_way() -> None:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, "-m", "scripts.simulate_sharing", "--quick", "--seeds", "5"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "worse than the best by more than 2 %: 0" in done.stdout
