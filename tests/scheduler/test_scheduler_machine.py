"""Studies that share a machine: claims, turns, and two real runs at once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from localhpo import runtime
from localhpo.errors import LocalHPOError
from localhpo.scheduler import placement
from localhpo.scheduler.machine import SERVER, Machine
from localhpo.scheduler.placement import Assignment, Gpu, Inventory, Part
from localhpo.task import Resources

TWO = Inventory(cpus=2)
ONE_CPU = Assignment(cpus=1.0)
MakeMachine = Callable[..., Machine]


def claim(machine: Machine, number: int, held: int = 0) -> bool:
    """Claim one CPU, `held` of this study's own beside the others'."""

    def take(others: Sequence[Assignment]) -> Assignment | None:
        return placement.place(Resources(parallel=9), TWO, [ONE_CPU] * held, others=others)

    return machine.claim(str(number), ONE_CPU, take) is not None


def test_two_studies_never_hold_more_than_there_is(make_machine: MakeMachine) -> None:
    a, b = make_machine("a"), make_machine("b")
    assert claim(a, 0) and claim(b, 0)
    assert not claim(a, 1, held=1) and not claim(b, 1, held=1)
    b.release("0")
    assert claim(a, 1, held=1)


def test_turns_go_to_whoever_used_the_least(make_machine: MakeMachine, times: list[float]) -> None:
    a, b = make_machine("a"), make_machine("b")
    assert claim(a, 0) and claim(a, 1, held=1)
    assert not claim(b, 0)  # it waits from now on
    times[0] += 5
    a.release("0")
    assert not claim(a, 2, held=1)  # gives way
    assert claim(b, 0)
    a.release("1")
    assert claim(a, 2)


def test_priority_counts_use_for_less(make_machine: MakeMachine, times: list[float]) -> None:
    a, b = make_machine("a", priority=4.0), make_machine("b")
    assert claim(a, 0) and claim(b, 0)
    times[0] += 4
    a.release("0")
    assert not claim(b, 1, held=2)
    assert claim(a, 1)  # as much use, a quarter of the charge
    times[0] += 1
    assert not claim(a, 2, held=1)
    b.release("0")
    assert claim(a, 2, held=1)


@pytest.mark.parametrize(("server_mb", "gives_way"), [(8_000, True), (16_000, False)])
@pytest.mark.parametrize("waits", [SERVER, "0"])
def test_nobody_gives_way_where_a_server_has_the_room(
    make_machine: MakeMachine, times: list[float], server_mb: float, gives_way: bool, waits: str
) -> None:
    """Who did would wait for one that waits for him: his server holds on while he waits."""

    def server(mb: float) -> Assignment:
        return Assignment(0.0, gpus=("0",), gpu_share=0.0, gpu_memory_mb=mb)

    wish = server(16_000) if waits == SERVER else Assignment(1.0, 0.0, ("0",), 1.0, 16_000)
    gpu = Inventory(cpus=2, gpus=(Gpu("0", memory_mb=24_000),))
    a, b = make_machine("a", gpu), make_machine("b", gpu)
    assert a.claim(SERVER, server(server_mb), lambda _: server(server_mb))
    assert claim(a, 0)
    assert b.claim(waits, wish, lambda _: None) is None  # it waits from now on
    times[0] += 70
    a.release("0")
    assert b.claim(waits, wish, lambda _: None) is None
    assert claim(a, 1) is not gives_way


def test_a_newcomer_begins_level(make_machine: MakeMachine, times: list[float]) -> None:
    a = make_machine("a")
    assert claim(a, 0)
    times[0] += 3_600
    b = make_machine("b")
    assert claim(b, 0)
    times[0] += 1
    a.release("0")
    assert not claim(b, 1, held=2)
    assert claim(a, 1)  # b has used more than a since it came: a need not wait for an hour


def test_one_that_stopped_asking_keeps_nobody_waiting(
    make_machine: MakeMachine, times: list[float]
) -> None:
    a, b = make_machine("a"), make_machine("b")
    assert claim(a, 0) and claim(a, 1, held=1) and not claim(b, 0)
    times[0] += 60
    a.release("0")
    assert claim(a, 2, held=1)


def test_a_closed_study_holds_nothing(make_machine: MakeMachine) -> None:
    a, b = make_machine("a"), make_machine("b")
    assert claim(a, 0)
    assert [other.cpus for other in b.others] == [1.0]
    a.close()
    a.close()
    assert b.others == []


def test_claims_of_a_dead_process_are_dropped(make_machine: MakeMachine, tmp_path: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from localhpo.scheduler.machine import Machine
        from localhpo.scheduler.placement import Assignment, Inventory
        machine = Machine("dead", Inventory(cpus=2), folder=Path(sys.argv[1]))
        machine.claim("0", Assignment(cpus=2.0), lambda others: Assignment(cpus=2.0))
        print("held", flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "m")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        machine = make_machine("alive")
        assert not claim(machine, 0)
        process.kill()
        process.wait()
        assert claim(machine, 0)


def test_an_id_that_came_again_is_another_process(
    make_machine: MakeMachine, tmp_path: Path
) -> None:
    make_machine("a")
    path = tmp_path / "m" / "machine.json"
    (row,) = json.loads(path.read_text())
    path.write_text(json.dumps([{**row, "study": "old", "started": row["started"] - 100}]))
    assert [entry.study for entry in make_machine("b").entries] == ["b"]


def test_a_clock_that_is_set_ends_no_study(
    make_machine: MakeMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = make_machine("a")
    assert claim(a, 0)
    create_time = psutil.Process.create_time  # derived from the clock that was set
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: create_time(self) + 3_600)
    assert [other.cpus for other in make_machine("b").others] == [1.0]


def test_a_ledger_that_vanishes_is_made_again(make_machine: MakeMachine, tmp_path: Path) -> None:
    a, b = make_machine("a", priority=2.0), make_machine("b")
    assert claim(a, 0)
    shutil.rmtree(tmp_path / "m")
    assert claim(b, 0)
    assert claim(a, 1, held=1) is False
    (entry,) = [entry for entry in b.entries if entry.study == "a"]
    assert (entry.priority, list(entry.claims)) == (2.0, ["0"])  # it is told again


def test_a_ledger_that_cannot_be_used_is_an_error_with_a_hint(
    make_machine: MakeMachine, tmp_path: Path
) -> None:
    a = make_machine("a")
    shutil.rmtree(tmp_path / "m")
    (tmp_path / "m").write_text("")
    with pytest.raises(LocalHPOError, match="cannot be used") as caught:
        claim(a, 0)
    assert "XDG_RUNTIME_DIR" in caught.value.hint


# Jobs of one user on parts of one node.


def part(processors: Sequence[int], cgroup: str, limited: str = "") -> Inventory:
    return Inventory(len(processors), 1_000, part=Part(tuple(processors), cgroup, limited))


LEFT, RIGHT = part((0, 1), "/job1/step", "/job1"), part((2, 3), "/job2/step", "/job2")
FULL = Assignment(cpus=2.0, memory_mb=1_000)


@pytest.mark.parametrize(
    ("mine", "theirs", "seen"),
    [
        (LEFT, RIGHT, (0.0, 0.0)),
        (LEFT, part((1, 2), "/job1/other"), (2.0, 1_000)),
        (LEFT, part((2, 3), "/job1"), (0.0, 1_000)),
        (LEFT, part((0, 1), "/job10", "/job10"), (2.0, 0.0)),
        (part((0, 1), "/user"), RIGHT, (0.0, 1_000)),  # of a machine without limits all take
        (LEFT, TWO, (2.0, 1_000)),  # it does not say
        (TWO, LEFT, (2.0, 1_000)),
    ],
)
def test_others_count_where_they_share_a_part_of_the_machine(
    make_machine: MakeMachine, mine: Inventory, theirs: Inventory, seen: tuple[float, float]
) -> None:
    a, b = make_machine("a", mine), make_machine("b", theirs)
    b.claim("0", FULL, lambda others: FULL)
    assert [(other.cpus, other.memory_mb) for other in a.others] == [seen]


def test_jobs_that_share_nothing_take_no_turns(
    make_machine: MakeMachine, times: list[float]
) -> None:
    a, b = make_machine("a", LEFT), make_machine("b", RIGHT)
    assert a.claim("0", ONE_CPU, lambda others: ONE_CPU)
    assert b.claim("0", ONE_CPU, lambda others: None) is None  # it waits, has used less...
    times[0] += 5
    assert a.claim("1", ONE_CPU, lambda others: ONE_CPU)  # ...and nothing of this would help it


def test_an_entry_that_names_no_part_counts(make_machine: MakeMachine, tmp_path: Path) -> None:
    a, b = make_machine("a", LEFT), make_machine("b", RIGHT)
    b.claim("0", FULL, lambda others: FULL)
    path = tmp_path / "m" / "machine.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([{k: v for k, v in row.items() if k != "part"} for row in rows]))
    assert a.others == [FULL]


# Two real runs.

TASK = """
[task]
name = "{name}"
command = ["python", "train.py"]
metric = "score"
direction = "maximize"
[space]
x = {{ type = "float", low = 0.0, high = 1.0 }}
[budget]
trials = {trials}
[resources]
parallel = 2
cpus = {cpus}
[creator]
name = "random"
"""

TRAIN = """
import os, sys, time
from localhpo.reporter import report
with open({log!r}, "a") as log:
    log.write(f"{{os.environ['NAME']}} + {{time.monotonic()}}\\n")
