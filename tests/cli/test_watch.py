"""`localhpo watch` on a study that another process runs."""

import json
import signal
import subprocess
import sys
import time

import pytest

SCRIPT = """
import sys, time
from pathlib import Path
from localhpo import report
while not Path("go").exists():
    time.sleep(0.05)
report(val_loss=float(sys.argv[2]))
"""
TASK = """
[task]
name = "tiny"
command = ["python", "train.py"]
metric = "val_loss"
direction = "minimize"

[space]
lr = { type = "float", low = 1e-3, high = 1.0, log = true }

[budget]
trials = 2

[creator]
name = "random"
"""


@pytest.fixture
def start(tmp_path):
    (tmp_path / "train.py").write_text(SCRIPT)
    (tmp_path / "task.toml").write_text(TASK)
    processes = []

    def begin(*arguments):
        command = [sys.executable, "-m", "localhpo", *arguments]
        pipe = subprocess.PIPE
        processes.append(
            subprocess.Popen(command, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True)
        )
        return processes[-1]

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture
def run(start, home):
    """A `run` whose first trial waits."""
    process = start("run", "task.toml")
    deadline = time.monotonic() + 60
    while not list(home.glob("studies/*/*/trials/0/*")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_it_ends_with_the_study_and_shows_its_summary(start, run, tmp_path):
    watch = start("watch")
    first = watch.stderr.readline()  # it has begun to watch
    assert "begun" in first
    assert watch.poll() is None
    (tmp_path / "go").touch()
    out, err = watch.communicate(timeout=60)
    assert watch.returncode == 0, err
    assert out.startswith("tiny/main   2 of 2 trials: 2 complete")
    assert "trials" in out
    assert "trial 1" in err
    assert run.wait(timeout=60) == 0


def test_an_interrupt_stops_only_the_watching(start, run, tmp_path):
    watch = start("watch", "task.toml")
    assert "trial 0 proposed" in "".join(watch.stderr.readline() for _ in range(2))
    watch.send_signal(signal.SIGINT)
    out, err = watch.communicate(timeout=60)
    assert watch.returncode == 0
    assert "stopped watching; tiny/main continues" in err
    assert out.startswith("tiny/main   0 of 2 trials")
    (tmp_path / "go").touch()
    assert run.wait(timeout=60) == 0


def test_its_summary_may_be_json(start, run, tmp_path):
    watch = start("watch", "--json")
    (tmp_path / "go").touch()
    out, err = watch.communicate(timeout=60)
    assert watch.returncode == 0, err
    record = json.loads(out)
    assert (record["study"], len(record["trials"])) == ("tiny/main", 2)
    assert run.wait(timeout=60) == 0


def test_a_study_that_does_not_run_is_summarized_at_once(start, tmp_path):
    (tmp_path / "go").touch()
    start("run", "task.toml").communicate(timeout=60)
    out, err = start("watch").communicate(timeout=60)
    assert out.startswith("tiny/main   2 of 2 trials: 2 complete")
    assert not err
