import pytest

from localhpo.cli import main
from localhpo.task import load_task

SCRIPT = """
import argparse
from localhpo.reporter import report
p = argparse.ArgumentParser()
p.add_argument("--lr", type=float, default=0.1)
p.add_argument("--depth", type=int, default=4)
p.add_argument("--amp", action="store_true")
a = p.parse_args()
report(val_loss=(a.lr - 0.03) ** 2)
"""


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(SCRIPT)


def test_init_reads_a_script(tmp_path, capsys):
    assert main(["init", "train.py"]) == 0
    told = capsys.readouterr().out
    assert "wrote task.toml with 2 parameters" in told
    assert "not tuned: --amp (a switch takes no value)" in told
    assert "localhpo run task.toml" in told
    task = load_task(tmp_path / "task.toml")
    assert (task.metric, task.folder) == ("val_loss", tmp_path)


def test_init_without_a_script_writes_a_template(tmp_path):
    assert main(["init"]) == 0
    load_task(tmp_path / "task.toml")


def test_the_path_of_a_script_is_relative_to_the_task_file(tmp_path):
    (tmp_path / "task").mkdir()
    assert main(["init", "train.py", "--output", "task/mine.toml"]) == 0
    assert load_task(tmp_path / "task/mine.toml").command == ("python", "../train.py")


def test_init_overwrites_only_with_force(tmp_path, capsys):
    (tmp_path / "task.toml").write_text("precious")
    assert main(["init", "train.py"]) == 2
    assert "task.toml exists already" in capsys.readouterr().err
    assert (tmp_path / "task.toml").read_text() == "precious"
    assert main(["init", "train.py", "--force"]) == 0
    load_task(tmp_path / "task.toml")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.py"], "missing.py: no such script"),
        (["broken.py"], "broken.py, line 2: not valid Python"),
        (["latin.py"], "latin.py: cannot be read"),
        (["train.py", "--output", "nowhere/task.toml"], "nowhere/task.toml: cannot be written"),
    ],
)
def test_bad_input(tmp_path, arguments, message, capsys):
    (tmp_path / "broken.py").write_text("x = 1\nx = = 2\n")
    (tmp_path / "latin.py").write_bytes(b"x = '\xe9'\n")
    assert main(["init", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "task.toml").exists()


def test_a_script_without_readable_options(tmp_path, capsys):
    (tmp_path / "train.py").write_text("import fire\nfire.Fire(print)\n")
    assert main(["init", "train.py"]) == 0
    told = capsys.readouterr().out
    assert "no options could be read from train.py" in told
    assert "fill in `metric`" in told
