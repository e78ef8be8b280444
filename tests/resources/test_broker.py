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
from localhpo.resources import placement
from localhpo.resources.broker import MODEL_CLAIM, ResourceBroker
from localhpo.resources.placement import Assignment, Gpu, Inventory, MachinePartition
from localhpo.task import Resources

TWO = Inventory(cpus=2)
ONE_CPU = Assignment(cpus=1.0)
MakeBroker = Callable[..., ResourceBroker]


def claim(broker: ResourceBroker, number: int, held: int = 0) -> bool:
    """Claim one CPU, `held` of this study's own beside the others'."""

    def take(others: Sequence[Assignment]) -> Assignment | None:
        return placement.place_trial(Resources(parallel=9), TWO, [ONE_CPU] * held, others=others)

    return broker.claim(str(number), ONE_CPU, take) is not None


def test_two_studies_never_hold_more_than_there_is(make_broker: MakeBroker) -> None:
    a, b = make_broker("a"), make_broker("b")
    assert claim(a, 0) and claim(b, 0)
    assert not claim(a, 1, held=1) and not claim(b, 1, held=1)
    b.release("0")
    assert claim(a, 1, held=1)


def test_the_study_that_used_least_goes_first(make_broker: MakeBroker, times: list[float]) -> None:
    a, b = make_broker("a"), make_broker("b")
    assert claim(a, 0) and claim(a, 1, held=1)
    assert not claim(b, 0)  # it waits from now on
    times[0] += 5
    a.release("0")
    assert not claim(a, 2, held=1)  # it gives way
    assert claim(b, 0)
    a.release("1")
    assert claim(a, 2)


def test_priority_divides_use(make_broker: MakeBroker, times: list[float]) -> None:
    a, b = make_broker("a", priority=4.0), make_broker("b")
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
@pytest.mark.parametrize("waits", [MODEL_CLAIM, "0"])
def test_no_study_yields_where_a_model_holds_the_memory(
    make_broker: MakeBroker, times: list[float], server_mb: float, gives_way: bool, waits: str
) -> None:
    """Two studies would wait for each other: a model is not unloaded while its study waits."""

    def server(mb: float) -> Assignment:
        return Assignment(0.0, gpus=("0",), gpu_share=0.0, gpu_memory_mb=mb)

    request = server(16_000) if waits == MODEL_CLAIM else Assignment(1.0, 0.0, ("0",), 1.0, 16_000)
    gpu = Inventory(cpus=2, gpus=(Gpu("0", memory_mb=24_000),))
    a, b = make_broker("a", gpu), make_broker("b", gpu)
    assert a.claim(MODEL_CLAIM, server(server_mb), lambda _: server(server_mb))
    assert claim(a, 0)
    assert b.claim(waits, request, lambda _: None) is None  # it waits from now on
    times[0] += 70
    a.release("0")
    assert b.claim(waits, request, lambda _: None) is None
    assert claim(a, 1) is not gives_way


def test_a_new_study_starts_level(make_broker: MakeBroker, times: list[float]) -> None:
    a = make_broker("a")
    assert claim(a, 0)
    times[0] += 3_600
    b = make_broker("b")
    assert claim(b, 0)
    times[0] += 1
    a.release("0")
    assert not claim(b, 1, held=2)
    assert claim(a, 1)  # b has used more than a since it came: a need not wait for an hour


def test_a_study_that_stopped_asking_keeps_nobody_waiting(
    make_broker: MakeBroker, times: list[float]
) -> None:
    a, b = make_broker("a"), make_broker("b")
    assert claim(a, 0) and claim(a, 1, held=1) and not claim(b, 0)
    times[0] += 60
    a.release("0")
    assert claim(a, 2, held=1)


def test_a_closed_study_holds_nothing(make_broker: MakeBroker) -> None:
    a, b = make_broker("a"), make_broker("b")
    assert claim(a, 0)
    assert [other.cpus for other in b.read_other_claims()] == [1.0]
    a.close()
    a.close()
    assert b.read_other_claims() == []


def test_claims_of_other_studies_models_can_be_read(tmp_path: Path) -> None:
    one, other = (ResourceBroker(name, TWO, folder=tmp_path) for name in ("one", "other"))
    server = Assignment(0.0, gpus=("0",), gpu_share=0.0, gpu_memory_mb=8_000)
    other.update_claim(MODEL_CLAIM, server)
    other.update_claim("0", Assignment(1.0, gpus=("0",), gpu_memory_mb=2_000))
    assert one.read_model_claims() == [server]
    assert other.read_model_claims() == []


