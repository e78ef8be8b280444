"""What `localhpo doctor` looks at. Each check is a function that returns its findings."""

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

from localhpo.analysis import wording
from localhpo.errors import LocalHPOError

if TYPE_CHECKING:
    from localhpo.llm.cards import Entry

_REQUIREMENT = re.compile(r"^(?P<name>[\w.-]+)(?:.*extra\s*==\s*['\"](?P<extra>[\w-]+)['\"])?")
_EXTRAS_OF_USERS = ("local", "vllm", "finetune", "gpu", "ray", "figures", "tasks")
_LITTLE_DISK_MB = 1000
_NO_DISK_MB = 50


@dataclass(frozen=True, slots=True)
class Check:
    """One finding."""

    name: str
    state: Literal["ok", "note", "bad"]
    """bad: LocalHPO cannot be used before it is mended."""
    finding: str
    hint: str = ""
    """What to do."""


def all_checks() -> list[Check]:
    """Return every finding."""
    checks: tuple[Callable[[], Iterator[Check]], ...] = (
        _python, _packages, _extras, _devices, _store, _disk, _models, _fit, _prompts,
        _offline,
    )  # fmt: skip
    return [finding for check in checks for finding in check()]


def _python() -> Iterator[Check]:
    system = f"{platform.system()} {platform.machine()}"
    finding = f"{platform.python_version()}, {sys.executable}, {system}"
    if sys.platform == "linux":
        yield Check("python", "ok", finding)
    else:
        yield Check(
            "python", "bad", finding, "trials are supervised on Linux only: use a container"
        )


def _packages() -> Iterator[Check]:
    """The packages that every part needs."""
    found, missing = _installed(None)
    if missing:
        yield Check("packages", "bad", f"missing: {', '.join(missing)}", "pip install localhpo")
    else:
        yield Check("packages", "ok", ", ".join(found))


def _extras() -> Iterator[Check]:
    """The packages of each extra: a missing one is no fault, unless it is asked for."""
    from localhpo.llm.vllm import builds

    known = metadata.metadata("localhpo").get_all("Provides-Extra") or []
    vllm = builds.extra()
    wanted = [vllm if name == "vllm" else name for name in _EXTRAS_OF_USERS]
    for extra in (name for name in wanted if name in known):
        found, missing = _installed(extra)
        if not missing:
            yield Check(f"[{extra}]", "ok", ", ".join(found))
            continue
        finding = f"missing: {', '.join(missing)}"
        hint = builds.hint() if extra == vllm else f"pip install 'localhpo[{extra}]'"
        yield Check(f"[{extra}]", "note", finding, hint)


