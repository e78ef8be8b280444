"""Environment variables that keep libraries of language models offline: no hub, no telemetry.

The libraries read these variables once, on import. So the variables are restored afterwards: the
libraries stay offline in this process, and trials and the user's scripts see their own
environment.
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
"""Has threads of the model sleep between forward passes. By default they spin, and beside a busy
process, such as a trial, are 13 times slower."""


def cuda_device_order() -> Mapping[str, str]:
    """Return the variable that makes CUDA number devices as `nvidia-smi` does.

    The user and the placement of trials use these numbers; by default CUDA puts the fastest device
    first. CUDA reads the variable on its first use. An order that the user set is kept.
    """
    return {"CUDA_DEVICE_ORDER": os.environ.get("CUDA_DEVICE_ORDER", "PCI_BUS_ID")}


@contextmanager
def imported_offline() -> Iterator[None]:
    """Keep the libraries that a block imports offline."""
    variables = (
        dict(OFFLINE_VARIABLES) if "torch" in sys.modules else {**OFFLINE_VARIABLES, **PASSIVE_WAIT}
    )
    with set_environment(variables):
        yield


@contextmanager
def set_environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables for a block and for the processes that it starts."""
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
