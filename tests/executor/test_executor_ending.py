"""Nothing of a trial is left: whatever it starts, however it, or LocalHPO, ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from localhpo.executor.process import ProcessRun
from localhpo.trial import Cause, State

Alive = Callable[[int], bool]
Wait = Callable[[Callable[[], bool]], None]

# Writes its own process id and that of a daemon: forked twice, in a session of its own.
WITH_DAEMON = """
import os, signal, subprocess, sys, time
from localhpo.reporter import report
place = os.path.join(os.environ["LOCALHPO_TRIAL_DIR"], "pids")
def note():
    with open(place, "a") as file: file.write(f"{os.getpid()}\\n")
note()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        note()
        while True: time.sleep(0.01)
    os._exit(0)
while len(open(place).readlines()) < 2: time.sleep(0.01)
report(step=1, loss=0.5)
"""
ENDLESS = "while True: time.sleep(0.01)\n"


def supervisor_of(run: ProcessRun) -> int:
    return run._supervisor.pid


def test_a_daemon_does_not_outlive_a_trial_that_ends_well(trials: Any, is_alive: Alive) -> None:
    outcome = trials.run(WITH_DAEMON, grace_s=0.2)
    assert outcome.state is State.COMPLETE
    assert "left 1 process(es) running" in outcome.summary
    assert len(trials.pids()) == 2
    assert not any(map(is_alive, trials.pids()))


def test_a_trial_that_ignores_term_is_killed_after_the_grace(trials: Any, is_alive: Alive) -> None:
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    outcome = trials.run(ignore + WITH_DAEMON + ENDLESS, timeout_s=1.0, grace_s=0.2)
    assert outcome.failure.cause is Cause.TIMEOUT
    assert len(trials.pids()) == 2
    assert not any(map(is_alive, trials.pids()))


def test_close_kills_runs_that_were_stopped_before(trials: Any, is_alive: Alive) -> None:
    ignore = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    run = trials.start(ignore + WITH_DAEMON + ENDLESS, grace_s=600.0)
    trials.until_reported(run)
    run.stop(State.INTERRUPTED)
    assert run.outcome is None, "it has 600 s of grace"
    trials.executor.close()
    assert trials.finish(run).state is State.INTERRUPTED
    assert not any(map(is_alive, trials.pids()))


def test_the_grace_period_lets_a_trial_clean_up(trials: Any) -> None:
    source = """
        import os, signal, sys, time
        from localhpo.reporter import report
        def clean(*_):
            time.sleep(0.1)
            open(os.path.join(os.environ["LOCALHPO_TRIAL_DIR"], "clean"), "w").close()
            sys.exit(0)
        signal.signal(signal.SIGTERM, clean)
        report(step=1, loss=0.5)
        time.sleep(60)
    """
    run = trials.start(textwrap.dedent(source))
    trials.until_reported(run)
    run.stop(State.INTERRUPTED)
    assert trials.finish(run).state is State.INTERRUPTED
    assert trials.read("clean") == ""


def test_a_pruned_trial_that_looks_ends_by_itself(trials: Any) -> None:
    source = """
        import os, signal, sys, time
        from localhpo.reporter import report
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        while not report(loss=0.5): time.sleep(0.01)
        open(os.path.join(os.environ["LOCALHPO_TRIAL_DIR"], "told"), "w").close()
    """
    run = trials.start(textwrap.dedent(source), grace_s=60.0)
    trials.until_reported(run)
    run.stop(State.PRUNED)
    outcome = trials.finish(run)
    assert (outcome.state, outcome.value, outcome.failure) == (State.PRUNED, 0.5, None)
    assert outcome.summary.startswith("pruned; loss 0.5 at step ")
    assert trials.read("told") == ""


def test_a_pruned_trial_that_does_not_look_is_ended(trials: Any, is_alive: Alive) -> None:
    run = trials.start(WITH_DAEMON + ENDLESS, grace_s=0.4)
    trials.until_reported(run)
    run.stop(State.PRUNED)
    assert trials.finish(run).state is State.PRUNED
    assert not any(map(is_alive, trials.pids()))


def test_stopping_at_once_after_the_start_works(trials: Any) -> None:
    run = trials.start("import time; time.sleep(60)")
    run.stop(State.INTERRUPTED)
    assert trials.finish(run).state is State.INTERRUPTED


def test_closing_ends_all_groups(trials: Any, is_alive: Alive) -> None:
    run = trials.start(WITH_DAEMON + ENDLESS, grace_s=0.2)
    trials.until_reported(run)
    pids = [*trials.pids(), supervisor_of(run)]
    assert all(map(is_alive, pids))
    trials.executor.close()
    assert not any(map(is_alive, pids))
    assert run.outcome is not None


def test_supervisor_stopped_before_its_handlers_are_set_interrupts(trials: Any) -> None:
    run = trials.start(ENDLESS, grace_s=0.2)
    os.kill(supervisor_of(run), signal.SIGTERM)
    assert trials.finish(run).state is State.INTERRUPTED


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_to_all_interrupts_even_if_the_trial_has_it_first(
    trials: Any, number: signal.Signals
) -> None:
    reset = "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)\n"
    run = trials.start(reset + WITH_DAEMON + ENDLESS, grace_s=0.2)
    trials.until_reported(run)
    os.kill(trials.pids()[0], number)
    time.sleep(0.02)
    os.kill(supervisor_of(run), number)
    assert trials.finish(run).state is State.INTERRUPTED


# Holds a file locked for as long as it, or any process that it has forked, lives.
LOCKED = """
import ctypes, fcntl, os, signal, threading, time
from localhpo.reporter import report
lock = open(os.path.join(os.environ["LOCALHPO_TRIAL_DIR"], "lock"), "w")
fcntl.flock(lock, fcntl.LOCK_EX)
report(loss=0.5)
"""


def test_a_process_whose_first_thread_has_ended_is_ended(trials: Any) -> None:
    # It looks like a zombie in /proc although its other threads live.
    source = """
        threading.Thread(target=lambda: time.sleep(600)).start()
        ctypes.CDLL(None).pthread_exit(None)
    """
    run = trials.start(LOCKED + textwrap.dedent(source), timeout_s=1.0, grace_s=0.2)
    trials.until_reported(run)
    assert trials.is_locked()
    assert trials.finish(run).failure.cause is Cause.TIMEOUT
    assert not trials.is_locked()


def test_a_chain_of_forks_is_cut(trials: Any) -> None:
    source = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for _ in range(300):  # each generation starts the next and ends
            if os.fork(): os._exit(0)
            os.setsid()
            time.sleep(0.005)
        time.sleep(600)
    """
    assert trials.run(LOCKED + textwrap.dedent(source), grace_s=0.3).state is State.COMPLETE
    assert not trials.is_locked()


