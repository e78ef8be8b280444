"""A server of the model that two studies use: what each counts, and how it makes room."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nvml_stand_in import Device, stand_in
from resting_server import RestingServer, running

from localhpo import runtime
from localhpo.executor.clock import RealClock
from localhpo.scheduler import footprint
from localhpo.scheduler.devices import find_gpus
from localhpo.scheduler.machine import SERVER, Machine
from localhpo.scheduler.placement import Assignment, Inventory, Need
from localhpo.scheduler.tenancy import Tenancy
from localhpo.scheduler.tenant import Managed
from localhpo.task import Resources, Sharing

HOST = Inventory(cpus=2, memory_mb=1_000)
HOLDS = Assignment(0.0, memory_mb=150, gpu_share=0.0)
SMALL, LARGE = Need(memory_mb=300), Need(memory_mb=900)


@pytest.fixture
def server() -> Iterator[RestingServer]:
    with running() as started:
        yield started


def tenancy(server: RestingServer, sharing: Sharing = "auto") -> Tenancy:
    return Tenancy(
        Managed(server, holds=HOLDS, measure=footprint.host_mb),
        resources=Resources(parallel=4, sharing=sharing),
        inventory=HOST,
        clock=RealClock(),
    )


def consider(one: Tenancy, need: Need) -> str:
    one.consider([need], [], trial_s=600.0, propose_s=1.0, results=4, left=None, in_hand=0)
    return one.mode


def test_while_others_use_it_the_server_stays_awake(server: RestingServer) -> None:
    server.shared = True
    for sharing in ("auto", "sleep", "stop"):
        one = tenancy(server, sharing)
        consider(one, SMALL)
        assert one.holding == one.least == HOLDS
        assert one.rest_for(SMALL, [], [], is_last=True) is None


def test_it_may_rest_once_the_others_are_gone(server: RestingServer) -> None:
    server.shared = True
    one = tenancy(server)
    assert consider(one, LARGE) == "resident"
    server.shared = False
    assert consider(one, LARGE) == "sleep"
    assert one.rest_for(LARGE, [], [], is_last=False) == "sleep"


@pytest.mark.parametrize("sharing", ["auto", "sleep", "stop"])
def test_a_trial_that_does_not_fit_beside_it_has_the_server_left_to_the_others(
    server: RestingServer, sharing: Sharing
) -> None:
    server.shared = True
    one = tenancy(server, sharing)
    consider(one, LARGE)
    assert one.least_ever.memory_mb < HOLDS.memory_mb  # so the trial is not refused for good
    assert one.rest_for(LARGE, [], [], is_last=False) == "stop"
    one.rest("stop")
    assert one.take_news()[-1].data["act"] == "leave"  # so nothing was freed
    assert not one.awake
    assert one.rest_for(LARGE, [], [HOLDS], is_last=False) is None  # it waits for the others


def test_whoever_wants_it_awake_throughout_leaves_it_to_nobody(server: RestingServer) -> None:
    server.shared = True
    one = tenancy(server, "resident")
    consider(one, LARGE)
    assert one.rest_for(LARGE, [], [], is_last=False) is None


# The ledger


def studies(folder: Path, servers: dict[str, int | None]) -> dict[str, Machine]:
    made = {
        name: Machine(name, HOST, folder=folder, server=lambda name=name: servers[name])
        for name in servers
    }
    for one in made.values():
        one.hold(SERVER, HOLDS)
    return made


def test_a_server_that_several_use_counts_once(tmp_path: Path) -> None:
    servers: dict[str, int | None] = {"a": 7, "b": 7, "c": 7, "d": 8}
    made = studies(tmp_path, servers)
    assert made["a"].others == [HOLDS]  # that of d: its own it counts itself
    assert made["d"].others == [HOLDS]  # one for the three
    made["a"].close()
    made["b"].close()
    assert made["d"].others == [HOLDS]  # as long as one uses it


def test_who_has_left_a_server_counts_it_as_the_others(tmp_path: Path) -> None:
    servers: dict[str, int | None] = {"a": 7, "b": 7}
    made = studies(tmp_path, servers)
    assert made["a"].others == []
    servers["a"] = None
    made["a"].hold(SERVER, Assignment(0.0, gpu_share=0.0))
    assert made["a"].others == [HOLDS]
    seen: list[Assignment] = []
    made["a"].claim("0", Assignment(1.0), lambda others: seen.extend(others))
    assert seen == [HOLDS]


def test_servers_that_nobody_names_all_count(tmp_path: Path) -> None:
    made = studies(tmp_path, {"a": None, "b": None, "c": None})
    assert made["a"].others == [HOLDS, HOLDS]


def test_what_studies_claim_of_a_device_is_not_foreign(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Where another study started the server, it is no child of this process.
    other = os.getppid()
    device = Device(used_mb=6_900, processes={other: 6_000, 4_000_000: 900})
    monkeypatch.setitem(sys.modules, "pynvml", stand_in([device]))
    monkeypatch.setattr(runtime, "folder", lambda: tmp_path)
    (before,) = find_gpus({})
    (study,) = studies(tmp_path, {"a": other}).values()
    (after,) = find_gpus({})
    assert before.foreign_mb - after.foreign_mb == 6_000
    study.close()
    assert find_gpus({}) == (before,)


def test_what_a_model_holds_of_other_memory_than_trials_use_stays_as_it_was_claimed(
    make_stage: Callable[..., Any], tmp_path: Path
) -> None:
    machine = Machine("a", HOST, folder=tmp_path)
    machine.hold(SERVER, HOLDS)
    make_stage(trials=2).run(inventory=HOST, machine=machine)  # no tenant
    assert machine.entries[0].claims == {SERVER: HOLDS}
