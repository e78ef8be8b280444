from __future__ import annotations

import importlib.util

import pytest

from localhpo.store import Event
from localhpo.trial import Measurement, Origin, Proposal, State, Trial
from scripts.benchmarks.measure import loop as bench_loop


def trial(number: int, started: float, first: float, last: float, finished: float) -> Trial:
    reports = (Measurement(0, "loss", 1.0, first), Measurement(1, "loss", 1.0, last))
    proposal = Proposal({"parameter_0": 0.5}, Origin.parse("random"))
    return Trial(
        number,
        State.COMPLETE,
        proposal,
        measurements=reports,
        started_at=started,
        finished_at=finished,
    )


def test_the_parts_of_a_trial_add_up() -> None:
    trials = [trial(0, 12.0, 13.0, 23.0, 23.5), trial(1, 24.0, 25.0, 35.0, 36.0)]
    events = [Event(10.0, "begun", ""), Event(36.0, "ended", "")]
    found = bench_loop.break_down_time(trials, events, called_at=7.0)
    assert found.opened_s == 3.0 and found.wall_s == 26.0
    assert found.propose_s == (2.0, 0.5)
    assert found.launch_s == (1.0, 1.0)
    assert found.training_s == (10.0, 10.0)
    assert found.finish_s == (0.5, 1.0)
    assert sum(found.overhead_s) + sum(found.training_s) == found.wall_s
    assert found.idle_share == pytest.approx(6 / 26)


def test_a_study_is_measured() -> None:
    found = bench_loop.run_study("random", "transformers", 0.2, 2)
    assert all(seconds >= 0.2 for seconds in found.training_s) and len(found.training_s) == 2
    assert all(seconds > 0 for seconds in (*found.launch_s, *found.finish_s, found.opened_s))
    assert 0 < found.idle_share < 1
    assert found.origins == {"random": 2}


def test_without_vllm_the_model_is_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert bench_loop.contestants(["bo", "agent"], "vllm") == ["bo"]
    assert "skipped: agent" in capsys.readouterr().out
    assert bench_loop.contestants(["bo", "agent"], "transformers") == ["bo", "agent"]
