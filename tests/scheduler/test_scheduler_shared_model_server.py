"""A model server that two studies share: how it is counted, and when it is offloaded."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fake_nvml import Device, make_fake_nvml
from fake_server import FakeServer, running

from localhpo import runtime
from localhpo.executor.clock import RealClock
from localhpo.resources import footprint
from localhpo.resources.broker import MODEL_CLAIM, ResourceBroker
from localhpo.resources.inventory import find_gpus
from localhpo.resources.placement import Assignment, Inventory, MemoryNeed
from localhpo.scheduler.loaded_model import ServerModel
from localhpo.scheduler.model_residency import ModelResidency
from localhpo.task import Resources, Sharing

HOST = Inventory(cpus=2, memory_mb=1_000)
RESIDENT = Assignment(0.0, memory_mb=150, gpu_share=0.0)
SMALL, LARGE = MemoryNeed(memory_mb=300), MemoryNeed(memory_mb=900)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with running() as started:
        yield started


def make_residency(server: FakeServer, sharing: Sharing = "auto") -> ModelResidency:
    return ModelResidency(
        ServerModel(server, assignment=RESIDENT, measure=footprint.measure_host_mb),
        resources=Resources(parallel=4, sharing=sharing),
        inventory=HOST,
        clock=RealClock(),
    )


def choose_mode(residency: ModelResidency, need: MemoryNeed) -> str:
    residency.choose_mode([need], trial_s=600.0, propose_s=1.0, results=4)
    return residency.mode


def test_a_shared_server_stays_resident(server: FakeServer) -> None:
    server.shared = True
    for sharing in ("auto", "sleep", "stop"):
        residency = make_residency(server, sharing)
        choose_mode(residency, SMALL)
        assert residency.current_assignment == residency.smallest_assignment_now == RESIDENT
        assert residency.find_offload(SMALL, [], [], is_last=True) is None


def test_a_server_may_be_offloaded_once_other_studies_are_gone(server: FakeServer) -> None:
    server.shared = True
    residency = make_residency(server)
    assert choose_mode(residency, LARGE) == "resident"
    server.shared = False
    assert choose_mode(residency, LARGE) == "sleep"
    assert residency.find_offload(LARGE, [], [], is_last=False) == "sleep"


@pytest.mark.parametrize("sharing", ["auto", "sleep", "stop"])
def test_a_study_leaves_a_shared_server_for_a_trial_that_does_not_fit_beside_it(
    server: FakeServer, sharing: Sharing
) -> None:
    server.shared = True
    residency = make_residency(server, sharing)
    choose_mode(residency, LARGE)
    # The trial is not refused for good: the server can be left.
    assert residency.smallest_assignment.memory_mb < RESIDENT.memory_mb
    assert residency.find_offload(LARGE, [], [], is_last=False) == "stop"
    residency.offload("stop")
    assert residency.take_events()[-1].data["act"] == "leave"  # nothing was freed
    assert not residency.is_ready
    # The trial waits for the other studies.
    assert residency.find_offload(LARGE, [], [RESIDENT], is_last=False) is None


def test_a_study_that_keeps_the_model_resident_never_leaves_it(server: FakeServer) -> None:
    server.shared = True
    residency = make_residency(server, "resident")
    choose_mode(residency, LARGE)
    assert residency.find_offload(LARGE, [], [], is_last=False) is None


# Claims.


def make_brokers(folder: Path, servers: dict[str, int | None]) -> dict[str, ResourceBroker]:
    made = {
        name: ResourceBroker(name, HOST, folder=folder, server_pid=lambda name=name: servers[name])
        for name in servers
    }
    for one in made.values():
        one.update_claim(MODEL_CLAIM, RESIDENT)
    return made


def test_a_shared_server_counts_once(tmp_path: Path) -> None:
    servers: dict[str, int | None] = {"a": 7, "b": 7, "c": 7, "d": 8}
    made = make_brokers(tmp_path, servers)
    assert made["a"].read_other_claims() == [RESIDENT]  # that of d; its own is not another's
    assert made["d"].read_other_claims() == [RESIDENT]  # one for the three
    made["a"].close()
    made["b"].close()
    assert made["d"].read_other_claims() == [RESIDENT]  # as long as one uses it


def test_a_study_that_left_a_server_counts_it_as_others(tmp_path: Path) -> None:
    servers: dict[str, int | None] = {"a": 7, "b": 7}
    made = make_brokers(tmp_path, servers)
    assert made["a"].read_other_claims() == []
    servers["a"] = None
    made["a"].update_claim(MODEL_CLAIM, Assignment(0.0, gpu_share=0.0))
    assert made["a"].read_other_claims() == [RESIDENT]
    seen: list[Assignment] = []
    made["a"].claim("0", Assignment(1.0), lambda others: seen.extend(others))
    assert seen == [RESIDENT]


def test_servers_without_a_process_id_all_count(tmp_path: Path) -> None:
    made = make_brokers(tmp_path, {"a": None, "b": None, "c": None})
    assert made["a"].read_other_claims() == [RESIDENT, RESIDENT]


def test_memory_that_studies_claim_is_not_foreign(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # A server that another study started is no child of this process.
    other = os.getppid()
    device = Device(used_mb=6_900, processes={other: 6_000, 4_000_000: 900})
    monkeypatch.setitem(sys.modules, "pynvml", make_fake_nvml([device]))
    monkeypatch.setattr(runtime, "folder", lambda: tmp_path)
    (before,) = find_gpus({})
    (study,) = make_brokers(tmp_path, {"a": other}).values()
    (after,) = find_gpus({})
    assert before.foreign_mb - after.foreign_mb == 6_000
    study.close()
    assert find_gpus({}) == (before,)


def test_the_claim_of_a_model_in_other_memory_than_trials_use_stays(
    make_bench: Callable[..., Any], tmp_path: Path
) -> None:
    broker = ResourceBroker("a", HOST, folder=tmp_path)
    broker.update_claim(MODEL_CLAIM, RESIDENT)
    make_bench(trials=2).run(inventory=HOST, broker=broker)  # without a loaded model
    assert broker.read_entries()[0].claims == {MODEL_CLAIM: RESIDENT}
