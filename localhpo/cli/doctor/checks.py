"""The checks of `localhpo doctor`. Each is a function that yields its findings."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from localhpo.analysis import formatting
from localhpo.errors import LocalHPOError

if TYPE_CHECKING:
    from localhpo.llm.models.registry import ModelListing

_REQUIREMENT = re.compile(r"^(?P<name>[\w.-]+)(?:.*extra\s*==\s*['\"](?P<extra>[\w-]+)['\"])?")
_EXTRAS_OF_USERS = ("local", "vllm", "finetune", "gpu", "ray", "figures", "tasks")
_LITTLE_DISK_MB = 1000
_NO_DISK_MB = 50


@dataclass(frozen=True, slots=True)
class Check:
    """A finding of `localhpo doctor`."""

    name: str
    state: Literal["ok", "note", "bad"]
    """bad: LocalHPO cannot be used until it is fixed."""
    finding: str
    hint: str = ""
    """What to do about it."""
    detail: str = ""
    """Numbers behind the finding, shown on request."""
    known_model: str = ""
    """Name of a known model that is not on this machine, if the finding is about one."""
    fits: bool | None = None
    """Whether the model fits into the memory of this machine."""


def all_checks() -> list[Check]:
    """Return the findings of all checks."""
    checks: tuple[Callable[[], Iterator[Check]], ...] = (
        check_python, check_packages, check_extras, check_devices, check_store, check_disk,
        check_models, check_memory_fit, check_prompts, check_plugins, check_offline,
    )  # fmt: skip
    return [finding for check in checks for finding in check()]


def check_python() -> Iterator[Check]:
    """Check the interpreter and the system."""
    system = f"{platform.system()} {platform.machine()}"
    finding = f"{platform.python_version()}, {sys.executable}, {system}"
    if sys.platform == "linux":
        yield Check("python", "ok", finding)
    else:
        yield Check("python", "bad", finding, "LocalHPO runs trials on Linux only: use a container")


def check_plugins() -> Iterator[Check]:
    """Import the plug-ins of all registries."""
    from localhpo.creator import CREATORS
    from localhpo.llm import BACKENDS
    from localhpo.scheduler.pruning import PRUNERS

    for registry in (CREATORS, BACKENDS, PRUNERS):
        broken = registry.import_plugins()
        for error in broken.values():
            yield Check("plug-ins", "note", str(error), error.hint)
        if found := [name for name in registry.plugins if name not in broken]:
            yield Check("plug-ins", "ok", f"{registry.kind}s: {', '.join(found)}")


def check_packages() -> Iterator[Check]:
    """Check the packages that LocalHPO always needs."""
    found, missing = _installed(None)
    if missing:
        yield Check("packages", "bad", f"missing: {', '.join(missing)}", "pip install localhpo")
    else:
        yield Check("packages", "ok", ", ".join(found))


def check_extras() -> Iterator[Check]:
    """Check the packages of each extra; missing ones are notes, for extras are optional."""
    from localhpo.llm.vllm import builds

    known = metadata.metadata("localhpo").get_all("Provides-Extra") or []
    vllm = builds.find_extra()
    wanted = [vllm if name == "vllm" else name for name in _EXTRAS_OF_USERS]
    for extra in (name for name in wanted if name in known):
        found, missing = _installed(extra)
        if not missing:
            yield Check(f"[{extra}]", "ok", ", ".join(found))
            continue
        finding = f"missing: {', '.join(missing)}"
        hint = builds.install_hint() if extra == vllm else f"pip install 'localhpo[{extra}]'"
        yield Check(f"[{extra}]", "note", finding, hint)


def _installed(extra: str | None) -> tuple[list[str], list[str]]:
    """Return `name version` of each installed package of an extra, and the missing names."""
    found, missing = [], []
    for requirement in metadata.requires("localhpo") or []:
        match = _REQUIREMENT.match(requirement)
        if match is None or match["extra"] != extra:
            continue
        name = match["name"]
        version = _version(name)
        if version is None:
            missing.append(name)
        else:
            found.append(f"{name} {version}")
    return found, missing


def _version(name: str) -> str | None:
    """Return the version of a package, or of its build under another name (xgboost-cpu)."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        others = metadata.packages_distributions().get(name.replace("-", "_"))
        return metadata.version(others[0]) if others else None


def check_devices() -> Iterator[Check]:
    """Check the CPUs, the memory and the GPUs."""
    from localhpo.resources.inventory import find_inventory

    try:
        inventory = find_inventory()
    except LocalHPOError as error:
        yield Check("machine", "bad", str(error), error.hint)
        return
    if path := os.environ.get("LOCALHPO_INVENTORY"):
        hint = "unset LOCALHPO_INVENTORY to use the real hardware"
        yield Check("inventory", "note", f"simulated, from {path}", hint)
    memory = formatting.memory(inventory.memory_mb)
    yield Check("machine", "ok", f"{formatting.count(inventory.cpus, 'CPU')}, {memory} of memory")
    for warning in inventory.warnings:
        yield Check("gpus", "note", warning, "`nvidia-smi` may say more")
    if not inventory.gpus:
        yield Check("gpus", "ok", "none: trials and the model run on the CPUs")
    for gpu in inventory.gpus:
        details = [gpu.name or "unknown model"]
        if gpu.memory_mb is not None:
            details.append(formatting.memory(gpu.memory_mb))
        if gpu.foreign_mb and gpu.usable_mb is not None:
            held = f"{formatting.memory(gpu.foreign_mb)} used by other programs"
            details.append(f"{held}, {formatting.memory(gpu.usable_mb)} available")
        yield Check(f"gpu {gpu.label or gpu.id}", "ok", ", ".join(details))
    yield from _gpu_activity()


