"""Trials on a real Ray cluster: what comes back, what is lost with a node, what is refused."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ray_cluster import RayCluster

from localhpo.errors import ExecutorError, MissingExtraError
from localhpo.executor import Job, Outcome, RayExecutor, Run
from localhpo.executor.ray import executor as limits
from localhpo.task import Resources, Task
from localhpo.trial import Cause, State

ENDLESS = """
import os, subprocess, sys, time
from pathlib import Path
from localhpo.reporter import report
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Path("pids").write_text(f"{os.getpid()} {child.pid}")
Path("raylet").write_text(os.environ["RAY_RAYLET_PID"])
report(loss=0.5)
time.sleep(600)
"""


@pytest.fixture
def executor(ray_cluster: RayCluster) -> Iterator[RayExecutor]:
    made = RayExecutor(ray_cluster.address)
    yield made
    made.close()


@pytest.fixture
def start(
    executor: RayExecutor, make_task: Callable[..., Task], tmp_path: Path
) -> Callable[..., Run]:
    def starter(source: str, resources: Resources = Resources(), **changes: object) -> Run:  # noqa: B008
        (tmp_path / "train.py").write_text(source)
        config = {"learning_rate": 0.001, "depth": 3}
        job = Job(make_task(resources=resources), 0, config, 7, tmp_path / "trial", grace_s=2.0)
        return executor.start(dataclasses.replace(job, **changes))  # type: ignore[arg-type]

    return starter


def finish(run: Run) -> Outcome:
    give_up = time.monotonic() + 240
    while (outcome := run.outcome) is None:
        assert time.monotonic() < give_up, "the trial does not end"
        time.sleep(0.02)
    return outcome


def until_reported(run: Run) -> None:
    give_up = time.monotonic() + 240
    while not run.poll():
        assert time.monotonic() < give_up, "the trial does not report"
        time.sleep(0.02)


@pytest.mark.slow
def test_what_a_trial_leaves_comes_back_and_goes_there_again(
    start: Callable[..., Run], tmp_path: Path
) -> None:
    source = """
import os
from pathlib import Path
from localhpo.reporter import report
folder = Path(os.environ["LOCALHPO_TRIAL_DIR"])
print(folder, os.environ.get("OMP_NUM_THREADS"))
before = folder / "models/epoch-1"
if before.exists():
    report(loss=before.stat().st_size)
    before.unlink()
else:
    before.parent.mkdir()
    before.write_bytes(bytes(5 << 20))
    (folder / "latest").symlink_to("models/epoch-1")
    report(loss=0)