def _installed(extra: str | None) -> tuple[list[str], list[str]]:
    """Return `name version` of the installed packages of an extra, and the names of others."""
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
    """Return the version of a package, or of a build of it under another name (xgboost-cpu)."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        others = metadata.packages_distributions().get(name.replace("-", "_"))
        return metadata.version(others[0]) if others else None


def _devices() -> Iterator[Check]:
    from localhpo.scheduler.devices import find_inventory

    try:
        inventory = find_inventory()
    except LocalHPOError as error:
        yield Check("machine", "bad", str(error), error.hint)
        return
    if path := os.environ.get("LOCALHPO_INVENTORY"):
        hint = "unset LOCALHPO_INVENTORY to use what is really there"
        yield Check("inventory", "note", f"simulated, from {path}", hint)
    memory = wording.memory(inventory.memory_mb)
    yield Check("machine", "ok", f"{wording.count(inventory.cpus, 'CPU')}, {memory} of memory")
    for warning in inventory.warnings:
        yield Check("gpus", "note", warning, "`nvidia-smi` may say more")
    if not inventory.gpus:
        yield Check("gpus", "ok", "none: trials and the model share the CPUs")
    for gpu in inventory.gpus:
        details = [gpu.name or "unknown model"]
        if gpu.memory_mb is not None:
            details.append(wording.memory(gpu.memory_mb))
        if gpu.foreign_mb and gpu.usable_mb is not None:
            held = f"{wording.memory(gpu.foreign_mb)} held by others"
            details.append(f"{held}, {wording.memory(gpu.usable_mb)} to share")
        yield Check(f"gpu {gpu.label or gpu.id}", "ok", ", ".join(details))
    yield from _at_work()


def _at_work() -> Iterator[Check]:
    """What the devices do now, as far as their driver tells."""
    from localhpo.scheduler.nvml import read_once

    for reading in read_once() or ():
        told = [f"{len(reading.processes)} at work"]
        if reading.utilization is not None:
            told.insert(0, f"{wording.percent(reading.utilization)} busy")
        if reading.power_w is not None:
            told.append(f"{reading.power_w:.0f} W")
        yield Check(f"gpu {reading.label} now", "ok", ", ".join(told))


def _store() -> Iterator[Check]:
    from localhpo.store import Store, default_home

    home = default_home()
    place = _nearest(home)
    if not os.access(place, os.W_OK) or not place.is_dir():
        yield Check("store", "bad", f"{home} cannot be written", "set LOCALHPO_HOME to a folder")
        return
    if not home.exists():
        yield Check("store", "ok", f"{home}, nothing in it yet")
        return
    store = Store(home)
    try:
        studies = wording.count(len(store.studies()), "study").replace("studys", "studies")
        problems = store.verify()
    except LocalHPOError as error:
        yield Check("store", "bad", str(error), error.hint)
        return
    if problems:
        yield Check(
            "store", "note", problems[0], "run any study: the tables are brought up to date"
        )
    yield Check("store", "ok", f"{home}, {studies}")


def _disk() -> Iterator[Check]:
    from localhpo.store import default_home

    place = _nearest(default_home())
    free_mb = shutil.disk_usage(place).free / 1e6
    finding = f"{wording.memory(free_mb)} free at {place}"
    if free_mb < _NO_DISK_MB:
        yield Check("disk", "bad", finding, "free some space, or set LOCALHPO_HOME elsewhere")
    elif free_mb < _LITTLE_DISK_MB:
        yield Check("disk", "note", finding, "logs and checkpoints of trials may not fit")
    else:
        yield Check("disk", "ok", finding)


def _models() -> Iterator[Check]:
    from localhpo.llm.cards import DEFAULT, entries

    found = entries()
    yield from map(_of_model, found)
    if DEFAULT not in {entry.name for entry in found}:
        hint = "install LocalHPO again, or choose engines with --creator tpe"
        yield Check("models", "note", f"the built-in model {DEFAULT} is not there", hint)


def _of_model(entry: Entry) -> Check:
    """Return what is found of a model; a run needs the built-in one, or the one that it names."""
    from localhpo.llm.cards import DEFAULT

    name = f"model {entry.name}"
    if entry.state == "broken":
        hint = entry.hint or "copy the model folder again"
        return Check(name, "bad" if entry.name == DEFAULT else "note", entry.error, hint)
    finding = f"{entry.state}, {wording.memory(entry.size_bytes / 2**20)}"
    if entry.card is None:
        return Check(name, "note", finding, f"add it: localhpo models add {entry.path}")
    return Check(name, "ok", finding)


def _fit() -> Iterator[Check]:
    from localhpo.cli import _fitting
    from localhpo.scheduler.devices import find_inventory

    yield from _fitting.checks(find_inventory())


def _prompts() -> Iterator[Check]:
    from localhpo import resources

    try:
        folder = resources.folder("prompts")
    except FileNotFoundError as error:
        yield Check("prompts", "bad", str(error), "install LocalHPO again")
        return
    names = sorted(path.name for path in folder.glob("*.j2"))
    state: Literal["ok", "bad"] = "ok" if names else "bad"
    yield Check("prompts", state, f"{', '.join(names) or 'no templates'} in {folder}")


def _offline() -> Iterator[Check]:
    """LocalHPO switches every hub off for itself; a user's scripts see what the user has set."""
    from localhpo.llm.offline import SWITCHES

    own = [name for name in SWITCHES if os.environ.get(name)]
    theirs = f"your scripts see {', '.join(own)}" if own else "your scripts see none of these"
    yield Check("offline", "ok", f"models are loaded under {', '.join(SWITCHES)}; {theirs}")


def _nearest(path: Path) -> Path:
    """Return the path, or the nearest folder above it that exists."""
    return next(place for place in (path, *path.parents) if place.exists())
