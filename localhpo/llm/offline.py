"""What libraries of language models are told by the environment: every hub and telemetry is off.

They read these variables once, when they are imported. So the variables are put back
afterwards: the libraries stay offline in this process, while a trial started later, or a script
of the user's, finds the environment as its owner left it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

OFFLINE_VARIABLES: Mapping[str, str] = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}
PASSIVE_WAIT: Mapping[str, str] = {"OMP_WAIT_POLICY": "PASSIVE"}
"""Threads of the model sleep between passes. While they spin, as they do by default, a busy
neighbor makes them 13 times slower; and there is always one, a trial."""


def cuda_device_order() -> Mapping[str, str]:
    """Return the variable that has an index mean the device it means to `nvidia-smi`.

    It is what the user, and the placement of trials, take it for; CUDA would count the fastest
    first. It reads the variable once, where it is first used. An order that the user chose stays.
    """
    return {"CUDA_DEVICE_ORDER": os.environ.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID")}


@contextmanager
def imported_offline() -> Iterator[None]:
    """Set the switches for the imports of a block."""
    wanted = (
        dict(OFFLINE_VARIABLES) if "torch" in sys.modules else {**OFFLINE_VARIABLES, **PASSIVE_WAIT}
    )
    with set_environment(wanted):
        yield


@contextmanager
def set_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for a block, and for the processes that are started in it."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
