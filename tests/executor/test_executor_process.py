"""What a trial gets, what is kept of it, and what bad input becomes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from localhpo.errors import ExecutorError, TaskError
from localhpo.executor import ProcessExecutor, supervisor
from localhpo.space import Categorical, Space
from localhpo.trial import Cause, State, Value

REPORT = "from localhpo.reporter import report; report(loss=0.5)\n"

NASTY: Mapping[str, Value] = {
    "space": "two words",
    "quotes": 'it\'s "so"',
    "dollar": "$HOME `id` $(id)",
    "newline": "a\nb",
    "braces": "{depth} {{x}} {",
    "dash": "-x --depth=9",
    "empty": "",
    "unicode": "η=0.1 ≤ 🙂",
    "glob": "*; rm -rf .",
    "with-dash": "v",
}


def space_of(config: Mapping[str, Value]) -> Space:
    return Space([Categorical(name, (value,)) for name, value in config.items()])


# What a trial gets


def test_values_reach_the_script_unharmed(trials: Any) -> None:
    source = """
        import argparse, json, os
        from localhpo.reporter import config, report
        parser = argparse.ArgumentParser()
        for name in config():
            parser.add_argument("--" + name, dest=name)
        parsed = vars(parser.parse_args())
        with open(os.path.join(os.environ["LOCALHPO_TRIAL_DIR"], "seen.json"), "w") as file:
            json.dump([parsed, config()], file)
        report(loss=1)
    """
    config = {**NASTY, "tiny": -1e-05, "count": 3, "flag": True}
    outcome = trials.run(textwrap.dedent(source), config=config, space=space_of(config))
    assert outcome.state is State.COMPLETE, outcome
    parsed, read = json.loads(trials.read("seen.json"))
    assert parsed == {**NASTY, "tiny": "-0.00001", "count": "3", "flag": "true"}
    assert list(read.items()) == list(config.items())


def test_fixed_values_reach_the_script(trials: Any) -> None:
    source = "import json, sys; from localhpo.reporter import config; "
    source += "print(json.dumps([sys.argv[1:], config()]))"
    fixed, config = {"n_estimators": 300, "method": "hist"}, {"learning_rate": 0.01, "depth": 4}
    flags = ["--n_estimators", "300", "--method", "hist", "--learning_rate", "0.01", "--depth", "4"]
    trials.run(source, config=config, fixed=fixed)
    assert json.loads(trials.read("stdout.txt")) == [flags, {**fixed, **config}]
    command = ("python", "train.py", "--method={method}", "{depth}")
    trials.run(source, config=config, fixed=fixed, command=command)
    assert json.loads(trials.read("stdout.txt"))[0] == ["--method=hist", "4"]


def test_a_placeholder_gets_the_value_as_one_argument(trials: Any) -> None:
    command = ("python", "train.py", "--where={trial.dir}", "{quotes}", "{trial.number}-{seed}")
    source = "import json, sys; print(json.dumps(sys.argv[1:]))"
    trials.run(source, command=command, config=NASTY, space=space_of(NASTY))
    folder = trials.folder / "trial"
    assert json.loads(trials.read("stdout.txt")) == [f"--where={folder}", NASTY["quotes"], "0-7"]


def test_trial_environment_has_the_documented_variables(
    trials: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FROM_USER", "user")
    monkeypatch.setenv("LOCALHPO_TRIAL_DIR", "/elsewhere")
    source = "import json, os, sys; print(json.dumps([dict(os.environ), os.getcwd()]))\n"
    source += "assert sys.stdin.read() == ''"
    trials.run(
        source, task_env={"BOTH": "task", "TASK": "task"}, env={"BOTH": "job", "DEVICE": "1"}
    )
    environ, folder = json.loads(trials.read("stdout.txt"))
    trial = trials.folder / "trial"
    assert folder == str(trials.folder)
    expected = {
        "FROM_USER": "user",
        "TASK": "task",
        "BOTH": "job",
        "DEVICE": "1",
        "PYTHONUNBUFFERED": "1",
        "LOCALHPO_SEED": "7",
        "LOCALHPO_TRIAL_DIR": str(trial),
        "LOCALHPO_CONFIG": str(trial / "localhpo" / "config.json"),
        "LOCALHPO_METRICS": str(trial / "localhpo" / "metrics.jsonl"),
    }
    assert expected.items() <= environ.items()
    assert trials.read("stderr.txt") == ""


def test_relative_folders_reach_the_script_absolute(
    trials: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trials.folder)
    (trials.folder / "code").mkdir()
    (trials.folder / "code" / "train.py").write_text(REPORT)
    job = trials.job(task_folder=Path("code"), folder=Path("trial"))
    assert trials.finish(trials.executor.start(job)).value == 0.5


def test_a_users_modules_and_pythonpath_do_not_reach_the_supervisor(trials: Any) -> None:
    for name in ("json", "signal", "selectors", "site"):
        (trials.folder / f"{name}.py").write_text("raise RuntimeError('not this one')\n")
    outcome = trials.finish(
        trials.executor.start(
            trials.job(command=("/bin/true",), task_env={"PYTHONPATH": str(trials.folder)})
        )
    )
    assert outcome.failure.cause is Cause.NOTHING_REPORTED


def test_what_an_interrupted_run_left_is_not_read_again(trials: Any) -> None:
    loop = "import os, time; from localhpo.reporter import report\n"
    loop += "open(os.path.join(os.environ['LOCALHPO_TRIAL_DIR'], 'model'), 'w').write('mine')\n"
    loop += "print('old'); report(loss=99); time.sleep(60)"
    run = trials.start(loop)
    trials.until_reported(run)
    run.stop(State.INTERRUPTED)
    trials.finish(run)
    again = trials.start(f"import sys; print('new'); {REPORT}")
    outcome = trials.finish(again)
    assert [m.value for m in again.poll()] == [0.5]
    assert (outcome.state, trials.read("stdout.txt")) == (State.COMPLETE, "new\n")
    assert not (trials.folder / "trial" / "stop").exists()
    assert trials.read("model") == "mine"


# What is kept


def test_usage_is_measured(trials: Any) -> None:
    source = "import time\nblock = bytearray(120_000_000)\nend = time.process_time() + 0.3\n"
    source += "while time.process_time() < end: pass\n" + REPORT
    usage = trials.run(source).usage
    assert 120 <= usage.peak_memory_mb * 1.05 <= 200
    assert 0.3 <= usage.cpu_s <= usage.wall_s * os.cpu_count()


def test_the_result_is_written_beside_the_job(trials: Any) -> None:
    trials.run(REPORT)
    result = json.loads(trials.read("localhpo/result.json"))
    assert (result["verdict"], result["exit_code"], result["left_behind"]) == ("exited", 0, 0)
    job = json.loads(trials.read("localhpo/job.json"))
    assert job["argv"] == [sys.executable, "train.py", "--learning_rate", "0.001", "--depth", "3"]


def test_output_of_any_amount_is_drained_and_capped(trials: Any) -> None:
    lines = 1_000_000
    source = f"""
        import sys
        from localhpo.reporter import report
        for i in range({lines}): sys.stdout.write(f"line {{i}} " + "x" * 40 + "\\n")
        print("last words", file=sys.stderr)
        report(loss=0.5)
    """
    outcome = trials.run(textwrap.dedent(source), task_env={"PYTHONUNBUFFERED": ""})
    assert outcome.state is State.COMPLETE
    path = trials.folder / "trial" / "stdout.txt"
    assert path.stat().st_size < 3.2e6  # 1 MB of head, 1 MB of tail and a bit
    text = path.read_text()
    assert text.startswith("line 0 ")
    assert f"line {lines - 1} " in text[-100:]
    assert "bytes left out: too much output]\n" in text
    assert trials.read("stderr.txt") == "last words\n"


def test_an_endless_printer_meets_its_time_limit(trials: Any) -> None:
    outcome = trials.run("while True: print('y' * 1000)", timeout_s=0.5)
    assert outcome.failure.cause is Cause.TIMEOUT
    assert (trials.folder / "trial" / "stdout.txt").stat().st_size < 3.2e6


def test_garbage_is_kept_and_shown_legibly(trials: Any) -> None:
    source = "import os, sys\nos.write(1, bytes(range(256)) * 9)\nos.write(2, bytes(range(256)))\n"
    source += "os.write(2, b'\\n\\x1b[31mred\\x1b[0m 10%\\r99% done\\x07\\n')\nsys.exit(3)"
    outcome = trials.run(source)
    assert (trials.folder / "trial" / "stdout.txt").read_bytes() == bytes(range(256)) * 9
    assert outcome.failure.cause is Cause.EXIT_CODE
    assert outcome.failure.message == "the trial ended with exit code 3"
    assert outcome.failure.stderr_tail.endswith("\n99% done")
    assert "\x1b" not in outcome.failure.stderr_tail


def test_reports_before_a_bad_end_do_not_make_it_good(trials: Any) -> None:
    outcome = trials.run(REPORT + "raise ValueError('bad learning rate')")
    assert (outcome.state, outcome.value) == (State.FAILED, None)
    assert outcome.failure.message == (
        "the trial ended with exit code 1: ValueError: bad learning rate"
    )


def test_standard_output_is_read_by_a_pattern(trials: Any) -> None:
    source = "for x in ('1.5', '1e-05', '-3', 'inf', '-2.5e+3'): print(f'epoch: loss = {x}!')\n"
    source += "print('loss = 0.25', end='')"
    run = trials.start(source, stdout_regex=r"loss = (\S+)")
    assert trials.finish(run).value == 0.25
    values = [(m.step, m.value) for m in run.poll()]
    assert values == [(1, 1.5), (2, 1e-05), (3, -3), (4, float("inf")), (5, -2500.0), (6, 0.25)]


# Limits


def test_a_memory_hog_is_ended(trials: Any) -> None:
    source = "blocks = []\nwhile True: blocks.append(bytearray(10_000_000))"
    outcome = trials.run(source, memory_mb=200)
    assert outcome.failure.cause is Cause.OUT_OF_MEMORY_HOST
    assert "its limit is 200 MB" in outcome.failure.message
    assert outcome.usage.peak_memory_mb > 200


def test_a_memory_hog_is_found_among_the_descendants(trials: Any) -> None:
    source = """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                blocks = []
                while True: blocks.append(bytearray(10_000_000))
            os._exit(0)
        time.sleep(60)
    """
    outcome = trials.run(textwrap.dedent(source), memory_mb=200)
    assert outcome.failure.cause is Cause.OUT_OF_MEMORY_HOST


def test_memory_that_processes_share_counts_once(trials: Any) -> None:
    source = """
        import os, time
        from localhpo.reporter import report
        block = bytearray(100_000_000)
        parent = os.getpid()
        for _ in range(4):
            if os.getpid() == parent: os.fork()
        time.sleep(1.0)
        if os.getpid() == parent: report(loss=0.5)
    """
    outcome = trials.run(textwrap.dedent(source), memory_mb=220)
    assert outcome.state is State.COMPLETE, outcome
    assert outcome.usage.peak_memory_mb < 220


def test_memory_error_of_the_script_is_recognized(trials: Any) -> None:
    outcome = trials.run("bytearray(10**15)")
    assert outcome.failure.cause is Cause.OUT_OF_MEMORY_HOST
    assert "MemoryError" in outcome.failure.message


# What bad input becomes


def program(folder: Path, text: str, mode: int) -> str:
    path = folder / "program"
    path.write_text(text)
    path.chmod(mode)
    return str(path)


@pytest.mark.parametrize(
    ("text", "mode", "message"),
    [
        ("#!/bin/sh\n", 0o644, "may not be executed: chmod +x"),
        ("\x00\x01", 0o755, "is no program: its first line must be like #!"),
        (
            "#!/no/such/interpreter\n",
            0o755,
            "but the interpreter that its first line names does not",
        ),
    ],
)
def test_start_failure_gives_the_reason(trials: Any, text: str, mode: int, message: str) -> None:
    command = (program(trials.folder, text, mode),)
    outcome = trials.finish(trials.executor.start(trials.job(command=command)))
    assert outcome.failure.cause is Cause.COULD_NOT_START
    assert message in outcome.failure.message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"command": ("no-such-program", "x")}, "the command 'no-such-program' was not found"),
        ({"command": ("./no/such",)}, "the command './no/such' was not found"),
        ({"task_folder": Path("/no/such/folder")}, "its folder /no/such/folder cannot be entered"),
        ({"config": {"depth": "a\0b"}}, "a value cannot be an argument: embedded null byte"),
        ({"config": {"depth": "x" * 10_000_000}}, "Argument list too long"),
    ],
)
def test_start_failure_is_an_outcome(trials: Any, changes: dict[str, Any], message: str) -> None:
    outcome = trials.finish(trials.executor.start(trials.job(**changes)))
    assert outcome.state is State.FAILED
    assert outcome.failure.cause is Cause.COULD_NOT_START
    assert message in outcome.failure.message


def test_a_task_that_cannot_be_run_is_an_error(trials: Any) -> None:
    with pytest.raises(TaskError, match="neither a parameter"):
        trials.executor.start(trials.job(command=("python", "{dept}")))
    with pytest.raises(TaskError, match="must have one group"):
        trials.executor.start(trials.job(stdout_regex="loss"))
    with pytest.raises(TaskError, match=r"\[task\] env"):
        trials.executor.start(trials.job(task_env={"A": "a\0b"}))


def test_a_folder_that_cannot_be_made_is_an_error_of_the_machine(trials: Any) -> None:
    (trials.folder / "file").touch()
    with pytest.raises(ExecutorError, match="cannot be started"):
        trials.executor.start(trials.job(folder=trials.folder / "file" / "trial"))


FULL_DISK = """
import dataclasses, os, sys, time
from pathlib import Path
from localhpo.objective import Objective
from localhpo.errors import ExecutorError
from localhpo.executor import Job, ProcessExecutor
from localhpo.space import Int, Space
from localhpo.task import Task
disk = Path(sys.argv[1])
source = "import os; os.write(1, b'y' * 5_000_000); import time; time.sleep(0.2)"
goals = (Objective("loss", "minimize"),)
task = Task("small", ("python", "-c", source), goals, Space([Int("depth", 1, 8)]))
job = Job(task=task, number=0, config={"depth": 3}, seed=1, folder=disk / "trial")
executor = ProcessExecutor()
run = executor.start(job)
while run.outcome is None: time.sleep(0.01)
print(run.outcome.failure.cause, "|", run.outcome.summary)
(disk / "rest").write_bytes(b"x" * (os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize))
try:
    executor.start(dataclasses.replace(job, folder=disk / "other"))
except ExecutorError as exc:
    print(exc)
"""


def test_full_disk_is_reported(own_namespace: list[str], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size=1m tmpfs {disk} && exec {sys.executable} -c "$0" {disk}'
    done = subprocess.run(
        [*own_namespace, "sh", "-c", mount, FULL_DISK], capture_output=True, text=True, check=True
    )
    first, second = done.stdout.splitlines()
    assert first.startswith("nothing reported | ")
    assert "output not kept" in first
    assert "No space left on device" in first
    assert "No space left on device" in second


def test_another_system_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(ExecutorError, match="on Linux only"):
        ProcessExecutor()


def test_the_supervisor_loads_the_standard_library_alone() -> None:
    code = "import runpy, sys; runpy.run_path(sys.argv[1]); print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, supervisor.__file__],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded - {"__main__"} <= sys.stdlib_module_names


def test_a_trial_is_more_likely_than_localhpo_to_be_ended_by_the_kernel(trials: Any) -> None:
    trials.run("print(open('/proc/self/oom_score_adj').read())")
    ours = int(Path(f"/proc/{psutil.Process().pid}/oom_score_adj").read_text())
    assert int(trials.read("stdout.txt")) == min(1000, ours + 500)
