"""Check LocalHPO on a machine with an NVIDIA GPU, in under ten minutes.

    python -m scripts.gpu_smoke

It compares the numbers of NVML with those of torch for the same device, and the memory that the
inventory calls usable with what processes really get. It runs two studies: one whose trial asks
for more memory than the device has, and one whose trials share the device with the model. The
model runs in a vLLM server where vLLM for GPUs is installed, else in this process. Each check
prints one line with its numbers: ok, FAILED or skipped. The exit code is 1 where one failed.
Without a GPU nothing is checked, and the exit code is 0.

The first device of CUDA_VISIBLE_DEVICES is used, or the first of the machine. No other program
should use it meanwhile.
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

from localhpo.resources import inventory as devices
from localhpo.resources import nvml, simulated_inventory
from scripts.gpu_smoke.device import Bench, check_growth, check_inventory, check_meter, check_totals
from scripts.gpu_smoke.model import OpenedModel, check_sleep, open_model
from scripts.gpu_smoke.studies import check_out_of_memory, check_shared_device
from scripts.gpu_smoke.verdict import run_check

CHECKS_WITHOUT_MODEL = {
    "numbers": check_totals,
    "process": check_growth,
    "meter": check_meter,
    "inventory": check_inventory,
    "out of memory": check_out_of_memory,
}
"""Checks that need the device to themselves, before the model is loaded."""


def run_checks(bench: Bench) -> bool:
    """Run all checks; return whether none failed."""
    passed = [
        run_check(name, partial(check, bench)) for name, check in CHECKS_WITHOUT_MODEL.items()
    ]
    opened: list[OpenedModel] = []

    def check_opening() -> str:
        opened.append(open_model(bench.gpu))
        return f"{opened[0].backend.model.name}, opened in {opened[0].opened_s:.1f} s"

    passed.append(run_check("model", check_opening))
    for model in opened:
        with contextlib.closing(model.backend):
            passed.append(run_check("sleep", partial(check_sleep, bench, model)))
            passed.append(run_check("beside the model", partial(check_shared_device, bench, model)))
    return all(passed)


def main() -> int:
    """Run the checks; return the exit code."""
    argparse.ArgumentParser(description=__doc__.split("\n\n")[0]).parse_args()
    os.environ.pop(simulated_inventory.VARIABLE, None)  # use the real devices
    gpus = devices.find_gpus()
    if not gpus:
        print("no NVIDIA GPU was found: nothing was checked")
        return 0
    if nvml.read_devices() is None:
        print("FAILED   a GPU was found, but NVML cannot be used: pip install 'localhpo[gpu]'")
        return 1
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus[0].id
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        passed = run_checks(Bench(gpus[0], Path(folder)))
    print(f"{'no check failed' if passed else 'a check failed'}, {time.monotonic() - begin:.0f} s")
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
