"""Check on a machine with an NVIDIA GPU what no stand-in can show, in under ten minutes.

    python -m scripts.gpu_smoke

It holds the numbers of NVML against those that torch has of the same device, the ledger of
memory against what processes really get, and runs studies: one whose trial asks for more than
the device has, and one whose trials share the device with the model's server. That is vLLM with
the built-in model where vLLM for GPUs is installed, else the model in this process, which the
line on sleep says. Each check prints one line: ok, FAILED or skipped, with its numbers. The exit
code is 1 where one failed. Without a GPU nothing is checked, and the exit code is 0.

Everything happens on the first device that CUDA_VISIBLE_DEVICES names, or the first of the
machine. Others should leave it alone meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

from localhpo.scheduler import devices, nvml, simulated
from scripts.gpu_smoke.device import Bench, growth, ledger, metered, totals
from scripts.gpu_smoke.model import Model, open_model, sleeping
from scripts.gpu_smoke.studies import beside, greedy
from scripts.gpu_smoke.verdict import tell

ALONE = {
    "numbers": totals,
    "process": growth,
    "meter": metered,
    "ledger": ledger,
    "out of memory": greedy,
}
"""Checks without a model, which would be company."""


def run_checks(bench: Bench) -> bool:
    """Make all checks; False where one failed."""
    passed = [tell(name, partial(check, bench)) for name, check in ALONE.items()]
    opened: list[Model] = []

    def opening() -> str:
        opened.append(open_model(bench.gpu))
        return f"{opened[0].backend.model.name}, opened in {opened[0].opened_s:.1f} s"

    passed.append(tell("model", opening))
    for model in opened:
        with contextlib.closing(model.backend):
            passed.append(tell("sleep", partial(sleeping, bench, model)))
            passed.append(tell("beside the model", partial(beside, bench, model)))
    return all(passed)


def main() -> int:
    """Check; return the exit code."""
    argparse.ArgumentParser(description=__doc__.split("\n\n")[0]).parse_args()
    os.environ.pop(simulated.VARIABLE, None)  # real devices alone
    gpus = devices.find_gpus()
    if not gpus:
        print("no NVIDIA GPU is to be seen here: nothing was checked")
        return 0
    if nvml.read_once() is None:
        print("FAILED   a GPU is there, but NVML cannot be used: pip install 'localhpo[gpu]'")
        return 1
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus[0].id
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        passed = run_checks(Bench(gpus[0], Path(folder)))
    print(f"{'all is well' if passed else 'something failed'}, {time.monotonic() - begin:.0f} s")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
