"""Where the trials of a run are executed: the executor, its resources, and what trials need."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from functools import cached_property

from localhpo.errors import TaskError
from localhpo.executor import (
    Executor,
    ProcessExecutor,
    RayExecutor,
)
from localhpo.executor.clock import RealClock
from localhpo.executor.ray import Node
from localhpo.resources import admission, nvml
from localhpo.resources.admission import admit_task
from localhpo.resources.memory import (
    MemoryEstimator,
    MemoryKind,
    MemoryLimit,
    PeakObservation,
    must_rerun_exclusively,
    read_observations,
)
from localhpo.resources.meter import Meter
from localhpo.resources.placement import Gpu, Inventory
from localhpo.scheduler.accounting import MeteredExecutor, UsageAccounting
from localhpo.store import Store, StudyWriter
from localhpo.study.past_studies import read_related_trials
from localhpo.task import Resources, Task
from localhpo.trial import Config, Trial


def find_execution_target(
    task: Task, executor: Executor | None = None
) -> tuple[Executor, Inventory]:
    """Return the executor of a task and its resources; refuse a task that can never run there.

    Args:
        task: Task to be run.
        executor: Runs the trials instead of the executor that the task names.

    Raises:
        TaskError: a trial of this task can never run, or its budget cannot bound it.
        ExecutorError, MissingExtraError: the cluster that the task names cannot be used.
    """
    if executor is not None or task.resources.executor == "process":
        return executor or ProcessExecutor(), admit_task(task)
    cluster = RayExecutor(task.resources.ray_address)
    try:
        return cluster, admit_task(task, cluster_inventory(task.resources, cluster.nodes))
    except BaseException:
        cluster.close()
        raise


def cluster_inventory(resources: Resources, nodes: Sequence[Node]) -> Inventory:
    """Return the resources of a cluster that trials with equal needs can use.

    A trial runs on one node, so each node counts with what whole trials can fill: two nodes of 3
    CPUs run two trials of 2 CPUs, not three.

    Raises:
        TaskError: no node can run a trial.
    """
    counts = [node.holds(resources) for node in nodes]
    if not any(counts):
        raise TaskError(
            _describe_too_large(resources, nodes), hint="`ray status` shows what the nodes offer"
        )
    gpus = [
        Gpu(f"{node.id[:8]}/{index}")
        for node, count in zip(nodes, counts, strict=True)
        for index in range(math.ceil(count * resources.gpus))
    ]
    # A fraction of a CPU is rounded up: Ray itself starts no trial without free resources.
    return Inventory(cpus=math.ceil(sum(counts) * resources.cpus), gpus=tuple(gpus))


def _describe_too_large(resources: Resources, nodes: Sequence[Node]) -> str:
    wants = [f"cpus = {resources.cpus:g}", f"gpus = {resources.gpus:g}"]
    if resources.memory_mb:
        wants.append(f"memory_mb = {resources.memory_mb:g}")
    offers = sorted({f"{n.cpus:g}, {n.gpus} and {n.memory_mb:.0f}" for n in nodes})
    return (
        f"[resources] no node of the Ray cluster can run a trial, which needs {', '.join(wants)};"
        f" its {len(nodes)} nodes have {'; '.join(offers)} (CPUs, GPUs and MB of memory)"
    )


_MIN_OBSERVATIONS = 5
"""Number of measured trials before host memory is reserved by estimate; until then as declared. For
a share of a device one is enough."""


class Hardware:
    """Estimates and measures the resources of trials in one run; close it.

    Two threads ask for estimates: the loop's, and the Creator's, which looks for configurations
    that fit. One waits for the other, so that a model of memory is fitted once and used by both.

    Args:
        task: Task of the study.
        key: Name of the study, whose own trials are passed to each call.
        store: Store with earlier studies.
        inventory: Resources of the machine.
    """

    def __init__(self, task: Task, key: str, store: Store, inventory: Inventory) -> None:
        self._task, self._key, self._store = task, key, store
        self.inventory = inventory
        self._lock = threading.Lock()
        self._clock = RealClock()
        self._nvml = nvml.connect() if inventory.gpus else None
        self._meter = Meter(self._nvml.read if self._nvml else None)
        self._estimators = {
            kind: MemoryEstimator(task.space, limit)
            for kind, limit in find_memory_limits(task, inventory).items()
        }

    def check_measurable(self) -> None:
        """Check that the objectives and constraints that LocalHPO measures can be measured here.

        Raises:
            TaskError: One cannot.
        """
        is_here = self._task.resources.executor == "process"  # devices of a cluster are not read
        measures_energy = is_here and self._meter.measures_energy
        admission.check_measurable(self._task, measures_energy=measures_energy)

    def metered(self, executor: Executor) -> MeteredExecutor:
        """Return an Executor that measures what the trials of another one use of devices."""
        return MeteredExecutor(executor, self._meter)

    def usage_accounting(self, writer: StudyWriter, loading_s: float) -> UsageAccounting:
        """Return an observer that records waiting times; the model took `loading_s` to load."""
        return UsageAccounting(
            writer.write_event, self._clock, lambda: self._meter.model, loading_s
        )

    def explain_refusal(self, config: Config, trials: Sequence[Trial]) -> str | None:
        """Return why a configuration cannot fit in memory; None where it may fit.

        Args:
            config: Configuration to be run.
            trials: Trials of this study so far.
        """
        with self._lock:
            for kind, estimator in self._estimators.items():
                reason = estimator.explain_refusal(config, self._collect_observations(kind, trials))
                if reason is not None:
                    return reason
            return None

    def estimate_mb(self, config: Config, trials: Sequence[Trial]) -> float | None:
        """Return the memory to reserve for a configuration: on each device, else on the host.

        Infinity for an exclusive trial, which may need a whole device or ran out of memory beside
        others. None where too little is known; what the task declares is reserved then.

        Args:
            config: Configuration to be run.
            trials: Trials of this study so far.
        """
        gpus = self._task.resources.gpus
        kind: MemoryKind = "device" if gpus else "host"
        if must_rerun_exclusively(config, trials):
            return math.inf
        with self._lock:
            observations = self._collect_observations(kind, trials)
            if kind == "host" and len(observations) < _MIN_OBSERVATIONS:
                return None
            if kind == "device" and not observations and gpus < 1:
                return None
            usable_mb = None
            if kind == "device":
                usable_mb = _find_largest([gpu.usable_mb for gpu in self.inventory.gpus])
            estimate = self._estimators[kind].estimate(config, observations, usable_mb)
        return math.inf if estimate.exclusive else estimate.mb

    def close(self) -> None:
        """Close the connection to the devices. May be called twice."""
        if self._nvml is not None:
            self._nvml.close()

    def _collect_observations(
        self, kind: MemoryKind, trials: Sequence[Trial]
    ) -> list[PeakObservation]:
        return self._earlier[kind] + read_observations(trials, kind)

    @cached_property
    def _earlier(self) -> dict[MemoryKind, list[PeakObservation]]:
        # A separate connection: the Creator's thread reads while the writer uses the other one.
        trials = read_related_trials(Store(self._store.home), self._key, self._task)
        return {kind: read_observations(trials, kind) for kind in self._estimators}


def find_memory_limits(task: Task, inventory: Inventory) -> dict[MemoryKind, MemoryLimit]:
    """Return the limits of a trial's memory: of the host, and of a device if it uses devices.

    Memory that other programs hold does not lower them: it may be freed.
    """
    limits = [mb for mb in (task.resources.memory_mb, inventory.memory_mb) if mb is not None]
    found: dict[MemoryKind, MemoryLimit] = {
        "host": MemoryLimit(min(limits, default=None), "memory", task.resources.memory_mb)
    }
    if task.resources.gpus:
        largest_mb = _find_largest([gpu.memory_mb for gpu in inventory.gpus])
        found["device"] = MemoryLimit(largest_mb, "GPU memory", task.resources.gpu_memory_mb)
    return found


def _find_largest(sizes: Sequence[float | None]) -> float | None:
    """Return the largest size; None where one is not known."""
    known = [mb for mb in sizes if mb is not None]
    return max(known, default=None) if len(known) == len(sizes) else None
