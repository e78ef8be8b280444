"""What a study asks of earlier ones while its writer is at work."""

from __future__ import annotations

from localhpo.scheduler.placement import Inventory
from localhpo.store import Store
from localhpo.study import hardware


def test_earlier_studies_are_read_by_a_connection_of_their_own(make_task, home, monkeypatch):
    # The Creator's thread asks while the main thread writes the tables: on one connection,
    # DuckDB refuses the later of two calls, and the study would end with an error.
    asked: list[Store] = []
    monkeypatch.setattr(hardware, "earlier_trials", lambda store, *_: asked.append(store) or [])
    store = Store(home)
    ours = hardware.Hardware(make_task(), "small/now", store, Inventory(cpus=1))
    assert ours.refusal({"learning_rate": 1e-3, "depth": 2}, []) is None
    assert [one.home for one in asked] == [home]
    assert asked[0]._database is not store._database
