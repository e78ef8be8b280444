"""Time what it costs to record a trial: LocalHPO's store beside Optuna's two.

Each trial has 10 parameters and 20 reported values; nothing is trained. All stores are timed in
turn, several times, in the same folder, so that they see the same disk and the same load:

    python -m scripts.benchmarks.measure.store [--trials 50] [--repeats 5] [--folder DIR]

- localhpo: queued, running and complete are each synced to disk, the values appended; the
  tables are flushed as a study does it: after every trial, though at most once a second, and
  at the end;
- localhpo, eager: the tables are brought up to date after every trial;
- Optuna: a study on JournalStorage, or on RDBStorage with SQLite; ask, report, tell.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from localhpo.store import Store, StudyRecord
from localhpo.trial import USER, Measurement, Proposal, State, Trial

PARAMETERS = [f"parameter_{i}" for i in range(10)]
STEPS = 20


def run_localhpo(folder: Path, trials: int, *, eager: bool) -> None:
    store = Store(folder)
    store.create_study(StudyRecord("bench/main", "bench", {}, time.time(), "0"))
    with store.writer("bench/main") as writer:
        for number in range(trials):
            config = {name: number / 7 for name in PARAMETERS}
            trial = Trial(number, State.QUEUED, Proposal(config, USER), queued_at=time.time())
            writer.write_trial(trial)
            trial = trial.to(State.RUNNING, started_at=time.time())
            writer.write_trial(trial)
            for step in range(STEPS):
                writer.write_measurements(
                    number, [Measurement(step, "loss", 1 / (step + 1), time.time())]
                )
            writer.write_trial(trial.to(State.COMPLETE, values=(0.05,), finished_at=time.time()))
            writer.flush(now=eager)


def run_optuna(folder: Path, trials: int, *, kind: str) -> None:
    import optuna
    from optuna.storages import JournalStorage, RDBStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir()
    if kind == "journal":
        storage = JournalStorage(JournalFileBackend(str(folder / "journal.log")))
    else:
        storage = RDBStorage(f"sqlite:///{folder / 'optuna.db'}")
    study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(trials):
        trial = study.ask()
        for name in PARAMETERS:
            trial.suggest_float(name, 0, 1)
        for step in range(STEPS):
            trial.report(1 / (step + 1), step)
        study.tell(trial, 0.05)


CONTESTANTS: dict[str, Callable[[Path, int], None]] = {
    "localhpo": lambda folder, trials: run_localhpo(folder, trials, eager=False),
    "localhpo, eager": lambda folder, trials: run_localhpo(folder, trials, eager=True),
    "optuna journal": lambda folder, trials: run_optuna(folder, trials, kind="journal"),
    "optuna sqlite": lambda folder, trials: run_optuna(folder, trials, kind="sqlite"),
}


def measure_ms_per_trial(name: str, trials: int, parent: Path) -> float:
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        begin = time.perf_counter()
        CONTESTANTS[name](Path(folder) / "home", trials)
        return (time.perf_counter() - begin) / trials * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description="Time what it costs to record a trial.")
    parser.add_argument("--trials", type=int, default=50, help="per repeat")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    arguments = parser.parse_args()
    parent = arguments.folder or Path.cwd()
    for name in CONTESTANTS:  # imports and the first use of the disk are not measured
        measure_ms_per_trial(name, 1, parent)
    times: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
    for _ in range(arguments.repeats):
        for name, measured in times.items():
            measured.append(measure_ms_per_trial(name, arguments.trials, parent))
    print(f"{'':16}  ms per trial: median (range)   times localhpo: median (range)")
    for name, measured in times.items():
        ratios = [a / b for a, b in zip(measured, times["localhpo"], strict=True)]
        print(f"{name:16}  {format_spread(measured):29}  {format_spread(ratios)}")


def format_spread(values: list[float]) -> str:
    return f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
