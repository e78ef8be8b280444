"""What is measured of a built model: by which suites and Creators, and that its card tells it."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from localhpo import assets
from localhpo.errors import InputError, LocalHPOError
from localhpo.llm.models import registry as model_registry
from scripts.build_model import evaluate, export

BUILT_IN = assets.folder("models") / "sprout"


class Bench:
    """A fake of the benchmarks' `run`: records the requests, and answers with numbers."""

    def __init__(self) -> None:
        self.asked: dict[str, list[str]] = {}
        self.returncode = 0

    def __call__(self, command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        suite = command[command.index("run") + 1]
        names = command[command.index("--creators") + 1].split(",")
        self.asked[suite] = names
        entries = {name: {"mean": 0.12345} for name in names}
        record = {"columns": [{"trial": 1, "creators": entries}], "problems": 2, "seeds": [0]}
        return subprocess.CompletedProcess(command, self.returncode, json.dumps(record).encode())


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench()
    monkeypatch.setattr(evaluate.subprocess, "run", made)
    return made


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of public data, as far as it is looked for before a suite is run."""
    for name in ("yahpo", "taskset_adam8p"):
        (tmp_path / "data" / name).mkdir(parents=True)
    return tmp_path / "data"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
    return tmp_path / "model"


def test_all_rows_of_the_card_can_be_made_again(tmp_path: Path, bench: Bench, data: Path) -> None:
    evaluate.run_suites(BUILT_IN, data, tmp_path / "bench.json", seeds=1, jobs=1)
    assert list(bench.asked) == list(evaluate.SUITES)
    made = export.read_measured(tmp_path, evaluate.compute_digest(BUILT_IN))
    rows = {re.sub(r"_(1|3|5|10)$", "", key) for key in model_registry.read_card(BUILT_IN).measured}
    left = {row for row in rows if not row.startswith("value_loss")}
    assert left <= {re.sub(r"_1$", "", key) for key in made}


def test_suites_without_their_data_are_left_out(
    tmp_path: Path, bench: Bench, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate.run_suites(model, tmp_path / "nowhere", tmp_path / "bench.json", seeds=1, jobs=1)
    assert list(bench.asked) == ["xgboost", "mlp", "functions", "quadratics"]
    assert "left out: taskset" in capsys.readouterr().out


def test_meta_data_alone_are_measured_for_the_built_in_model_only(
    tmp_path: Path, bench: Bench, model: Path
) -> None:
    evaluate.run_suites(
        model, tmp_path, tmp_path / "bench.json", seeds=1, jobs=1, names=["functions"]
    )
    assert bench.asked["functions"][0] == f"hybrid@{model}"
    assert "hybrid-meta" not in bench.asked["functions"]
    with pytest.raises(InputError, match="meta-data"):
        evaluate.choose_creators(model, ["hybrid-meta"])


def test_fewer_may_be_chosen_and_the_others_stay(tmp_path: Path, bench: Bench, model: Path) -> None:
    target = tmp_path / "bench.json"
    for suite in ("functions", "quadratics"):
        evaluate.run_suites(
            model, tmp_path, target, seeds=1, jobs=1, names=[suite], by=["random", "agent"]
        )
    assert bench.asked["functions"] == ["random", f"agent@{model}"]
    assert export.read_measured(tmp_path, evaluate.compute_digest(model)) == {
        "functions_random_1": 0.123, "functions_agent_1": 0.123, "functions_problems": 2,
        "functions_seeds": 1, "quadratics_random_1": 0.123, "quadratics_agent_1": 0.123,
        "quadratics_problems": 2, "quadratics_seeds": 1,
    }  # fmt: skip


def test_numbers_of_other_weights_are_not_those_of_the_model(
    tmp_path: Path, bench: Bench, model: Path
) -> None:
    target = tmp_path / "bench.json"
    evaluate.run_suites(model, tmp_path, target, seeds=1, jobs=1, names=["functions"])
    evaluate.write_numbers(
        tmp_path / "history.json", evaluate.compute_digest(model), {"trials_0": 1.5}
    )
    before = export.read_measured(tmp_path, evaluate.compute_digest(model))
    assert before["value_loss_trials_0"] == 1.5 and "functions_gp_1" in before
    (model / "model.safetensors").write_bytes(b"others")
    assert export.read_measured(tmp_path, evaluate.compute_digest(model)) == {}
    evaluate.run_suites(model, tmp_path, target, seeds=1, jobs=1, names=["quadratics"])
    assert "functions_gp_1" not in export.read_measured(tmp_path, evaluate.compute_digest(model))


def test_what_cannot_be_run_is_named(tmp_path: Path, bench: Bench, model: Path) -> None:
    for names, said in [(["function"], "did you mean 'functions'"), (["taskset"], "")]:
        with pytest.raises(InputError) as caught:
            evaluate.choose_suites(tmp_path / "nowhere", names)
        assert said in caught.value.hint
    bench.returncode = 1
    with pytest.raises(LocalHPOError, match="functions"):
        evaluate.run_suites(
            model, tmp_path, tmp_path / "b.json", seeds=1, jobs=1, names=["functions"]
        )


def card(version: str, files: dict[str, str]) -> model_registry.Card:
    return model_registry.Card(
        name="sprout", version=version, summary="", license="MIT", architecture="llama",
        parameters=1, context_length=1, prompt="compact", files=files,
    )  # fmt: skip


def test_a_version_is_one_above_that_of_other_files_there() -> None:
    files = {"model.safetensors": "0" * 64}
    others = {"model.safetensors": "1" * 64}
    assert export.choose_version(None, "sprout", files) == "1"
    assert export.choose_version(card("7", files), "sprout", files) == "7"
    assert export.choose_version(card("7", others), "sprout", files) == "8"
    assert export.choose_version(card("7", others), "base", files) == "1"
    with pytest.raises(InputError, match="'7b'") as caught:
        export.choose_version(card("7b", others), "sprout", files)
    assert "--version" in caught.value.hint
