"""The main job as users meet it: from a wheel, without a network, without the heavy extras."""

from __future__ import annotations

import json
import shutil
import site
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from made_history import SPACE, keep, make_past

from localhpo import __version__ as VERSION
from localhpo.llm import open_backend
from localhpo.llm.models import registry as model_registry
from localhpo.llm.models import versions

ROOT = Path(__file__).resolve().parent.parent
READY = "breast-cancer-xgboost"
HEAVY = ("torch", "transformers", "llguidance", "safetensors", "xgboost", "sklearn", "scikit")

pytestmark = pytest.mark.slow


def localhpo(
    *arguments: str, prefix: tuple[str, ...] = (), python: str = sys.executable, cwd: Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, python, "-m", "localhpo", *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=600,
    )


def run_main_job(cwd: Path, *options: str, **how: Any) -> dict[str, Any]:
    done = localhpo("run", READY, "--trials", "3", "--json", *options, cwd=cwd, **how)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def is_good(result: dict[str, Any]) -> None:
    assert result["best"]["value"] > 0.8
    listed = [trial["state"] for trial in result["trials"]]
    assert listed == ["complete"] * 3
    # The samples of the model differ between processors, and one is tried where it promises more
    # than the meta-data: so each of the two may propose, and nothing else.
    assert {trial["origin"] for trial in result["trials"]} <= {"llm", "meta"}


def has_network_namespaces() -> bool:
    unshare = shutil.which("unshare")
    return bool(unshare) and subprocess.run([unshare, "-rn", "true"]).returncode == 0  # type: ignore[list-item]


@pytest.mark.skipif(not has_network_namespaces(), reason="network namespaces are not allowed here")
def test_the_main_job_needs_no_network(tmp_path: Path) -> None:
    is_good(run_main_job(tmp_path, prefix=("unshare", "-rn")))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = folder.glob("*.whl")
    return built


def environment(folder: Path, wheel: Path, *, without: tuple[str, ...] = ()) -> str:
    """Return the Python of a new environment that holds the wheel.

    Third parties are borrowed from this one, so that no index is needed; that the dependencies
    which the wheel declares suffice is seen where CI installs it from nothing.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(packages)
    for there in map(Path, site.getsitepackages()):
        for entry in there.iterdir():
            ours = entry.name.startswith(("localhpo", "_localhpo", "_editable", "__", *without))
            if not ours and not (packages / entry.name).exists():
                (packages / entry.name).symlink_to(entry)
    return str(folder / "bin" / "python")


def test_the_wheel_holds_all_that_the_main_job_needs(wheel: Path, tmp_path: Path) -> None:
    clean_python = environment(tmp_path / "venv", wheel)
    where = subprocess.run(
        [clean_python, "-c", "import localhpo; print(localhpo.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    assert str(tmp_path) in where.stdout
    is_good(run_main_job(tmp_path, python=clean_python))


def test_a_core_install_tunes_with_engines(wheel: Path, tmp_path: Path) -> None:
    core_python = environment(tmp_path / "venv", wheel, without=HEAVY)
    (tmp_path / "train.py").write_text(
        "import sys\nfrom localhpo import report\n"
        "values = dict(zip(sys.argv[1::2], map(float, sys.argv[2::2])))\n"
        "report(loss=(values['--x'] - 1) ** 2)\n"
    )
    (tmp_path / "task.toml").write_text(
        '[task]\nname = "line"\ncommand = ["python", "train.py"]\nmetric = "loss"\n'
        'direction = "minimize"\n[space]\nx = {type = "float", low = -4, high = 4}\n'
        "[budget]\ntrials = 3\n"
    )
    for creator in ("bo", "random", "tpe", "cmaes", "hybrid"):
        options = ("--creator", creator, "--study", creator, "--json")
        done = localhpo("run", "task.toml", *options, cwd=tmp_path, python=core_python)
        assert done.returncode == 0, done.stderr
        assert len(json.loads(done.stdout)["trials"]) == 3
    for creator in ("gp", "agent"):
        options = ("--creator", creator, "--study", creator)
        done = localhpo("run", "task.toml", *options, cwd=tmp_path, python=core_python)
        assert done.returncode == 1
        assert "pip install 'localhpo[local]'" in done.stderr
    done = localhpo("report", "line/tpe", cwd=tmp_path, python=core_python)
    assert done.returncode == 0, done.stderr


def test_the_wheel_alone_trains_and_tests_the_built_in_model(wheel, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("LOCALHPO_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("LOCALHPO_MODELS", str(tmp_path / "models"))
    (tmp_path / "models").mkdir()
    for number in range(10):
        keep(tmp_path / "home", make_past(number))
    python = environment(tmp_path / "venv", wheel)
    command = ["finetune", "--passes", "3", "--minutes", "0.5", "--auto", "--every", "10", "--json"]
    done = localhpo(*command, cwd=tmp_path, python=python)
    assert done.returncode == 0, done.stderr
    card = json.loads(done.stdout)
    assert card["evaluation"]["tuned_loss"] < card["evaluation"]["base_loss"]
    assert card["tuned"]["status"] == "accepted", card["tuned"]["reason"]
    assert (card["gate"], card["tuned"]["gate"]) == (card["evaluation"], "accepted")  # old keys
    done = localhpo(*command, cwd=tmp_path, python=python)
    assert json.loads(done.stdout) == {"missing_studies": 10}
    name = versions.current_version_name(model_registry.DEFAULT)
    backend = open_backend("transformers", model=name)
    assert backend.model.digest == card["digest"]
    assert set(SPACE.names) <= backend.model.known_parameters


def test_the_wheel_is_small_and_holds_no_research(wheel: Path) -> None:
    assert wheel.stat().st_size <= 4e6
    with zipfile.ZipFile(wheel) as archive:
        tops = {tuple(name.split("/")[:2]) for name in archive.namelist()}
    assert {top for top, *_ in tops} - {f"localhpo-{VERSION}.dist-info"} == {"localhpo"}
    assert not {"bench", "benchmarks", "scripts", "tests"} & {
        part for _, *rest in tops for part in rest
    }
