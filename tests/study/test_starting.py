"""Room for a server, claimed before it starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from resting_server import RestingServer

from localhpo.errors import InputError
from localhpo.executor.process import ProcessExecutor
from localhpo.llm.hosting import Wanted
from localhpo.llm.vllm import Settings
from localhpo.scheduler.machine import SERVER, Machine
from localhpo.scheduler.placement import Assignment, Gpu, Inventory
from localhpo.space import Float, Space
from localhpo.study import Study, proposing
from localhpo.study import study as studies
from localhpo.study.starting import Room
from localhpo.task import Budget, Resources, Task

MB = 2**20
GPUS = Inventory(cpus=9, gpus=(Gpu("0", "", 24_000, 4_000), Gpu("1", memory_mb=24_000)))
TASK = Task("task", (), "loss", "minimize", Space([Float("x", 0.0, 1.0)]))


@pytest.fixture
def server() -> RestingServer:
    """One that asks for 10 GB of a device; it is never started."""
    made = RestingServer()
    made.on_cpu = False
    made.need_bytes = 10_000 * MB
    return made


@pytest.fixture
def machine(tmp_path: Path) -> Callable[..., Machine]:
    return lambda name, inventory=GPUS: Machine(name, inventory, folder=tmp_path)


Make = Callable[..., Machine]


def on(gpu: str, mb: float, share: float = 0.0) -> Assignment:
    return Assignment(1.0 if share else 0.0, gpus=(gpu,), gpu_share=share, gpu_memory_mb=mb)


def test_it_is_claimed_on_the_device_with_most_room(server: Any, machine: Make) -> None:
    one, other = machine("one"), machine("other")
    room = Room(GPUS, one)
    assert room.find(server.wanted) == ("1",)
    assert one.entries[1].claims == {SERVER: on("1", 10_000)}
    assert other.others == [on("1", 10_000)]
    assert Room(GPUS, other).find(server.wanted) == ("0",)  # 20 GB are left there, 14 here
    assert Room(GPUS, machine("third")).find(server.wanted) == ("1",)
    assert Room(GPUS, machine("fourth")).find(server.wanted) == ("0",)
    assert Room(GPUS, machine("fifth")).find(server.wanted) is None
    one.close()
    assert Room(GPUS, machine("sixth")).find(server.wanted) == ("1",)


def test_trials_give_way_to_a_server_that_waits_for_them(server: Any, machine: Make) -> None:
    busy, waiting = machine("busy"), machine("waiting")
    for number, gpu in enumerate(("0", "1")):
        busy.claim(str(number), on(gpu, 18_000, 1.0), lambda others, gpu=gpu: on(gpu, 18_000, 1.0))
    room = Room(GPUS, waiting)
    assert room.find(server.wanted) is None
    assert busy.claim("2", on("0", 1.0, 0.1), lambda others: on("0", 1.0, 0.1)) is None
    busy.release("1")
    assert room.find(server.wanted) == ("1",)


def test_nobody_gives_way_where_servers_are_what_takes_the_room(server: Any, machine: Make) -> None:
    busy, waiting = machine("busy"), machine("waiting")
    busy.hold(SERVER, on("0", 15_000))
    busy.hold("0", on("1", 20_000, 1.0))
    third = machine("third")
    third.hold(SERVER, on("1", 15_000))
    room = Room(GPUS, waiting)
    assert room.find(server.wanted) is None
    assert busy.claim("2", on("0", 1.0, 0.1), lambda others: on("0", 1.0, 0.1)) is not None
    third.hold(SERVER, on("1", 500))  # it sleeps: the end of the trial would make room
    assert room.find(server.wanted) is None
    assert busy.claim("3", on("0", 1.0, 0.1), lambda others: on("0", 1.0, 0.1)) is None


def test_it_waits_for_the_device_that_trials_can_leave(server: Any, machine: Make) -> None:
    busy, waiting, third = machine("busy"), machine("waiting"), machine("third")
    busy.hold("0", on("0", 18_000, 1.0))
    third.hold(SERVER, on("1", 15_000))  # of the device with most room
    assert Room(GPUS, waiting).find(server.wanted) is None
    (wish,) = [entry.wish for entry in busy.entries if entry.study == "waiting"]
    assert wish == on("0", 10_000)
    assert busy.claim("1", on("0", 1.0, 0.1), lambda others: on("0", 1.0, 0.1)) is None


def test_a_server_that_asks_for_more_than_there_is_gets_a_device_for_itself(
    server: Any, machine: Make
) -> None:
    server.need_bytes = 99_000 * MB
    one = machine("one")
    assert Room(GPUS, one).find(server.wanted) == ("1",)
    assert one.entries[0].claims[SERVER].gpu_memory_mb == 24_000


def test_devices_and_share_that_were_chosen_are_claimed(server: Any, machine: Make) -> None:
    server.settings = Settings(gpus=("0", "1"), gpu_share=0.5)
    one = machine("one")
    assert Room(GPUS, one).find(server.wanted) == ("0", "1")
    assert one.entries[0].claims[SERVER].gpu_memory_mb == 12_000
    server.settings = Settings(gpus=("7",))
    assert Room(GPUS, machine("two")).find(server.wanted) == ()


def test_a_model_that_is_split_gets_the_devices_with_most_room(server: Any, machine: Make) -> None:
    gpus = Inventory(cpus=9, gpus=(*GPUS.gpus, Gpu("2", memory_mb=24_000)))
    server.settings = Settings(split=2)
    one, other = machine("one", gpus), machine("other", gpus)
    assert Room(gpus, one).find(server.wanted) == ("1", "2")
    claim = one.entries[-1].claims[SERVER]
    assert (claim.gpus, claim.gpu_memory_mb) == (("1", "2"), 10_000)  # of each
    busy = machine("busy", gpus)
    busy.hold("0", on("1", 12_000, 1.0))
    assert Room(gpus, other).find(server.wanted) == ("0", "2")


def test_a_model_is_not_split_over_more_devices_than_there_are(server: Any, machine: Make) -> None:
    server.settings = Settings(split=64)
    one = machine("one")
    for ledger in (one, None):
        with pytest.raises(InputError, match="GPUs that the model may use here, 2; got 64"):
            Room(GPUS, ledger).find(server.wanted)
    assert not one.entries[0].claims
    nowhere = Inventory(cpus=2)  # as far as is known
    assert Room(nowhere, machine("two", nowhere)).find(server.wanted) == ()


@pytest.mark.parametrize("by_hand", [False, True])
def test_a_study_whose_model_takes_more_devices_than_there_are_ends_with_an_input_error(
    by_hand: bool,
    make_task: Any,
    tmp_path: Path,
    home: Path,
    server: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setattr(proposing, "find_inventory", lambda: GPUS)
    monkeypatch.setattr(studies, "find_place", lambda task, executor: (ProcessExecutor(), GPUS))
    server.settings = Settings(split=64)
    (tmp_path / "train.py").touch()

    def open_with_server(*given: Any, host: Any) -> Any:
        assert host.find_room(server.wanted) is not None
        raise AssertionError("it was let go ahead")

    monkeypatch.setattr(proposing, "open_remembering", open_with_server)
    study = Study.open(make_task(budget=Budget(trials=1)), home=home)
    with study, pytest.raises(InputError, match="got 64"):
        study.ask() if by_hand else study.run()
    assert server.pid is None


@pytest.mark.parametrize("ids", [("GPU-7f00-0", "GPU-7f00-1"), ("0", "1")])
def test_a_model_in_this_process_gets_one_of_the_devices_that_it_sees(
    ids: Sequence[str], machine: Make
) -> None:
    gpus = Inventory(cpus=9, gpus=tuple(Gpu(id, memory_mb=24_000) for id in ids))
    one, other = machine("one", gpus), machine("other", gpus)
    wanted = Wanted(20_000 * MB, among=("7f00-0", "7f00-1"))
    assert Room(gpus, one).find(wanted) == ("7f00-0",)
    assert one.entries[-1].claims[SERVER] == on(ids[0], 20_000)
    assert Room(gpus, other).find(wanted) == ("7f00-1",)
    third = machine("third", gpus)
    assert Room(gpus, third).find(wanted) is None
    assert Room(gpus, third).find(Wanted(1_000 * MB, among=("7f00-0",))) == ("7f00-0",)
    nowhere = Inventory(cpus=9)
    assert Room(nowhere, third).find(wanted) == ()


def test_a_server_on_cpus_claims_memory_of_the_host(server: Any, machine: Make) -> None:
    server.on_cpu = True
    host = Inventory(cpus=2, memory_mb=16_000)
    assert Room(host, machine("one", host)).find(server.wanted) == ()
    assert Room(host, machine("two", host)).find(server.wanted) is None


def test_where_nobody_keeps_a_ledger_or_knows_the_devices_nothing_is_claimed(
    server: Any, machine: Make
) -> None:
    assert Room(GPUS, None).find(server.wanted) == ()
    one = machine("one")
    assert Room(Inventory(cpus=2), one).find(server.wanted) == ()
    assert one.entries[0].claims == {}


class Watcher:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def on_event(self, event: Any) -> None:
        self.heard.append(f"{event.kind}: {event.message}")

    def on_change(self, snapshot: Any) -> None:
        pass


def test_a_study_asks_the_ledger_before_its_server_starts_and_says_what_it_waits_for(
    make_task: Any, tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    (tmp_path / "run").mkdir(mode=0o700)
    report = "from localhpo.reporter import report\nreport(step=0, loss=0.5)\n"
    (tmp_path / "train.py").write_text(report)
    host = Inventory(cpus=2, memory_mb=4_000)
    monkeypatch.setattr(studies, "find_place", lambda task, executor: (place(task, executor), host))
    place = lambda task, executor: real(task, executor)[0]  # noqa: E731
    from localhpo.study.place import find_place as real

    other = Machine("other/main", host)
    other.hold(SERVER, Assignment(0.0, memory_mb=3_950, gpu_share=0.0))
    server = RestingServer()
    seen: list[Any] = []

    def open_with_server(store: Any, key: str, task: Task, *, host: Any) -> Any:
        made = opened(store, key, replace(task, creator=replace(task.creator, name="random")))
        assert host.find_room(server.wanted) is None
        host.say("waits for room")
        other.close()
        assert host.find_room(server.wanted) == ()
        seen.extend(entry.claims[SERVER].memory_mb for entry in other.entries)
        server.start()
        made.server = server  # type: ignore[attr-defined]
        made.close = server.stop  # type: ignore[method-assign]
        return made

    opened = proposing.open_remembering
    monkeypatch.setattr(proposing, "open_remembering", open_with_server)
    watcher = Watcher()
    task = make_task(budget=Budget(trials=1), resources=Resources(sharing="resident"))
    with Study.open(task, home=home) as study:
        study.run(observers=[watcher])
        recorded = [f"{event.kind}: {event.message}" for event in study.events]
    assert seen == [pytest.approx(server.need_bytes / MB)]
    assert watcher.heard[0] == "note: waits for room"
    assert recorded.count("note: waits for room") == 1
    assert server.pid is None
    assert other.entries == []
