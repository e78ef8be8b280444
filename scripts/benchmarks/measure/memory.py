"""Measure how often an estimate of memory is too small, and how much it reserves in vain.

    python -m scripts.benchmarks.measure.memory                 # formulas and real trainings
    python -m scripts.benchmarks.measure.memory --seeds 5 --trials 30 --only formulas

Formulas are a base plus products of sizes, with 2 % noise. Real trainings are networks in numpy,
each in its own process, whose peak the kernel reports (VmHWM). After n measured trials the next
random one is estimated and then run. Covered is the share of trials whose peak was within the
estimate; excess is estimate / peak. Estimates are not limited by the size of a device.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable

import numpy as np

from localhpo.resources.memory import MemoryEstimator, MemoryLimit, PeakObservation
from localhpo.space import Space
from localhpo.trial import Config

SPACE = Space.from_table(
    {
        "batch": {"type": "int", "low": 16, "high": 4096, "log": True},
        "hidden": {"type": "int", "low": 32, "high": 1024, "log": True},
        "layers": {"type": "int", "low": 1, "high": 6},
        "rate": {"type": "float", "low": 1e-5, "high": 1e-1, "log": True},
        "dropout": {"type": "float", "low": 0.0, "high": 0.5},
        "kind": {"type": "categorical", "values": ["relu", "tanh"]},
    }
)
STAGES = ((1, 1), (2, 2), (3, 5), (6, 10), (11, 20), (21, 40))

TRAINING = """
import json, sys
import numpy as np
c = json.loads(sys.argv[1])
rng = np.random.default_rng(0)
act = np.tanh if c["kind"] == "tanh" else lambda a: np.maximum(a, 0)
x = rng.standard_normal((c["batch"], 64))
sizes = [64] + [c["hidden"]] * c["layers"] + [1]
weights = [rng.standard_normal(s) * 0.05 for s in zip(sizes, sizes[1:])]
for step in range(2):
    kept = [x]
    for w in weights:
        kept.append(act(kept[-1] @ w))
    grad = kept[-1] - 1
    for i in reversed(range(len(weights))):
        step_of_i = kept[i].T @ grad
        grad = grad @ weights[i].T
        weights[i] -= c["rate"] * step_of_i / c["batch"]
status = open("/proc/self/status").read()
print(int(status.split("VmHWM:")[1].split()[0]) / 1024)
"""


def make_formula(seed: int) -> Callable[[Config], float]:
    rng = np.random.default_rng(seed)
    base, large = rng.uniform(150, 1500), 10 ** rng.uniform(2.5, 4.5)
    part = rng.uniform(0, 1)

    def peak_mb(config: Config) -> float:
        batch, hidden, layers = (int(config[n]) for n in ("batch", "hidden", "layers"))
        wide = 1.3 if config["kind"] == "tanh" else 1.0
        weights = layers * hidden**2 / (6 * 1024**2)
        activations = wide * layers * batch * hidden / (6 * 4096 * 1024)
        noise = 1 + 0.02 * rng.standard_normal()
        return float((base + large * (part * weights + (1 - part) * activations)) * noise)

    return peak_mb


def train(config: Config) -> float:
    command = [sys.executable, "-c", TRAINING, json.dumps(dict(config))]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def measure(peak_mb: Callable[[Config], float], seed: int, trials: int) -> list[tuple[int, float]]:
    """Return (number of trials measured before, estimate / peak) for each trial but the first."""
    rng = np.random.default_rng(seed)
    estimator, observations = MemoryEstimator(SPACE, MemoryLimit(None)), list[PeakObservation]()
    found = []
    for n in range(trials):
        config = SPACE.sample(rng)
        estimate_mb = estimator.estimate(config, observations).mb
        peak = peak_mb(config)
        if estimate_mb is not None:
            found.append((n, estimate_mb / peak))
        observations.append(PeakObservation(config, peak))
    return found


def print_table(title: str, found: list[tuple[int, float]]) -> None:
    print(f"{title}: {len(found)} estimates")
    print("  measured before   estimates  covered  worst  excess (median, 90 %)")
    for low, high in STAGES:
        ratios = np.array([ratio for n, ratio in found if low <= n <= high])
        if ratios.size:
            middle, most = np.quantile(ratios, [0.5, 0.9])
            print(
                f"  {f'{low}-{high}':>15}   {ratios.size:>9}  {np.mean(ratios >= 1):>7.3f}"
                f"  {ratios.min():>5.2f}  {middle:>6.2f}, {most:.2f}",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=25)
    parser.add_argument("--only", choices=["formulas", "trainings"])
    options = parser.parse_args()
    seeds = range(options.seeds)
    if options.only != "trainings":
        found = [measure(make_formula(seed), seed, options.trials) for seed in seeds]
        print_table("formulas", [one for part in found for one in part])
    if options.only != "formulas":
        found = [measure(train, 1000 + seed, options.trials) for seed in seeds]
        print_table("numpy trainings", [one for part in found for one in part])


if __name__ == "__main__":
    main()
