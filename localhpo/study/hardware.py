"""The hardware as a study meets it: what it offers, what trials will need of it, what they took."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from functools import cached_property

from localhpo.executor import Executor
from localhpo.executor.clock import RealClock
from localhpo.scheduler import nvml
from localhpo.scheduler.accountant import Accountant
from localhpo.scheduler.memory import Estimator, Kind, Observation, Wall, again_alone, observations
from localhpo.scheduler.meter import Meter
from localhpo.scheduler.placement import Inventory
from localhpo.scheduler.watched import WatchedExecutor
from localhpo.store import Store, Writer
from localhpo.study.family import earlier_trials
from localhpo.task import Task
from localhpo.trial import Config, Trial

_ENOUGH = 5
"""Trials to be measured before host memory is reserved by estimate: until then as declared. One is
enough for a device of which trials declare a part."""


class Hardware:
    """Made for one run of a study; close it.

    What a configuration needs may be asked by several threads: the loop's, and the Creator's,
    which looks for one that fits. One waits for the other, whose fit to the same trials it needs.

    Args:
        task: What is tuned.
        key: Name of its study in the store, whose trials are handed in.
        store: Holds earlier studies.
        inventory: What there is.
    """

    def __init__(self, task: Task, key: str, store: Store, inventory: Inventory) -> None:
        self._task, self._key, self._store = task, key, store
        self.inventory = inventory
        self._lock = threading.Lock()
        self._clock = RealClock()
        self._meter = Meter(nvml.connect() if inventory.gpus else None, self._clock)
        self._estimators = {
            kind: Estimator(task.space, wall) for kind, wall in walls(task, inventory).items()
        }

    def watched(self, executor: Executor) -> WatchedExecutor:
        """Return an Executor that measures what the trials of another one take."""
        return WatchedExecutor(executor, self._meter)

    def accountant(self, writer: Writer, loading_s: float) -> Accountant:
        """Return an observer that keeps the books, and begins with how long the model took."""
        return Accountant(writer.event, self._clock, lambda: self._meter.model, loading_s)

    def refusal(self, config: Config, trials: Sequence[Trial]) -> str | None:
        """Return why a configuration cannot fit this machine; None where it may.

        Args:
            config: To be run.
            trials: Of this study, so far.
        """
        with self._lock:
            for kind, estimator in self._estimators.items():
                reason = estimator.refusal(config, self._evidence(kind, trials))
                if reason is not None:
                    return reason
            return None

    def estimate_mb(self, config: Config, trials: Sequence[Trial]) -> float | None:
        """Return the memory to reserve for a configuration: of each device, else of the host.

        Infinity where it is to be alone, since it may need a whole device, or ran out of memory
        beside others. None where nobody knows, and the task says what is kept for it all the same.
        Arguments as for `refusal`.
        """
        gpus = self._task.resources.gpus
        kind: Kind = "device" if gpus else "host"
        if again_alone(config, trials):
            return math.inf
        with self._lock:
            evidence = self._evidence(kind, trials)
            if len(evidence) < _ENOUGH if kind == "host" else not evidence and gpus < 1:
                return None
            usable_mb = None
            if kind == "device":
                usable_mb = _largest([gpu.usable_mb for gpu in self.inventory.gpus])
            estimate = self._estimators[kind].estimate(config, evidence, usable_mb)
        return math.inf if estimate.whole else estimate.mb

    def close(self) -> None:
        """Let go of the devices. May be called twice."""
        self._meter.close()

    def _evidence(self, kind: Kind, trials: Sequence[Trial]) -> list[Observation]:
        return self._earlier[kind] + observations(trials, kind)

    @cached_property
    def _earlier(self) -> dict[Kind, list[Observation]]:
        # By a store of its own: the Creator asks from its thread, while the writer uses the other.
        trials = earlier_trials(Store(self._store.home), self._key, self._task)
        return {kind: observations(trials, kind) for kind in self._estimators}


def walls(task: Task, inventory: Inventory) -> dict[Kind, Wall]:
    """Return what bounds a trial's memory: of the host always, of a device where it holds one.

    What others hold of a device bounds nothing for good.
    """
    limits = [mb for mb in (task.resources.memory_mb, inventory.memory_mb) if mb is not None]
    found: dict[Kind, Wall] = {
        "host": Wall(min(limits, default=None), "memory", task.resources.memory_mb)
    }
    if task.resources.gpus:
        largest_mb = _largest([gpu.memory_mb for gpu in inventory.gpus])
        found["device"] = Wall(largest_mb, "device memory", task.resources.gpu_memory_mb)
    return found


def _largest(sizes: Sequence[float | None]) -> float | None:
    """Return the largest of the devices' sizes; None where one of them is not known."""
    known = [mb for mb in sizes if mb is not None]
    return max(known, default=None) if len(known) == len(sizes) else None