time.sleep({seconds})
report(step=0, score=float(sys.argv[2]))
with open({log!r}, "a") as log:
    log.write(f"{{os.environ['NAME']}} - {{time.monotonic()}}\\n")
"""


@pytest.fixture
def start_study(tmp_path: Path) -> Callable[..., subprocess.Popen[bytes]]:
    """Start `localhpo run` on a study of its own home; all log into one file."""

    def start(name: str, *, trials: int, cpus: float, seconds: float) -> subprocess.Popen[bytes]:
        import os

        folder = tmp_path / name
        folder.mkdir()
        (folder / "task.toml").write_text(TASK.format(name=name, trials=trials, cpus=cpus))
        script = TRAIN.format(log=str(tmp_path / "log"), seconds=seconds)
        (folder / "train.py").write_text(script)
        env = {**os.environ, "LOCALHPO_HOME": str(folder / "home"), "NAME": name}
        command = [sys.executable, "-m", "localhpo", "run", str(folder / "task.toml"), "--quiet"]
        return subprocess.Popen(command, env=env, cwd=folder, stdout=subprocess.DEVNULL)

    return start


def log_of(tmp_path: Path) -> list[tuple[str, str]]:
    path = tmp_path / "log"
    lines = path.read_text().splitlines() if path.exists() else []
    rows = sorted((float(line.split()[2]), *line.split()[:2]) for line in lines)
    return [(name, what) for _, name, what in rows]


def all_cpus() -> float:
    from localhpo.scheduler.devices import count_cpus

    return float(count_cpus())


@pytest.mark.slow
def test_two_runs_share_the_cpus_and_both_go_on(start_study: Any, tmp_path: Path) -> None:
    half = all_cpus() / 2
    studies = [start_study(name, trials=5, cpus=half, seconds=1.0) for name in ("a", "b")]
    assert [study.wait(timeout=120) for study in studies] == [0, 0]
    log = log_of(tmp_path)
    assert [log.count((name, "-")) for name in ("a", "b")] == [5, 5]
    at_once = most = 0
    for _, what in log:
        at_once += 1 if what == "+" else -1
        most = max(most, at_once)
    assert most == 2  # halves of the machine
    first_end = min(i for i, _ in enumerate(log) if log[: i + 1].count((log[i][0], "-")) == 5)
    assert {name for name, _ in log[:first_end]} == {"a", "b"}


@pytest.mark.slow
def test_a_killed_run_frees_its_claims(start_study: Any, tmp_path: Path) -> None:
    with start_study("a", trials=1, cpus=all_cpus(), seconds=600.0) as first:
        while ("a", "+") not in log_of(tmp_path):
            assert first.poll() is None
            time.sleep(0.05)
        with start_study("b", trials=1, cpus=all_cpus(), seconds=0.0) as second:
            ledger = runtime.folder() / "machine.json"
            while not any(row["wish"] for row in json.loads(ledger.read_text())):
                assert second.poll() is None
                time.sleep(0.05)
            assert ("b", "+") not in log_of(tmp_path)
            first.kill()
            assert second.wait(timeout=60) == 0
    assert ("b", "-") in log_of(tmp_path)