def test_a_herd_of_forks_is_put_down(trials: Any) -> None:
    source = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        for _ in range(6): os.fork()
        if os.getsid(0) != os.getpid(): os.setsid()
        time.sleep(600)
    """
    outcome = trials.run(LOCKED + textwrap.dedent(source), timeout_s=1.0, grace_s=0.3)
    assert outcome.failure.cause is Cause.TIMEOUT
    assert not trials.is_locked()


def test_trial_dies_with_its_supervisor(trials: Any, is_alive: Alive) -> None:
    run = trials.start(WITH_DAEMON + ENDLESS)
    trials.until_reported(run)
    os.kill(supervisor_of(run), signal.SIGKILL)
    outcome = trials.finish(run)
    assert outcome.failure.cause is Cause.SIGNAL
    assert "supervised" in outcome.failure.message
    assert not any(map(is_alive, trials.pids()))


def test_stopped_supervisor_interrupts_the_trial(trials: Any, is_alive: Alive) -> None:
    run = trials.start(WITH_DAEMON + ENDLESS, grace_s=0.2)
    trials.until_reported(run)
    os.kill(supervisor_of(run), signal.SIGTERM)
    assert trials.finish(run).state is State.INTERRUPTED
    assert not any(map(is_alive, trials.pids()))


# A LocalHPO of its own, to be killed: it starts the script beside it and says when it runs.
LOCALHPO = """
import os, sys, time
from pathlib import Path
from localhpo.objective import Objective
from localhpo.executor import Job, ProcessExecutor
from localhpo.space import Int, Space
from localhpo.task import Task
here = Path(sys.argv[1])
goals = (Objective("loss", "minimize"),)
task = Task("small", ("python", "train.py"), goals, Space([Int("depth", 1, 8)]),
            folder=here)