def test_claims_of_a_dead_process_are_dropped(make_broker: MakeBroker, tmp_path: Path) -> None:
    code = """
        import sys
        from pathlib import Path
        from localhpo.resources.broker import ResourceBroker
        from localhpo.resources.placement import Assignment, Inventory
        broker = ResourceBroker("dead", Inventory(cpus=2), folder=Path(sys.argv[1]))
        broker.claim("0", Assignment(cpus=2.0), lambda others: Assignment(cpus=2.0))
        print("held", flush=True)
        sys.stdin.read()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path / "m")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        broker = make_broker("alive")
        assert not claim(broker, 0)
        process.kill()
        process.wait()
        assert claim(broker, 0)


def test_a_reused_process_id_is_another_process(make_broker: MakeBroker, tmp_path: Path) -> None:
    make_broker("a")
    path = tmp_path / "m" / "machine.json"
    (row,) = json.loads(path.read_text())
    path.write_text(json.dumps([{**row, "study": "old", "started": row["started"] - 100}]))
    assert [entry.study for entry in make_broker("b").read_entries()] == ["b"]


def test_setting_the_clock_drops_no_claims(
    make_broker: MakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    a = make_broker("a")
    assert claim(a, 0)
    create_time = psutil.Process.create_time  # depends on the system clock
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: create_time(self) + 3_600)
    assert [other.cpus for other in make_broker("b").read_other_claims()] == [1.0]


def test_a_file_that_vanishes_is_written_again(make_broker: MakeBroker, tmp_path: Path) -> None:
    a, b = make_broker("a", priority=2.0), make_broker("b")
    assert claim(a, 0)
    shutil.rmtree(tmp_path / "m")
    assert claim(b, 0)
    assert claim(a, 1, held=1) is False
    (entry,) = [entry for entry in b.read_entries() if entry.study == "a"]
    assert (entry.priority, list(entry.claims)) == (2.0, ["0"])  # written again


def test_an_unusable_folder_is_an_error_with_a_hint(
    make_broker: MakeBroker, tmp_path: Path
) -> None:
    a = make_broker("a")
    shutil.rmtree(tmp_path / "m")
    (tmp_path / "m").write_text("")
    with pytest.raises(LocalHPOError, match="cannot be used") as caught:
        claim(a, 0)
    assert "XDG_RUNTIME_DIR" in caught.value.hint


# Jobs of one user on partitions of one node.


def partition(processors: Sequence[int], cgroup: str, limited: str = "") -> Inventory:
    return Inventory(
        len(processors), 1_000, partition=MachinePartition(tuple(processors), cgroup, limited)
    )


LEFT, RIGHT = partition((0, 1), "/job1/step", "/job1"), partition((2, 3), "/job2/step", "/job2")
FULL = Assignment(cpus=2.0, memory_mb=1_000)


@pytest.mark.parametrize(
    ("mine", "theirs", "seen"),
    [
        (LEFT, RIGHT, (0.0, 0.0)),
        (LEFT, partition((1, 2), "/job1/other"), (2.0, 1_000)),
        (LEFT, partition((2, 3), "/job1"), (0.0, 1_000)),
        (LEFT, partition((0, 1), "/job10", "/job10"), (2.0, 0.0)),
        (partition((0, 1), "/user"), RIGHT, (0.0, 1_000)),  # without a limit all memory is shared
        (LEFT, TWO, (2.0, 1_000)),  # partition not known
        (TWO, LEFT, (2.0, 1_000)),
    ],
)
def test_claims_count_where_partitions_overlap(
    make_broker: MakeBroker, mine: Inventory, theirs: Inventory, seen: tuple[float, float]
) -> None:
    a, b = make_broker("a", mine), make_broker("b", theirs)
    b.claim("0", FULL, lambda others: FULL)
    assert [(other.cpus, other.memory_mb) for other in a.read_other_claims()] == [seen]


def test_programs_of_version_0_1_can_read_the_file(make_broker: MakeBroker, tmp_path: Path) -> None:
    claim(make_broker("a"), 0)
    (row,) = json.loads((tmp_path / "m" / "machine.json").read_text())
    assert row.keys() == {
        "pid", "started", "study", "priority", "used_s", "claims", "since", "wish", "waits_since",
        "seen", "server", "part", "by_hand",
    }  # fmt: skip


def test_jobs_that_share_nothing_take_no_turns(make_broker: MakeBroker, times: list[float]) -> None:
    a, b = make_broker("a", LEFT), make_broker("b", RIGHT)
    assert a.claim("0", ONE_CPU, lambda others: ONE_CPU)
    assert b.claim("0", ONE_CPU, lambda others: None) is None  # it waits, and has used less...
    times[0] += 5
    assert a.claim("1", ONE_CPU, lambda others: ONE_CPU)  # ...but needs nothing of this


def test_an_entry_without_a_partition_counts(make_broker: MakeBroker, tmp_path: Path) -> None:
    a, b = make_broker("a", LEFT), make_broker("b", RIGHT)
    b.claim("0", FULL, lambda others: FULL)
    path = tmp_path / "m" / "machine.json"
    rows = json.loads(path.read_text())
    path.write_text(json.dumps([{k: v for k, v in row.items() if k != "part"} for row in rows]))
    assert a.read_other_claims() == [FULL]


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
    from localhpo.resources.inventory import count_cpus

    return float(count_cpus())


@pytest.mark.slow
def test_two_runs_share_the_cpus(start_study: Any, tmp_path: Path) -> None:
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
def test_claims_of_a_killed_run_are_freed(start_study: Any, tmp_path: Path) -> None:
    with start_study("a", trials=1, cpus=all_cpus(), seconds=600.0) as first:
        while ("a", "+") not in log_of(tmp_path):
            assert first.poll() is None
            time.sleep(0.05)
        with start_study("b", trials=1, cpus=all_cpus(), seconds=0.0) as second:
            path = runtime.folder() / "machine.json"
            while not any(row["wish"] for row in json.loads(path.read_text())):
                assert second.poll() is None
                time.sleep(0.05)
            assert ("b", "+") not in log_of(tmp_path)
            first.kill()
            assert second.wait(timeout=60) == 0
    assert ("b", "-") in log_of(tmp_path)
