"""Measure the time that LocalHPO itself takes of a study's wall clock.

The trials of a study, one at a time, sleep for a given length and report before and after; a
model and an engine propose. The stored times of each trial add up to the wall clock:

- propose: from the end of the trial before, as recorded, to the start: proposal, and records;
- launch: from the start to the script's first line: supervisor and interpreter;
- finish: from the script's last report to the recorded end.

Overhead is the sum of the three; the rest is training. Contestants take turns, several times:

    python -m scripts.benchmarks.measure.loop [--creators random bo agent] [--lengths 1 10 60]
    python -m scripts.benchmarks.measure.loop --backend vllm --creators agent

The bare line runs the same script in a plain subprocess, for a length of 0: what any tuner pays.
The time to open a model, once per study, is shown separately; imports are not measured. A vLLM
server is started once for all studies.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from localhpo import Study
from localhpo.llm import open_backend
from localhpo.store import Event
from localhpo.task import parse_task
from localhpo.trial import Trial

SCRIPT = """
import json, os, sys, time

def report(step, loss):
    line = json.dumps({"step": step, "loss": loss, "time": time.time()})
    if path := os.environ.get("LOCALHPO_METRICS"):
        with open(path, "a") as file:
            file.write(line + "\\n")

loss = sum((float(value) - 0.3) ** 2 for value in sys.argv[3::2])
report(0, loss)
time.sleep(float(sys.argv[1]))
report(1, loss)
"""
PARAMETERS = [f"parameter_{i}" for i in range(5)]
ENGINES = ("random", "bo", "tpe", "gp", "cmaes")


@dataclass(frozen=True, slots=True)
class TimeBreakdown:
    """The parts of the wall clock of one study, in seconds."""

    opened_s: float
    """From the call to the loop's begin: the model is loaded, or its server started."""
    wall_s: float
    """From the loop's begin to its end."""
    propose_s: tuple[float, ...]
    """One for each trial, as in the next three."""
    launch_s: tuple[float, ...]
    training_s: tuple[float, ...]
    finish_s: tuple[float, ...]
    origins: Counter[str]
    """Number of proposals by origin."""

    @property
    def overhead_s(self) -> list[float]:
        """Overhead of each trial."""
        parts = zip(self.propose_s, self.launch_s, self.finish_s, strict=True)
        return [sum(part) for part in parts]

    @property
    def idle_share(self) -> float:
        """Share of the loop's wall clock without training."""
        return 1 - sum(self.training_s) / self.wall_s


def break_down_time(
    trials: Sequence[Trial], events: Sequence[Event], called_at: float
) -> TimeBreakdown:
    """Return the parts of the time of a study whose trials ran one after another."""
    (begun,) = (event.time for event in events if event.kind == "begun")
    (ended,) = (event.time for event in events if event.kind == "ended")
    starts = [trial.started_at or 0.0 for trial in trials]
    ends = [trial.finished_at or 0.0 for trial in trials]
    firsts = [trial.measurements[0].time for trial in trials]
    lasts = [trial.measurements[-1].time for trial in trials]
    return TimeBreakdown(
        opened_s=begun - called_at,
        wall_s=ended - begun,
        propose_s=_between([begun, *ends[:-1]], starts),
        launch_s=_between(starts, firsts),
        training_s=_between(firsts, lasts),
        finish_s=_between(lasts, ends),
        origins=Counter(str(trial.proposal.origin) for trial in trials),
    )


