"""`localhpo finetune` on a real store, and beside studies that need the resources."""

import json
import os

import pytest
from made_history import keep, make_past

from localhpo.cli import main
from localhpo.cli.models.low_priority import LowPriorityClaim
from localhpo.resources.broker import ResourceBroker
from localhpo.resources.placement import Assignment, Inventory


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    monkeypatch.setenv("LOCALHPO_HOME", str(folder))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return folder


def test_a_dry_run_shows_the_use_of_each_study(home, registry, capsys):
    for number in range(3):
        keep(home, make_past(number))
    keep(home, make_past(3), private=True)
    keep(home, make_past(4, trials=2, fails=2))
    assert main(["finetune", "--dry-run", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    uses = {row["study"]: row["use"] for row in shown["studies"]}
    assert sorted(uses.values()) == [
        "left out: it is private", "left out: none of its trials has a value, 2 failed",
        "test: held out to check the new model", "training", "training",
    ]  # fmt: skip
    assert uses["made-3/main"] == "left out: it is private"
    assert main(["finetune", "--dry-run"]) == 0
    assert "left out: it is private" in capsys.readouterr().out
    assert not list(registry.iterdir())


def test_auto_says_how_many_studies_are_missing(home, registry, capsys):
    keep(home, make_past(0))
    assert main(["finetune", "--auto", "--every", "3"]) == 0
    assert "--auto trains after 2 more finished studies" in capsys.readouterr().out
    assert not list(registry.iterdir())


def test_too_few_studies_are_an_error_with_a_hint(home, registry, capsys):
    keep(home, make_past(0))
    assert main(["finetune"]) == 2
    messages = capsys.readouterr().err
    assert "two tasks or more, got 1" in messages
    assert "localhpo import" in messages


class TestLowPriorityClaim:
    """A training beside studies, with a resource broker of its own."""

    @pytest.fixture
    def messages(self, home, monkeypatch):
        monkeypatch.setattr("localhpo.cli.models.low_priority._POLL_S", 0.01)
        return []

    def test_a_training_reserves_its_resources(self, messages):
        claim = LowPriorityClaim(Inventory(cpus=2), threads=1, report=messages.append)
        assert claim.take().cpus == 1
        other = ResourceBroker("study", Inventory(cpus=2))
        assert [held.cpus for held in other.read_other_claims()] == [1]
        claim.close()
        assert other.read_other_claims() == []
        assert messages == []

    def test_a_training_waits_for_resources(self, messages):
        inventory = Inventory(cpus=1)
        study = ResourceBroker("study", inventory)
        held = study.claim("0", Assignment(cpus=1), lambda others: Assignment(cpus=1))
        assert held is not None

        def report(line):
            messages.append(line)
            study.release("0")

        claim = LowPriorityClaim(inventory, threads=1, report=report)
        claim.take()
        assert messages == [
            "waiting: studies use the resources of this machine",
            "resources are free: training continues",
        ]

    def test_a_training_pauses_for_a_waiting_study(self, messages, monkeypatch):
        inventory = Inventory(cpus=1)
        # In one process here, where there are two: the broker tells them apart by their ids.
        pid = os.getpid()
        study = ResourceBroker("study", inventory)
        claim = LowPriorityClaim(inventory, threads=1, report=messages.append)
        claim.take()
        free = lambda others: None if others else Assignment(cpus=1)  # noqa: E731
        assert study.claim("0", Assignment(cpus=1), free) is None
        monkeypatch.setattr("localhpo.cli.models.low_priority.os.getpid", lambda: pid + 1)
        released = []

        def sleep(_seconds):
            if not released:
                released.append(study.claim("0", Assignment(cpus=1), free))
            else:
                study.release("0")

        monkeypatch.setattr("localhpo.cli.models.low_priority.time.sleep", sleep)
        claim.give_way()
        assert released == [Assignment(cpus=1)]
        assert messages == [
            "waiting: studies use the resources of this machine",
            "resources are free: training continues",
        ]