run = ProcessExecutor().start(
    Job(task=task, number=0, config={"depth": 3}, seed=1, folder=here / "trial"))
while not run.poll(): time.sleep(0.01)
if "fork" in sys.argv:
    if os.fork() == 0:
        time.sleep(60)  # holds a copy of the control pipe
print(run._supervisor.pid, flush=True)
time.sleep(60)
"""


class Other:
    """Another LocalHPO with a running trial."""

    def __init__(self, trials: Any, *arguments: str) -> None:
        (trials.folder / "train.py").write_text(WITH_DAEMON + ENDLESS)
        command = [sys.executable, "-c", LOCALHPO, str(trials.folder), *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.supervisor = int(self.process.stdout.readline())
        self.pids = [self.supervisor, *trials.pids()]

    def end(self) -> None:
        with self.process:
            self.process.kill()


def test_a_killed_localhpo_leaves_no_process(
    trials: Any, is_alive: Alive, wait_until: Wait
) -> None:
    other = Other(trials)
    assert all(map(is_alive, other.pids))
    other.end()
    wait_until(lambda: not any(map(is_alive, other.pids)))
    assert "abandoned" in trials.read("localhpo/result.json")


def test_a_fork_of_localhpo_does_not_keep_its_trial_alive(
    trials: Any, is_alive: Alive, wait_until: Wait
) -> None:
    other = Other(trials, "fork")
    forks = [child.pid for child in psutil.Process(other.process.pid).children()]
    other.end()
    wait_until(lambda: not any(map(is_alive, other.pids)))
    for pid in set(forks) - {other.supervisor}:
        os.kill(pid, signal.SIGKILL)


def test_leftover_processes_are_killed_by_the_next_run(
    trials: Any, is_alive: Alive, wait_until: Wait
) -> None:
    other = Other(trials)
    os.kill(other.process.pid, signal.SIGSTOP)  # so that neither can act on the other's death
    os.kill(other.supervisor, signal.SIGKILL)
    other.end()
    main, daemon = other.pids[1:]
    wait_until(lambda: not is_alive(main))
    assert is_alive(daemon)
    outcome = trials.run("from localhpo.reporter import report; report(loss=0.1)")
    assert outcome.value == 0.1
    assert not is_alive(daemon)


def test_the_thread_that_starts_a_trial_may_end(trials: Any) -> None:
    runs: list[ProcessRun] = []
    source = "import time; time.sleep(0.3)\nfrom localhpo.reporter import report; report(loss=1)"
    thread = threading.Thread(target=lambda: runs.append(trials.start(source)))
    thread.start()
    thread.join()
    assert trials.finish(runs[0]).state is State.COMPLETE


def test_blocked_and_ignored_signals_are_not_inherited(trials: Any) -> None:
    term, interrupt = signal.SIGTERM, signal.SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {term, signal.SIGCHLD})
    handler = signal.signal(interrupt, signal.SIG_IGN)
    try:
        run = trials.start(WITH_DAEMON + ENDLESS, grace_s=60.0)
        trials.until_reported(run)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        signal.signal(interrupt, handler)
    daemon = trials.pids()[1]
    os.kill(daemon, signal.SIGKILL)  # it ignores TERM itself
    run.stop(State.INTERRUPTED)
    assert trials.finish(run).state is State.INTERRUPTED


def test_many_trials_leave_no_zombies_and_no_open_files(trials: Any, tmp_path: Path) -> None:
    me = psutil.Process()
    trials.run("")
    files, children = me.num_fds(), len(me.children())
    quick = ("true",)
    for number in range(8):
        job = trials.job(command=quick, folder=tmp_path / str(number))
        outcome = trials.finish(trials.executor.start(job))
        assert outcome.failure.cause is Cause.NOTHING_REPORTED
    assert (me.num_fds(), len(me.children())) == (files, children)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGKILL, signal.SIGTERM])
def test_a_signal_from_elsewhere_is_named(trials: Any, number: signal.Signals) -> None:
    outcome = trials.run(f"import os; os.kill(os.getpid(), {int(number)})")
    assert outcome.failure.cause is Cause.SIGNAL
    assert number.name in outcome.failure.message