def run_study(creator: str, backend: str, length_s: float, trials: int) -> TimeBreakdown:
    """Run a study in a store of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "wait.py").write_text(SCRIPT)
        table = {
            "task": {
                "name": "wait",
                "command": ["python", "wait.py", str(length_s)],
                "metric": "loss",
                "direction": "minimize",
            },
            "space": {one: {"type": "float", "low": 0.0, "high": 1.0} for one in PARAMETERS},
            "budget": {"trials": trials},
            # Without this, an engine could replace the model and be measured under its name.
            "creator": {"name": creator, "backend": backend, "on_model_error": "stop"},
        }
        called_at = time.time()
        with Study.open(parse_task(table, folder=folder), home=folder / "home") as study:
            study.run()
            return break_down_time(study.trials, study.events, called_at)


def bare_s(times: int) -> list[float]:
    """Return the seconds that the script takes by itself, for a length of 0."""
    values = [part for name in PARAMETERS for part in (f"--{name}", "0.5")]
    taken = []
    for _ in range(times):
        begin = time.perf_counter()
        subprocess.run([sys.executable, "-c", SCRIPT, "0", *values], check=True)
        taken.append(time.perf_counter() - begin)
    return taken


def show(
    who: str, length_s: float, courses: Sequence[TimeBreakdown], bare: Sequence[float]
) -> None:
    """Print the line of one contestant: the spread is over its repeats, each by its median."""
    medians = [statistics.median(one.overhead_s) for one in courses]
    ratios = [median / base for median, base in zip(medians, bare, strict=True)]
    parts = [
        f"{1000 * statistics.median(s for one in courses for s in getattr(one, name)):>7.0f}"
        for name in ("propose_s", "launch_s", "finish_s")
    ]
    print(
        f"{who:18} {length_s:>6g}  {spread([1000 * s for s in medians], 0):22} {' '.join(parts)}"
        f"  {spread(ratios, 1):19}  {spread([100 * one.idle_share for one in courses], 1):20}"
        f"  {spread([one.opened_s for one in courses], 1):17}  {_origins(courses)}",
        flush=True,
    )


def spread(values: Sequence[float], digits: int) -> str:
    """Write the median of some values, and their range."""
    middle, low, high = statistics.median(values), min(values), max(values)
    return f"{middle:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _origins(courses: Sequence[TimeBreakdown]) -> str:
    counts = sum((one.origins for one in courses), Counter[str]())
    return ", ".join(f"{count} {origin}" for origin, count in counts.most_common())


def _between(begins: Sequence[float], ends: Sequence[float]) -> tuple[float, ...]:
    return tuple(end - begin for begin, end in zip(begins, ends, strict=True))


def contestants(creators: Sequence[str], backend: str) -> list[str]:
    """Return the Creators that can run here; print which cannot."""
    if backend != "vllm" or importlib.util.find_spec("vllm") is not None:
        return list(creators)
    skipped = [name for name in creators if name not in ENGINES]
    if skipped:
        print(f"skipped: {', '.join(skipped)} on vllm, which is not installed here")
    return [name for name in creators if name in ENGINES]


@contextlib.contextmanager
def served(backend: str) -> Iterator[None]:
    """Keep the backend's server running, if it has one; print how long its start took."""
    if backend != "vllm":
        yield
        return
    begin = time.perf_counter()
    with contextlib.closing(open_backend(backend)):
        print(f"starting the server took {time.perf_counter() - begin:.0f} s")
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--creators", nargs="+", default=["random", "bo", "agent"])
    parser.add_argument("--backend", choices=["transformers", "vllm"], default="transformers")
    parser.add_argument("--lengths", nargs="+", type=float, default=[1.0, 10.0, 60.0])
    parser.add_argument("--trials", type=int, default=5, help="per study")
    parser.add_argument("--repeats", type=int, default=3, help="studies per length")
    options = parser.parse_args()
    creators = contestants(options.creators, options.backend)
    with served(options.backend if set(creators) - set(ENGINES) else ""):
        compare(creators, options)


def compare(creators: Sequence[str], options: argparse.Namespace) -> None:
    """Run the studies of all contestants, and print their lines."""
    for name in creators:  # imports and the first use of files are not measured
        run_study(name, options.backend, 0.0, 1)
    print("overhead per trial in ms, and its parts: median over trials, range over repeats")
    print(
        f"{'creator':18} {'length':>6}  {'overhead':22} {'propose':>7} {'launch':>7} {'finish':>7}"
        f"  {'times bare':19}  {'not training, %':20}  {'opening, s':17}  proposals"
    )
    for length_s in options.lengths:
        courses: dict[str, list[TimeBreakdown]] = {name: [] for name in creators}
        bare = []
        for _ in range(options.repeats):
            bare.append(statistics.median(bare_s(options.trials)))
            for name, run in courses.items():
                run.append(run_study(name, options.backend, length_s, options.trials))
        print(f"{'bare':18} {0:>6}  {spread([1000 * s for s in bare], 0)}")
        for name, run in courses.items():
            who = name if name in ENGINES else f"{name}, {options.backend}"
            show(who, length_s, run, bare)


if __name__ == "__main__":
    main()