def _gpu_activity() -> Iterator[Check]:
    """Report the current use of each GPU, as far as the driver measures it."""
    from localhpo.resources.nvml import read_devices

    for reading in read_devices() or ():
        parts = [
            formatting.count(len(reading.processes), "process").replace("processs", "processes")
        ]
        if reading.utilization is not None:
            parts.insert(0, f"{formatting.percent(reading.utilization)} utilization")
        if reading.power_w is not None:
            parts.append(f"{reading.power_w:.0f} W")
        yield Check(f"gpu {reading.label} now", "ok", ", ".join(parts))


def check_store() -> Iterator[Check]:
    """Check that the store can be read and written."""
    from localhpo.store import Store, default_home

    home = default_home()
    folder = _nearest_existing(home)
    if not os.access(folder, os.W_OK) or not folder.is_dir():
        yield Check(
            "store", "bad", f"{home} is not writable", "set LOCALHPO_HOME to a writable folder"
        )
        return
    if not home.exists():
        yield Check("store", "ok", f"{home}, empty")
        return
    store = Store(home)
    try:
        studies = formatting.count(len(store.studies()), "study").replace("studys", "studies")
        problems = store.verify()
    except LocalHPOError as error:
        yield Check("store", "bad", str(error), error.hint)
        return
    if problems:
        yield Check("store", "note", problems[0], "run any study: that updates the tables")
    yield Check("store", "ok", f"{home}, {studies}")


def check_disk() -> Iterator[Check]:
    """Check that there is room for logs and checkpoints."""
    from localhpo.store import default_home

    folder = _nearest_existing(default_home())
    free_mb = shutil.disk_usage(folder).free / 1e6
    finding = f"{formatting.memory(free_mb)} free in {folder}"
    if free_mb < _NO_DISK_MB:
        hint = "free disk space, or set LOCALHPO_HOME to a folder on another disk"
        yield Check("disk", "bad", finding, hint)
    elif free_mb < _LITTLE_DISK_MB:
        yield Check("disk", "note", finding, "logs and checkpoints of trials may not fit")
    else:
        yield Check("disk", "ok", finding)


def check_models() -> Iterator[Check]:
    """Check the files of each model against its card."""
    from localhpo.llm.models.registry import DEFAULT, list_models

    found = list_models()
    yield from map(_of_model, found)
    if DEFAULT not in {entry.name for entry in found}:
        hint = "install LocalHPO again, or run without a model: --creator tpe"
        yield Check("models", "note", f"the built-in model {DEFAULT} is missing", hint)


def _of_model(entry: ModelListing) -> Check:
    """Return the finding on a model; only a broken built-in model makes LocalHPO unusable."""
    from localhpo.llm.models.registry import DEFAULT

    name = f"model {entry.name}"
    if entry.state == "broken":
        hint = entry.hint or "copy the model folder again"
        return Check(name, "bad" if entry.name == DEFAULT else "note", entry.error, hint)
    finding = f"{entry.state}, {formatting.memory(entry.size_bytes / 2**20)}"
    if entry.card is None:
        return Check(name, "note", finding, f"add it: localhpo models add {entry.path}")
    return Check(name, "ok", finding)


def check_memory_fit() -> Iterator[Check]:
    """Report which models fit into the memory of this machine."""
    from localhpo.cli.doctor.memory_fit import check_memory_fits
    from localhpo.resources.inventory import find_inventory

    yield from check_memory_fits(find_inventory())


def check_prompts() -> Iterator[Check]:
    """Check that the prompts are there."""
    from localhpo import assets

    try:
        folder = assets.folder("prompts")
    except FileNotFoundError as error:
        yield Check("prompts", "bad", str(error), "install LocalHPO again")
        return
    names = sorted(path.name for path in folder.glob("*.j2"))
    state: Literal["ok", "bad"] = "ok" if names else "bad"
    yield Check("prompts", state, f"{', '.join(names) or 'no templates'} in {folder}")


def check_offline() -> Iterator[Check]:
    """Report that models load without network access, and what the user's scripts see."""
    from localhpo.llm.offline import OFFLINE_VARIABLES

    own = [name for name in OFFLINE_VARIABLES if os.environ.get(name)]
    scripts = f"your scripts see {', '.join(own)}" if own else "your scripts see none of these"
    names = ", ".join(OFFLINE_VARIABLES)
    finding = f"models load without network ({names} are set for LocalHPO); {scripts}"
    yield Check("offline", "ok", finding)


def _nearest_existing(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())
