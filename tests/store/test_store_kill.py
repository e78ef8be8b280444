"""A writer killed at any moment loses nothing that it acknowledged."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
import time
from collections import Counter
from typing import Any

import duckdb
import pytest

from localhpo.store import Store

NAME = "water/main"

WRITER = """
    import sys
    from pathlib import Path
    from localhpo.store import Store
    from localhpo.trial import USER, Measurement, Proposal, State, Trial
    store = Store(Path(sys.argv[1]))
    writer = store.writer(sys.argv[2])
    known = {trial.number: trial for trial in store.trials(sys.argv[2])}
    number = sum(trial.state is State.COMPLETE for trial in known.values())
    while True:
        restarts = known[number].restarts + 1 if number in known else 0
        config = {"x": number, "text": "long " * 2000}
        trial = Trial(number, State.RUNNING, Proposal(config, USER), restarts=restarts)
        writer.write_trial(trial)
        writer.write_measurements(number, [Measurement(s, "f1", s / 7, 1.0) for s in range(5)])
        writer.write_event("note", "running", number, {"restarts": restarts})
        writer.write_trial(trial.to(State.COMPLETE, values=(number / 7,)))
        print(number, flush=True)
        writer.flush(now=True)
        number += 1
"""


@pytest.mark.parametrize("kills", [5, pytest.param(30, marks=pytest.mark.slow)])
def test_what_was_acknowledged_survives_a_kill(store: Store, kills: int) -> None:
    moments = random.Random(0)
    acknowledged = -1
    for _ in range(kills):
        lately = run_and_kill(store, moments.uniform(0.0, 0.15))
        acknowledged = max([acknowledged, *lately])
        trials = store.trials(NAME)
        numbers = [trial.number for trial in trials]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > acknowledged
        for trial in trials[: acknowledged + 1]:
            assert trial.value == trial.number / 7
            assert [m.step for m in trial.measurements] == list(range(5))
    runs = Counter((event.trial, event.data["restarts"]) for event in store.events(NAME))
    assert set(runs.values()) == {1}
    assert {trial for trial, _ in runs} >= set(range(acknowledged + 1))
    assert store.verify() == []
    store.writer(NAME).close()
    assert store.verify() == []
    with duckdb.connect(str(store.home / "store.duckdb")) as connection:
        [row] = connection.execute("SELECT count(*), max(trial) + 1 FROM trials").fetchall()
    assert row == (len(store.trials(NAME)),) * 2


def run_and_kill(store: Store, after_s: float) -> list[int]:
    """Kill a writer some time after its first trial; return the trials it acknowledged."""
    process: subprocess.Popen[Any] = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(store.home), NAME],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    first = process.stdout.readline()
    time.sleep(after_s)
    process.kill()
    rest, _ = process.communicate()
    return [int(line) for line in (first + rest).splitlines(keepends=True) if line.endswith("\n")]
