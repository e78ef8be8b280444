"""Where the model's server is while trials run: resident, offloaded or stopped.

The memory that it holds counts like that of trials: all of it from the moment on at which it is to
be restored, less only once it is offloaded. What sleep freed is measured: sleep that freed less
than half counts as none, and the server is stopped instead from then on.

The loop's thread decides. Its worker does the rest, one job after another: waking the model up,
asking it, and offloading it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from localhpo.errors import InputError, ModelError
from localhpo.executor.clock import Clock
from localhpo.resources import placement
from localhpo.resources.placement import Assignment, Inventory, MemoryNeed
from localhpo.resources.trial_slots import SlotCounter, TrialSlots
from localhpo.scheduler import sharing
from localhpo.scheduler.loaded_model import (
    InProcessModel,
    LoadedModel,
    OffloadMethod,
    ServerState,
)
from localhpo.scheduler.server_events import ServerEvent, ServerEventQueue, Transition
from localhpo.scheduler.sharing import (
    STATE_AFTER,
    SharingMode,
    SharingStatistics,
)
from localhpo.task import Resources

_MAX_ASLEEP_SHARE = 0.5
"""Sleep that leaves more than this share of the memory held counts as failed."""

_ASSIGNMENT_OF_MODE: Mapping[SharingMode, str] = {
    "resident": "resident",
    "device": "own device",
    "sleep": "sleep",
    "stop": "stop",
    "cpu": "resident",
}
"""Mode -> name of what the server holds in it while trials run."""


class ModelResidency:
    """Keeps the model's server resident or offloads it, as the mode of sharing requires.

    Args:
        model: The loaded model; None where its memory does not concern the trials.
        resources: Resources per trial, and the user's setting for sharing memory.
        inventory: Resources of the machine.
        clock: Measures how long the server takes.

    Raises:
        InputError: the model does not fit this machine.
    """

    def __init__(
        self,
        model: LoadedModel | None,
        *,
        resources: Resources,
        inventory: Inventory,
        clock: Clock,
    ) -> None:
        self._model = model or InProcessModel()
        self.shares_memory = model is not None
        """Whether the model holds memory that trials could use."""
        self._resources = resources
        self._inventory = inventory
        self._clock = clock
        self._state: ServerState = "resident"
        self._wake_failed = False
        self._offloaded_at_s = 0.0  # a worker in simulated time ends before that time has come
        self._failed_methods: set[OffloadMethod] = set()
        self._asleep_mb: float | None = None  # None before it was measured
        self._sleep_host_mb = 0.0
        self._mode: SharingMode | None = None  # before the first choice
        self.wake_pending = False
        """Whether to restore it as soon as there is enough free memory."""
        self._statistics = SharingStatistics(0, 0, None, None)
        self._events = ServerEventQueue()
        self._slot_counter = SlotCounter(resources, inventory)
        self._slots: Mapping[str, TrialSlots] = {}
        assignment = None if model is None else model.assignment
        if why := sharing.why_no_effect(resources.sharing, assignment):
            self._events.warn(f'sharing = "{resources.sharing}" has no effect: {why}')
        if not placement.fits_in_memory(inventory, [], self._model.assignment):
            raise InputError(
                f"the model needs {self._resident_mb:.0f} MB, more than its device has",
                hint="choose a smaller model, or a quantized one",
            )

    @property
    def mode(self) -> SharingMode:
        """Present mode of sharing memory."""
        return self._mode or "resident"

    @property
    def is_ready(self) -> bool:
        """Whether the model can be asked without waking it up first.

        True also after it failed to wake up: asking it then raises an error, which the Creator
        handles; waking it up again before each call would not help.
        """
        return self._state == "resident" or self._wake_failed

    @property
    def current_assignment(self) -> Assignment:
        """What the model holds now."""
        if self._state == "resident" or self._clock.monotonic() < self._offloaded_at_s:
            return self._assignment_in_mode
        return self._offloaded_assignment("sleep" if self._state == "offloaded" else "stop")

    @property
    def reserved_assignment(self) -> Assignment:
        """What trials must leave to the model: what it holds, or will hold once restored.

        Otherwise one trial would follow another on its device, and it could never be restored.
        """
        return self._assignment_in_mode if self.wake_pending else self.current_assignment

    @property
    def resident_assignment(self) -> Assignment:
        """What the model holds while it is resident."""
        return self._model.assignment

    @property
    def smallest_assignment_now(self) -> Assignment:
        """The least that it can hold now, while a trial runs that needs all memory there is."""
        methods = self._methods_now
        if self._resources.sharing in ("resident", "device", "cpu") or not methods:
            return self._model.assignment
        return self._offloaded_assignment("sleep" if "sleep" in methods else "stop")

    @property
    def smallest_assignment(self) -> Assignment:
        """The least that it can ever hold, with the most expensive offload method."""
        methods = self._methods
        if self._resources.sharing in ("resident", "device", "cpu") or not methods:
            return self._model.assignment
        return self._offloaded_assignment("stop" if "stop" in methods else "sleep")

    @property
    def slots(self) -> int:
        """Largest number of trials that run at once in the present mode.

        Before the first proposals, which precede the choice of a mode: in any mode.
        """
        if self._resources.sharing == "auto" and not self._statistics.sizes_known:
            return max(self._slots[name].most for name in ("resident", *self._methods_now))
        return self._slots[_ASSIGNMENT_OF_MODE[self.mode]].most

    @property
    def prefetch_count(self) -> int:
        """Number of proposals to prefetch beyond these slots."""
        return sharing.count_prefetch(self.mode, max(1, self.slots), self._statistics)

    def take_events(self) -> list[ServerEvent]:
        """Remove and return the events since the last call."""
        return self._events.take()

    def choose_mode(
        self,
        needs: Sequence[MemoryNeed],
        *,
        trial_s: float,
        propose_s: float,
        results: int,
        sizes_known: bool = True,
    ) -> None:
        """Choose the mode again, from the present statistics.

        What other studies hold is ignored: they come and go, and limit only what is started.

        Args:
            needs: Memory of the last trials; those that can never run do not count.
            trial_s: Mean length of the trials that have ended; else how long the longest has run.
            propose_s: Measured time of one call for proposals.
            results: Number of trials that have ended.
            sizes_known: Whether `needs` are those of trials, not assumed.
        """
        resident, methods = self._model.assignment, self._methods_now
        if self._state == "resident":
            self._sleep_host_mb = self._model.sleep_host_mb
        assignments = {
            "resident": resident,
            "own device": dataclasses.replace(resident, gpu_share=1.0),
            "sleep": self._offloaded_assignment("sleep"),
            "stop": self._offloaded_assignment("stop"),
        }
        self._slots = self._slot_counter.count_beside(assignments, needs, self.smallest_assignment)
        means = {name: slots.mean for name, slots in self._slots.items()}
        self._statistics = SharingStatistics(
            slots_resident=means["resident"],
            slots_elsewhere=means["own device"] if resident.gpus else 0.0,
            slots_asleep=means["sleep"] if "sleep" in methods else None,
            slots_stopped=means["stop"] if "stop" in methods else None,
            propose_s=propose_s,
            trial_s=trial_s,
            results=results,
            sizes_known=sizes_known,
            contended=bool(resident.gpus) == (self._resources.gpus > 0),
        )
        decision = sharing.choose_mode(self._resources.sharing, self._statistics, self._mode)
        if decision.mode != self._mode and self.shares_memory:
            self._events.add_decision(decision, self._statistics)
        self._mode = decision.mode

    # Asking.

    def should_ask(self, buffered: int, running: int) -> bool:
        """Return whether a call for proposals is worth restoring the model, where it is offloaded.

        Always, in a mode that keeps it resident.
        """
        if self.mode not in STATE_AFTER:
            return True
        return sharing.should_ask(
            is_resident=self.is_ready,
            buffered=buffered,
            running=running,
            slots=self.slots,
            elsewhere=self._statistics.slots_elsewhere,
        )

    def begin_wake(self) -> Callable[[], None]:
        """Count the model as resident; return the job for the worker that makes it so."""
        before, self._state = self._state, "resident"
        return lambda: self._wake(before)

    # Offloading.

    def find_offload(
        self,
        need: MemoryNeed,
        held: Sequence[Assignment],
        others: Sequence[Assignment],
        *,
        is_last: bool,
    ) -> OffloadMethod | None:
        """Return the offload method that lets a trial start now; None where there is none.

        A more expensive method than the mode's own is used for trials that could never run
        otherwise, and for a model that is no longer needed.

        Args:
            need: Memory of the trial.
            held: What the running trials of this study hold.
            others: What other studies hold.
            is_last: Whether the model will not be asked again.
        """
        if self._model.shared:
            return self._find_leave(need)
        if self._state == "stopped":  # to put it to sleep would take memory
            return None
        setting = self._resources.sharing
        by_mode = self.mode in STATE_AFTER
        never_fits = not self._slot_counter.count(need, self._model.assignment)
        forced = setting == "auto" and never_fits
        at_end = is_last and setting in ("auto", "device")
        if not (by_mode or forced or at_end):
            return None
        first: OffloadMethod = "stop" if self.mode == "stop" else "sleep"
        is_enough = (
            first in self._methods
            and self._slot_counter.count(need, self._offloaded_assignment(first)) > 0
        )
        for method in sorted(self._methods, key=lambda method: method != first):
            if self._state == STATE_AFTER[method]:
                continue
            if method != first and is_enough and not at_end:
                continue
            beside = [*others, self._offloaded_assignment(method)]
            place = placement.place_trial(
                self._resources, self._inventory, held, need=need, others=beside
            )
            if place is not None:
                return method
        return None

    def _find_leave(self, need: MemoryNeed) -> OffloadMethod | None:
        """Return "stop" where this study must leave a shared server to run a trial at all.

        The other studies may offload it once they are alone with it. If this study kept using it,
        two studies could wait for each other for ever.
        """
        may_stop = (
            self._resources.sharing in ("auto", "sleep", "stop")
            and "stop" in self._model.offload_methods
        )
        fits = self._slot_counter.count(need, self._model.assignment)
        return "stop" if may_stop and self._state == "resident" and not fits else None

    def offload(self, method: OffloadMethod) -> None:
        """Free the model's memory; a job for the worker."""
        try:
            if method == "sleep":
                self._sleep()
            else:
                self._stop()
            self._wake_failed = False
        except ModelError as error:
            self._failed_methods.add(method)
            self._events.warn(f"the model's server could not {method}: {error}")
            self._read_state()
        self._offloaded_at_s = self._clock.monotonic()

    @property
    def _resident_mb(self) -> float:
        return max(self._model.assignment.memory_mb, self._model.assignment.gpu_memory_mb)

    @property
    def _assignment_in_mode(self) -> Assignment:
        """What it holds while resident: in mode `device` it has its device to itself."""
        share = 1.0 if self.mode == "device" else self._model.assignment.gpu_share
        return dataclasses.replace(self._model.assignment, gpu_share=share)

    @property
    def _methods(self) -> frozenset[OffloadMethod]:
        """Offload methods that work and that the user allows."""
        methods = self._model.offload_methods - self._failed_methods
        setting = self._resources.sharing
        if setting in ("resident", "cpu"):
            return frozenset()
        if setting == "stop" or (setting == "sleep" and "sleep" not in methods):
            return methods & {"stop"}
        return methods & {"sleep"} if setting == "sleep" else methods

    @property
    def _methods_now(self) -> frozenset[OffloadMethod]:
        """Methods that free memory now: none while another study uses the server."""
        return frozenset() if self._model.shared else self._methods

    def _offloaded_assignment(self, method: OffloadMethod) -> Assignment:
        """Return what the model holds once it is offloaded."""
        assignment = self._model.assignment
        left_mb = 0.0
        if method == "sleep":
            left_mb = min(2048.0, 0.1 * self._resident_mb)  # until it was measured
            left_mb = left_mb if self._asleep_mb is None else self._asleep_mb
        if assignment.gpus:
            host_mb = self._sleep_host_mb if method == "sleep" else 0.0
            return dataclasses.replace(assignment, gpu_memory_mb=left_mb, memory_mb=host_mb)
        return dataclasses.replace(assignment, memory_mb=left_mb)

    # Jobs of the worker.

    def _wake(self, before: ServerState) -> None:
        if before == "resident":
            return
        try:
            transition: Transition = "wake" if before == "offloaded" else "start"
            took_s = self._measure_s(self._model.wake)
            self._events.add_transition(transition, took_s, None, self._model.measure_mb())
        except ModelError as error:
            self._events.warn(f"the model's server could not be woken up: {error}")
            self._read_state()
            self._wake_failed = self._state != "resident"

    def _read_state(self) -> None:
        """Read the state from the server itself, after a transition that failed half way."""
        self._state = self._model.state
        if self._state == "offloaded":
            left_mb = self._model.measure_mb()
            self._asleep_mb = self._resident_mb if left_mb is None else left_mb
            self._sleep_host_mb = self._model.sleep_host_mb

    def _sleep(self) -> None:
        before_mb = self._model.measure_mb()
        took_s = self._measure_s(self._model.sleep)
        after_mb = self._model.measure_mb()
        if before_mb is not None and after_mb is not None:
            if after_mb <= _MAX_ASLEEP_SHARE * before_mb:
                self._asleep_mb, self._state = after_mb, "offloaded"
                self._sleep_host_mb = self._model.sleep_host_mb
                self._events.add_transition("sleep", took_s, before_mb, after_mb)
                return
            result = f"sleep freed {before_mb - after_mb:.0f} of {before_mb:.0f} MB"
        else:
            result = "the memory that sleep frees cannot be measured here"
        self._failed_methods.add("sleep")
        if "stop" in self._model.offload_methods:
            self._events.warn(f"{result}: the model's server is stopped instead, now and later")
            self._stop()
        else:
            self._events.warn(f"{result}: the model's server stays in memory")
            self._model.wake()

    def _stop(self) -> None:
        transition: Transition = "leave" if self._model.shared else "stop"
        before_mb = self._model.measure_mb()
        took_s = self._measure_s(self._model.stop)
        self._state = "stopped"
        self._events.add_transition(transition, took_s, before_mb, self._model.measure_mb())

    def _measure_s(self, transition: Callable[[], None]) -> float:
        """Run a transition of the server; return how long it took."""
        began = self._clock.monotonic()
        transition()
        return self._clock.monotonic() - began