"""
    first = finish(start(source))
    folder = tmp_path / "trial"
    assert (first.state, first.value) == (State.COMPLETE, 0.0)
    assert (folder / "latest").stat().st_size == 5 << 20
    there = Path((folder / "stdout.txt").read_text().split()[0])
    assert there != folder
    assert not there.exists()
    assert (folder / "localhpo/result.json").exists()

    again = finish(start(source, env={"OMP_NUM_THREADS": "3"}))
    assert again.value == 5 << 20
    assert not (folder / "models/epoch-1").exists()
    assert (folder / "stdout.txt").read_text().split()[1:] == ["3"]


@pytest.mark.slow
def test_a_limit_on_memory_holds_on_the_node(start: Callable[..., Run]) -> None:
    run = start("import time\nheld = b'x' * (400 << 20)\ntime.sleep(60)", memory_mb=200.0)
    failure = finish(run).failure
    assert failure is not None
    assert failure.cause is Cause.OUT_OF_MEMORY_HOST
    assert "its limit is 200 MB" in failure.message


@pytest.mark.slow
def test_trial_on_a_lost_node_runs_again_and_leaves_no_files(
    ray_cluster: RayCluster,
    start: Callable[..., Run],
    is_alive: Callable[[int], bool],
    wait_until: Callable[[Callable[[], bool]], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(limits, "RETRIES", 1)
    for state, say in ((State.INTERRUPTED, "it runs again"), (State.FAILED, "the node was lost")):
        run = start(ENDLESS)
        until_reported(run)
        with ray_cluster.one_lost(int((tmp_path / "raylet").read_text())):
            outcome = finish(run)
            assert outcome.state is state
            assert outcome.failure is not None
            assert outcome.failure.cause is Cause.NODE_LOST
            assert say in outcome.failure.message
            pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
            wait_until(lambda: not any(is_alive(pid) for pid in pids))  # noqa: B023


@pytest.mark.slow
def test_a_trial_that_waits_for_a_place_can_be_stopped(start: Callable[..., Run]) -> None:
    run = start("", Resources(cpus=8.0))
    run.stop(State.INTERRUPTED)
    outcome = finish(run)
    assert (outcome.state, outcome.failure) == (State.INTERRUPTED, None)


@pytest.mark.slow
def test_a_folder_that_the_node_lacks_is_an_error_that_says_what_to_do(
    executor: RayExecutor, make_task: Callable[..., Task], tmp_path: Path
) -> None:
    task = make_task(folder=tmp_path / "nowhere")
    run = executor.start(Job(task, 0, {"learning_rate": 0.001}, 7, tmp_path / "trial"))
    with pytest.raises(ExecutorError, match="nowhere, is not on node") as error:
        finish(run)
    assert "[task] cwd" in error.value.hint
    assert finish(run).state is State.INTERRUPTED


@pytest.mark.slow
def test_no_node_to_wait_for_is_an_error(
    start: Callable[..., Run], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "NO_NODE_S", 0.0)
    monkeypatch.setattr(limits, "CHECK_NODES_S", 0.1)
    run = start("", Resources(cpus=8.0))
    with pytest.raises(ExecutorError, match="none of the 4 nodes"):
        finish(run)
    assert finish(run).state is State.INTERRUPTED


@pytest.mark.slow
def test_a_trial_ends_with_its_driver(
    ray_cluster: RayCluster,
    is_alive: Callable[[int], bool],
    wait_until: Callable[[Callable[[], bool]], None],
    tmp_path: Path,
) -> None:
    (tmp_path / "train.py").write_text(ENDLESS)
    (tmp_path / "drive.py").write_text(f"""
import time
from pathlib import Path
from localhpo.objective import Objective
from localhpo.executor import Job, RayExecutor
from localhpo.space import Int, Space
from localhpo.task import Task
space = Space([Int("depth", low=1, high=8)])
task = Task("small", ("python", "train.py"), (Objective("loss", "minimize"),), space, folder=Path())
run = RayExecutor({ray_cluster.address!r}).start(Job(task, 0, {{"depth": 3}}, 7, Path("trial")))
while True:
    run.poll()
    time.sleep(0.05)
""")
    driver = subprocess.Popen([sys.executable, "drive.py"], cwd=tmp_path)
    try:
        wait_until(lambda: (tmp_path / "raylet").exists())
    finally:
        driver.kill()
        driver.wait()
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    wait_until(lambda: not any(is_alive(pid) for pid in pids))


def test_where_no_cluster_answers_the_error_says_how_to_start_one() -> None:
    pytest.importorskip("ray")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(ExecutorError, match=address) as error:
        RayExecutor(address)
    assert "ray start --head" in error.value.hint


@pytest.mark.parametrize("address", ["ray://head:10001", "local", "head"])
def test_an_address_where_no_cluster_can_be_is_refused(address: str) -> None:
    pytest.importorskip("ray")
    with pytest.raises(ExecutorError, match="must be host:port"):
        RayExecutor(address)


def test_without_ray_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError) as error:
        RayExecutor()
    assert "localhpo[ray]" in error.value.hint


@pytest.mark.slow
def test_another_version_of_ray_is_refused(
    ray_cluster: RayCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.setattr(ray, "__version__", "2.0.0")
    with pytest.raises(ExecutorError, match=r"other versions: .*2\.0\.0") as error:
        RayExecutor(ray_cluster.address)
    assert "the same Ray" in error.value.hint


@pytest.mark.slow
def test_joining_leaves_the_signals_of_the_process_alone(ray_cluster: RayCluster) -> None:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = [signal.getsignal(number) for number in numbers]
    executor = RayExecutor(ray_cluster.address)
    try:
        assert [signal.getsignal(number) for number in numbers] == before
        assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    finally:
        executor.close()
