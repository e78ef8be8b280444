"""An inventory read from a file: a simulated machine for tests, benchmarks and dry runs.

    cpus = 32
    memory_mb = 256_000

    [[gpus]]
    count = 4               # number of equal devices; 1 by default
    name = "NVIDIA A100 80GB"
    memory_mb = 81_920
    foreign_mb = 2_000      # held by other programs

TOML, or JSON of the same structure. Where `LOCALHPO_INVENTORY` names such a file, LocalHPO takes
the machine to have these resources, and trials are assigned devices that may not exist.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from localhpo.errors import InputError, did_you_mean
from localhpo.resources.placement import Gpu, Inventory

VARIABLE = "LOCALHPO_INVENTORY"

_KEYS = ("cpus", "memory_mb", "gpus")
_GPU_KEYS = ("count", "id", "name", "memory_mb", "foreign_mb")


def load_inventory(path: Path | str) -> Inventory:
    """Read an inventory.

    Raises:
        InputError: the file cannot be read, or does not describe a machine.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
        table = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise InputError(
            f"{path}: the inventory cannot be read: {error.strerror}",
            hint=f"{VARIABLE} names a TOML or JSON file; unset it to use this machine",
        ) from error
    except ValueError as error:
        raise InputError(f"{path}: neither TOML nor JSON (.json): {error}") from error
    return parse_inventory(table, where=str(path))


def parse_inventory(table: Any, *, where: str = "inventory") -> Inventory:
    """Return the inventory that a parsed file describes.

    Raises:
        InputError: a key is missing, unknown, or of the wrong kind.
    """
    table = _check_table(table, _KEYS, where)
    if "cpus" not in table:
        raise InputError(f"{where} cpus: must be given, as a whole number")
    gpus = table.get("gpus", [])
    if not isinstance(gpus, list):
        raise InputError(f"{where} gpus: must be a list of tables, [[gpus]]; got {gpus!r}")
    found: list[Gpu] = []
    for position, gpu in enumerate(gpus):
        found += _parse_gpus(gpu, len(found), f"{where} gpus[{position}]")
    ids = [gpu.id for gpu in found]
    for id in ids:
        if ids.count(id) > 1:
            raise InputError(f"{where}: two devices have the id {id!r}")
    return Inventory(
        cpus=_check_count(table["cpus"], f"{where} cpus"),
        memory_mb=_check_memory(table.get("memory_mb"), f"{where} memory_mb"),
        gpus=tuple(found),
    )


def _parse_gpus(table: Any, first: int, where: str) -> list[Gpu]:
    table = _check_table(table, _GPU_KEYS, where)
    count = _check_count(table.get("count", 1), f"{where} count")
    if "id" in table and count > 1:
        raise InputError(f"{where}: {count} devices cannot share the id {table['id']!r}")
    memory_mb = _check_memory(table.get("memory_mb"), f"{where} memory_mb")
    foreign_mb = _check_memory(table.get("foreign_mb"), f"{where} foreign_mb") or 0.0
    if memory_mb is not None and foreign_mb > memory_mb:
        raise InputError(f"{where} foreign_mb: must be at most memory_mb; got {foreign_mb:g}")
    name = str(table.get("name", "simulated"))
    return [Gpu(str(table.get("id", first + i)), name, memory_mb, foreign_mb) for i in range(count)]


def _check_table(value: Any, known: tuple[str, ...], where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise InputError(f"{where}: must be a table; got {value!r}")
    for key in value:
        if key not in known:
            hint = did_you_mean(key, known) or f"known: {', '.join(known)}"
            raise InputError(f"{where}: unknown key {key!r}", hint=hint)
    return value


def _check_count(value: Any, where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1:
        return value
    raise InputError(f"{where}: must be a whole number of at least 1; got {value!r}")


def _check_memory(value: Any, where: str) -> float | None:
    if value is None:
        return None
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and math.isfinite(value) and value >= 0:
        return float(value)
    raise InputError(f"{where}: must be a number of megabytes, at least 0; got {value!r}")
