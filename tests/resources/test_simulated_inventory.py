from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from localhpo.errors import InputError
from localhpo.resources.inventory import find_inventory
from localhpo.resources.placement import Gpu, Inventory
from localhpo.resources.simulated_inventory import load_inventory, parse_inventory


def test_an_inventory_file_replaces_the_machine(tmp_path: Path) -> None:
    path = tmp_path / "machine.toml"
    path.write_text(
        "cpus = 32\nmemory_mb = 256_000\n[[gpus]]\ncount = 2\nname = 'A'\nmemory_mb = 80_000\n"
        "foreign_mb = 1_000\n[[gpus]]\nid = 'MIG-7'\n"
    )
    environ = {"LOCALHPO_INVENTORY": str(path)}
    gpus = (Gpu("0", "A", 80_000.0, 1000.0), Gpu("1", "A", 80_000.0, 1000.0))
    last = Gpu("MIG-7", "simulated")
    assert find_inventory(environ) == Inventory(32, 256_000.0, (*gpus, last))
    restricted = find_inventory({**environ, "CUDA_VISIBLE_DEVICES": "1"})
    assert restricted.gpus == (gpus[1],)


def test_an_inventory_may_be_json(tmp_path: Path) -> None:
    path = tmp_path / "machine.json"
    path.write_text('{"cpus": 4, "gpus": [{"memory_mb": 24000}]}')
    assert load_inventory(path) == Inventory(4, None, (Gpu("0", "simulated", 24_000.0),))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({}, "cpus: must be given"),
        ({"cpus": 0}, "cpus: must be a whole number of at least 1; got 0"),
        ({"cpus": True}, "cpus: must be a whole number"),
        ({"cpus": 1, "gpu": []}, "unknown key 'gpu'"),
        ({"cpus": 1, "gpus": {}}, "gpus: must be a list of tables"),
        ({"cpus": 1, "gpus": [4]}, r"gpus\[0\]: must be a table; got 4"),
        ({"cpus": 1, "memory_mb": -1}, "memory_mb: must be a number of megabytes"),
        ({"cpus": 1, "memory_mb": float("nan")}, "memory_mb: must be a number of megabytes"),
        ({"cpus": 1, "gpus": [{"count": 2, "id": "0"}]}, "2 devices cannot share the id '0'"),
        ({"cpus": 1, "gpus": [{"id": "0"}, {"id": "0"}]}, "two devices have the id '0'"),
        ({"cpus": 1, "gpus": [{"memory_mb": 1, "foreign_mb": 2}]}, "foreign_mb: must be at most"),
        ([], "must be a table"),
    ],
)
def test_an_invalid_inventory_is_refused(table: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_inventory(table)


@pytest.mark.parametrize(("name", "text"), [("a.toml", "cpus = "), ("a.json", "cpus = 1")])
def test_an_unreadable_inventory_is_refused(tmp_path: Path, name: str, text: str) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        load_inventory(tmp_path / name)
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match="neither TOML nor JSON"):
        load_inventory(tmp_path / name)
