"""What makes results of a Creator stale: its model, and what its module imports; nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.benchmarks import creators, digests

ROOT = Path(__file__).parents[2]


def digest(name: str) -> str:
    return digests.compute_digest(creators.parse_name(name))


def modules(name: str) -> set[str]:
    return digests.find_modules(creators.parse_name(name))


def test_digests_follow_the_model(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"one")
    name = f"hybrid@{tmp_path}"
    before = digest(name)
    assert digest(name) == before
    (tmp_path / "model.safetensors").write_bytes(b"another")
    assert digest(name) != before
    assert digests.compute_model_digest(creators.parse_name("tpe")) == ""


def test_every_name_has_a_digest_of_its_own():
    names = (
        "tpe", "hybrid", "agent", "hybrid-meta", "hybrid-no-model", "hybrid:anonymous",
        "center+tpe",
    )  # fmt: skip
    assert len({digest(name) for name in names}) == len(names)


@pytest.fixture
def edit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Appends to a module, in a copy of the source that digests are made of."""
    skip = shutil.ignore_patterns("docs", "tasks", "*.toml", "__pycache__")
    for package in ("localhpo", "scripts/benchmarks"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=skip)

    def edit(module: str, text: str) -> None:
        base = tmp_path.joinpath(*module.split("."))
        path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
        path.write_text(path.read_text() + text)
        digests.hash_source.cache_clear()

    monkeypatch.setattr(digests, "_ROOT", tmp_path)
    digests.hash_source.cache_clear()
    yield edit
    digests.hash_source.cache_clear()


@pytest.mark.parametrize(
    ("module", "stale"),
    [
        ("localhpo.space.parameters", {"tpe", "bo", "hybrid-meta", "agent", "agent:anonymous"}),
        ("localhpo.creator.optuna.samplers", {"tpe"}),
        ("localhpo.creator.bo.acquisition", {"bo", "hybrid-meta", "agent", "agent:anonymous"}),
        ("localhpo.creator.agent", {"hybrid-meta", "agent", "agent:anonymous"}),
        ("localhpo.llm.protocol", {"agent", "agent:anonymous"}),
        ("localhpo.llm.transformers.decoding", {"agent", "agent:anonymous"}),
        ("scripts.benchmarks.controls", {"agent:anonymous"}),
        # What no proposal depends on.
        ("localhpo.scheduler.loop", set()),
        ("localhpo.llm.vllm.backend", set()),
        ("localhpo.cli.output", set()),
        ("scripts.benchmarks.creators", set()),
    ],
)
def test_a_change_makes_those_stale_that_import_it_and_no_others(edit, module, stale):
    names = ("tpe", "bo", "hybrid-meta", "agent", "agent:anonymous")
    before = {name: digest(name) for name in names}
    edit(module, "\n# A comment is no change.\n")
    assert {name: digest(name) for name in names} == before
    edit(module, "\nCHANGED = 1\n")
    assert {name for name in names if digest(name) != before[name]} == stale


def test_what_a_module_newly_imports_counts(edit):
    before = digest("tpe")
    edit("localhpo.creator.optuna.engine", "\n\ndef late():\n    from localhpo import runtime\n")
    assert (importing := digest("tpe")) != before
    assert "localhpo.runtime" in modules("tpe")
    edit("localhpo.runtime", "\nCHANGED = 1\n")
    assert digest("tpe") != importing


def test_imports_for_type_checkers_do_not_count(edit):
    lines = "\nfrom typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    import localhpo.runtime\n"
    edit("localhpo.creator.optuna.engine", lines)
    assert "localhpo.runtime" not in modules("tpe")


@pytest.mark.parametrize(
    "name", ["tpe", "gp", "bo", "hybrid-meta", "hybrid-no-model", "center+tpe"]
)
def test_without_a_model_nothing_of_models_counts(name):
    assert not [one for one in modules(name) if one.startswith("localhpo.llm")]
    assert "localhpo.space.parameters" in modules(name)
