"""Measures the time of one proposal: ten hyperparameters, ten trials in the history.

    python -m scripts.benchmarks.measure.proposals
    python -m scripts.benchmarks.measure.proposals --creators agent,gp --studies 10

The space is that of the ready task breast-cancer-xgboost. Each study is a new one, so
no result is reused. `hybrid` asks a small model once in a study: the first
proposal asks it, the second one does not. What opening the Creator takes is shown apart.
"""

from __future__ import annotations

import argparse
import dataclasses
import statistics
import time

import numpy as np

from localhpo import tasks
from localhpo.creator import Creator, History, open_creator
from localhpo.task import Task, load_task
from localhpo.trial import Origin, Proposal, State, Trial

TRIALS = 10


def main() -> None:
    """Print a line for each Creator."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--creators", default="hybrid,agent,bo,gp,tpe")
    parser.add_argument("--studies", type=int, default=20)
    options = parser.parse_args()
    print(f"{'creator':12}{'opening':>10}{'first':>10}{'second':>10}   seconds (medians)")
    for name in options.creators.split(","):
        opening, first, second = measured(name, options.studies)
        print(f"{name:12}{opening:10.2f}{first:10.3f}{second:10.3f}")


def measured(name: str, studies: int) -> tuple[float, float, float]:
    """Return the seconds that opening takes, and the medians of two proposals in a study."""
    task = load_task(tasks.find("breast-cancer-xgboost"))
    task = dataclasses.replace(task, creator=dataclasses.replace(task.creator, name=name))
    started = time.perf_counter()
    creator = open_creator(task)
    try:
        creator.propose(history(task, studies), 1)  # what is loaded late is loaded now
        opening = time.perf_counter() - started
        taken = [
            [seconds(creator, history(task, seed)) for _ in range(2)] for seed in range(studies)
        ]
    finally:
        creator.close()
    first, second = (statistics.median(column) for column in zip(*taken, strict=True))
    return opening, first, second


def seconds(creator: Creator, past: History) -> float:
    """Return how long one proposal takes."""
    started = time.perf_counter()
    creator.propose(past, 1)
    return time.perf_counter() - started


def history(task: Task, seed: int) -> History:
    """Return a study of random trials whose values depend on their configurations."""
    rng = np.random.default_rng(seed)
    trials = []
    for number in range(TRIALS):
        config = task.space.sample(rng)
        score = 1.0 - float(np.square(task.space.encode(config) - 0.4).mean())
        proposal = Proposal(config=config, origin=Origin(engine="random"))
        trials.append(
            Trial(number=number, state=State.COMPLETE, proposal=proposal, values=(score,))
        )
    return History(task=task, trials=tuple(trials), seed=seed, next_number=TRIALS)


if __name__ == "__main__":
    main()
