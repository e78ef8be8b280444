"""`localhpo.reporter`: what a training script calls."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localhpo import reporter
from localhpo.reporter import config, report


@pytest.fixture
def metrics(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    path = tmp_path / "metrics.jsonl"
    monkeypatch.setenv("LOCALHPO_METRICS", str(path))
    monkeypatch.setenv("LOCALHPO_TRIAL_DIR", str(tmp_path))
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_report_is_one_line_with_step_values_and_time(metrics: Path) -> None:
    report(step=3, val_f1=0.711, train_loss=1)
    (line,) = lines(metrics)
    assert line.pop("time") > 1.7e9
    assert line == {"step": 3, "val_f1": 0.711, "train_loss": 1.0}


def test_steps_count_on_from_the_last_one(metrics: Path) -> None:
    report(step=41, loss=1.0)
    report(loss=0.9)
    report(loss=0.8)
    report(step=np.int64(7), loss=0.7)
    report(loss=0.6)
    assert [line["step"] for line in lines(metrics)] == [41, 42, 43, 7, 8]


def test_the_first_step_of_a_process_is_1(metrics: Path) -> None:
    code = "from localhpo.reporter import report; report(loss=1); report(loss=2)"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert [line["step"] for line in lines(metrics)] == [1, 2]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (math.nan, "NaN"),
        (math.inf, "Infinity"),
        (-math.inf, "-Infinity"),
        (1e-05, "1e-05"),
        (True, "1.0"),
        (np.float32(0.5), "0.5"),
        (np.int64(3), "3.0"),
        (np.array([0.25]), "0.25"),
    ],
)
def test_numbers_of_any_kind_are_written_as_json(metrics: Path, value: Any, text: str) -> None:
    report(step=1, loss=value)
    assert f'"loss": {text}, ' in metrics.read_text()


def test_scalars_of_torch_are_numbers_even_with_a_gradient(metrics: Path) -> None:
    torch = pytest.importorskip("torch")
    report(step=torch.tensor(2), loss=torch.tensor(0.5, requires_grad=True) * 1.0)
    assert lines(metrics)[0]["loss"] == 0.5
    assert lines(metrics)[0]["step"] == 2


@pytest.mark.parametrize("value", ["0.7", b"0.7", None, [0.7], np.zeros(2), 1j, 10**400, object()])
def test_non_numeric_value_is_refused_by_name(metrics: Path, value: Any) -> None:
    with pytest.raises(TypeError, match=r"takes numbers, but val_f1 is .*\("):
        report(step=1, val_f1=value)
    assert not metrics.exists()


def test_invalid_call_errors_explain_the_usage(metrics: Path) -> None:
    with pytest.raises(ValueError, match=r"report\(step=3, val_f1=0.71\)"):
        report(step=1)
    with pytest.raises(TypeError, match=r"integer as step, got 1\.5"):
        report(step=1.5, loss=1.0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="call the metric something else"):
        report(step=1, time=1.0)


def test_report_returns_true_after_stop_request(metrics: Path, tmp_path: Path) -> None:
    assert report(step=1, loss=1.0) is False
    (tmp_path / "stop").touch()
    assert report(step=2, loss=1.0) is True


def test_outside_of_a_trial_report_prints_and_continues(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(step=3, loss=0.123456789, f1=math.nan) is False
    assert capsys.readouterr().out == "step 3: loss=0.123457, f1=nan\n"
    assert config() == {}


def test_config_is_what_localhpo_wrote(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"lr": 3.1e-4, "name": "a \\"b\\""}')
    monkeypatch.setenv("LOCALHPO_CONFIG", str(path))
    assert config() == {"lr": 0.00031, "name": 'a "b"'}


def test_a_file_that_cannot_be_written_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LOCALHPO_METRICS", str(tmp_path / "missing" / "metrics.jsonl"))
    with pytest.raises(OSError, match="missing"):
        report(step=1, loss=1.0)


def test_lines_of_threads_and_forks_never_mix(metrics: Path) -> None:
    def work() -> None:
        for _ in range(200):
            report(loss=0.123456789, **{"a" * 500: 1.0})

    code = (
        "import os, threading\n"
        "from localhpo.reporter import report\n"
        "def work():\n"
        "    for _ in range(200): report(loss=0.5, **{'b' * 500: 1.0})\n"
        "work_a = threading.Thread(target=work); work_a.start()\n"
        "child = os.fork()\n"
        "work()\n"
        "if child: work_a.join(); os.waitpid(child, 0)\n"
    )
    other = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code])
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert other.wait() == 0
    assert len(lines(metrics)) == 4 * 200 + 3 * 200


def test_automatic_steps_of_threads_differ(metrics: Path) -> None:
    report(step=0, loss=1.0)
    threads = [
        threading.Thread(target=lambda: [report(loss=1.0) for _ in range(100)]) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(line["step"] for line in lines(metrics)) == list(range(401))


def test_the_file_stands_alone(tmp_path: Path) -> None:
    copy = tmp_path / "reporter.py"
    copy.write_text(Path(reporter.__file__).read_text())
    code = "import reporter; reporter.report(step=1, loss=0.5)"
    isolated = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.append('.'); {code}"]
    environ = {k: v for k, v in os.environ.items() if not k.startswith("LOCALHPO_")}
    done = subprocess.run(isolated, cwd=tmp_path, env=environ, capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("step 1: loss=0.5\n", "")
