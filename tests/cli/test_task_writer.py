import re
import textwrap
import tomllib

import pytest

from localhpo.cli.init import task_writer
from localhpo.cli.init.argparse_reader import read_script
from localhpo.executor.command import check_command
from localhpo.task import parse_task


def written(source: str, path: str = "train.py") -> str:
    script = read_script(textwrap.dedent(source), path)
    return task_writer.write(task_writer.plan(script, path, "mine"))


def loaded(text: str, tmp_path):
    return parse_task(tomllib.loads(text), folder=tmp_path)


SKLEARN_STYLE = '''
"""Train a forest."""
import argparse
from sklearn.ensemble import RandomForestClassifier
from localhpo.reporter import report

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--n-estimators", type=int, default=100, help='trees, "all" of them\\\\')
parser.add_argument("--max-features", type=float, default=0.5)
parser.add_argument("--criterion", choices=["gini", "entropy"], default="gini")
parser.add_argument("--out.dir", default="models/{run}", help="where to | write")
parser.add_argument("--random-state", type=int, default=0)
args = parser.parse_args()
report(accuracy=0.9)
'''

NANOGPT_STYLE = """
import argparse, os
BLOCK = 1024
def get_args():
    ap = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    ap.add_argument("input_bin", help="the tokens")
    ap.add_argument("-b", type=int, default=4, help="batch size")
    ap.add_argument("-lr", "--learning_rate", type=float, default=6e-4)
    ap.add_argument("--n_embd", type=int, default=768)
    ap.add_argument("--block", type=int, default=BLOCK)
    ap.add_argument("--dtype", type=str, default="bfloat16", choices=("float32", "bfloat16"))
    ap.add_argument("--compile", action="store_true")
    return ap.parse_args()
"""


def test_the_commented_settings_exist(tmp_path):
    head, settings = written(SKLEARN_STYLE).split("[budget]")
    shown = re.sub(r"^# (?=\[|\w+ =)", "", f"[budget]{settings}", flags=re.MULTILINE)
    task = loaded(head + shown, tmp_path)
    assert (task.resources.gpus, task.resources.gpu_memory_mb) == (1.0, 20_000.0)
    assert (task.resources.executor, task.resources.priority) == ("ray", 1.0)
    assert (task.creator.model, task.creator.backend, task.creator.model_gpus) == (
        "Qwen3-8B",
        "vllm",
        2,
    )
    assert (task.creator.transfer, task.pruner.name) == ("retrieve", "median")


def test_a_task_file_loads_with_the_options_of_the_script(tmp_path):
    text = written(SKLEARN_STYLE)
    task = loaded(text, tmp_path)
    assert task.command == ("python", "train.py")
    assert (task.metric, task.direction, task.background) == ("accuracy", "maximize", "")
    assert task.space.names == ("n-estimators", "max-features", "criterion")
    assert task.space["n-estimators"].help == 'trees, "all" of them\\'
    assert task.space.default() == {"n-estimators": 100, "max-features": 0.5, "criterion": "gini"}
    assert '    # "--random-state", "{seed}",' in text
    assert '    # "--out.dir", "{trial.dir}",  # where to | write' in text


def test_options_that_cannot_be_appended_get_placeholders(tmp_path):
    task = loaded(written(NANOGPT_STYLE), tmp_path)
    assert task.command == (
        "python", "train.py", "INPUT_BIN",
        "-b", "{b}", "--learning_rate", "{learning_rate}", "--n_embd", "{n_embd}",
        "--block", "{block}", "--dtype", "{dtype}",
    )  # fmt: skip


NOT_PROPOSED = """
p.add_argument("--lr", type=float, default=0.1)
p.add_argument("--optimizer", default="adam")
p.add_argument("--margin", type=float, default=0.0)
p.add_argument("--booster", choices=["gbtree"], default="gbtree")
p.add_argument("--run-name", default="mine")
p.add_argument("--data-dir", default="data")
p.add_argument("--seed", type=int, default=0)
p.add_argument("--amp", action="store_true")
p.add_argument("--radius", type=float)
"""


def uncommented(text: str, *starts: str) -> str:
    lines = (line.strip() for line in text.splitlines())
    return "\n".join(
        line.removeprefix("# ")
        if line.startswith(tuple(f"# {start}" for start in starts))
        else line
        for line in lines
    )


def test_hyperparameters_that_are_not_tuned_can_be_fixed(tmp_path):
    text = written(NOT_PROPOSED)
    assert not loaded(text, tmp_path).fixed
    task = loaded(uncommented(text, "[fixed]", "optimizer", "margin", "booster"), tmp_path)
    assert task.fixed == {"optimizer": "adam", "margin": 0.0, "booster": "gbtree"}
    assert '"--optimizer"' not in text  # it would be passed twice
    (section,) = [part for part in text.split("\n\n") if part.startswith("# [fixed]")]
    assert len(section.splitlines()) == 5


def test_fixed_values_have_placeholders_if_the_command_has_others(tmp_path):
    text = written(NOT_PROPOSED + 'p.add_argument("-b", type=int, default=4)')
    task = loaded(uncommented(text, "[fixed]", "optimizer", '"--optimizer'), tmp_path)
    assert task.command[-4:] == ("-b", "{b}", "--optimizer", "{optimizer}")
    check_command(task.command, task.names)


def test_there_is_no_fixed_section_without_fixed_values():
    assert "[fixed]" not in written('p.add_argument("--lr", type=float, default=0.1)')


def test_options_that_cannot_be_appended_are_not_offered_as_fixed():
    text = written(
        """
        p.add_argument("--lr", type=float, default=0.1)
        p.add_argument("-m", type=float, default=0)
        """
    )
    assert '    # "-m", "0.0",' in text
    assert "[fixed]" not in text


def test_required_values_are_marked(tmp_path):
    text = written(NANOGPT_STYLE)
    assert '    "INPUT_BIN",  # <- FILL IN' in text
    plan = task_writer.plan(read_script(NANOGPT_STYLE, "t.py"), "t.py", "mine")
    assert [option.name for option in plan.to_fill_in] == ["input_bin"]


def test_required_options_with_known_values_are_passed(tmp_path):
    task = loaded(
        written(
            """
            p.add_argument("--seed", type=int, required=True)
            p.add_argument("--output-dir", required=True)
            p.add_argument("--dataset", choices=["cora", "citeseer"], required=True)
            p.add_argument("--lr", type=float)
            """
        ),
        tmp_path,
    )
    assert task.command[2:] == (
        "--seed", "{seed}", "--output-dir", "{trial.dir}", "--dataset", "cora",
    )  # fmt: skip


def test_braces_in_a_default_are_not_placeholders():
    text = written('p.add_argument("--name-format", default="{epoch}.pt")')
    assert '"{{epoch}}.pt"' in text


def test_names_that_are_no_bare_keys_are_quoted(tmp_path):
    text = written('p.add_argument("--optim.lr", type=float, default=0.1)')
    assert loaded(text, tmp_path).space.names == ("optim.lr",)


def test_choices_that_a_space_refuses_are_left_out(tmp_path):
    text = written(
        """
        p.add_argument("--n", type=int, choices=[1, 10**13])
        p.add_argument("--lr", type=float, default=0.1)
        """
    )
    assert "lr" in loaded(text, tmp_path).space.names


def test_control_characters_do_not_break_the_file(tmp_path):
    text = written(
        "p.add_argument('--lr', type=float, default=0.1, help='a\\x1b[31mb\\x7f')\n"
        "p.add_argument('--data', default='x', help='c\\x07d\\ne')\n"
    )
    assert "\x1b" not in text
    loaded(text, tmp_path)


@pytest.mark.parametrize("library", ["click", "fire"])
def test_a_script_of_another_library_gets_a_template_with_its_command(library, tmp_path):
    text = written(f"import {library}\n")
    assert f"it uses {library}" in text
    assert loaded(text, tmp_path).command == ("python", "train.py")


def test_the_template_loads_and_shows_a_condition(tmp_path):
    text = task_writer.write(task_writer.TaskFilePlan(script="", name="my-task"))
    task = loaded(text, tmp_path)
    assert task.space.conditional
    assert task.metric == "val_loss"
    assert "from localhpo.reporter import report" in text


def test_commented_examples_are_valid_once_uncommented(tmp_path):
    text = task_writer.write(task_writer.TaskFilePlan(script="", name="my-task"))
    uncommented = text.replace("# minutes", "minutes").replace("# timeout_s", "timeout_s")
    uncommented = uncommented.replace("# cpus", "cpus").replace("# gpus", "gpus")
    uncommented = uncommented.replace("# memory_mb", "memory_mb")
    uncommented = re.sub(r"^# (?=\[\w|name = \"(?:hybrid|median)\")", "", uncommented, flags=re.M)
    task = loaded(uncommented, tmp_path)
    assert (task.pruner.name, task.creator.name, task.budget.timeout_s) == ("median", "hybrid", 600)


def test_the_commented_objectives_and_constraints_are_valid(tmp_path):
    text = task_writer.write(task_writer.TaskFilePlan(script="", name="my-task"))
    names = r'\[\[|name = "(?:val_accuracy|peak_memory_mb)"|direction|max = '
    text = re.sub(rf"^# (?={names})", "", text, flags=re.M)
    text = re.sub(r'^metric = .*\ndirection = "minimize"\n', "", text, flags=re.M)
    task = loaded(text, tmp_path)
    assert [objective.name for objective in task.objectives] == ["val_accuracy"]
    assert [constraint.describe() for constraint in task.constraints] == ["peak_memory_mb <= 4000"]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("cifar/train.py", "cifar-train"),
        ("cifar/fit_resnet.py", "fit-resnet"),
        ("cifar/Ärger!.py", "arger"),
        ("cifar/__main__.py", "cifar-main"),
    ],
)
def test_the_name_of_a_task(path, name, tmp_path):
    assert task_writer.task_name(tmp_path / path) == name


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-5, "1e-5"), (3e-4, "3e-4"), (0.25, "0.25"), (3.0, "3.0"), (1e20, "1e20"),
        (-2e-7, "-2e-7"), (0.0, "0.0"), (0.0001234567, "1.234567e-4"), (7, "7"), (True, "true"),
        ('a"b\n', '"a\\"b\\n"'), ([1, "x"], '[1, "x"]'),
    ],
)  # fmt: skip
def test_toml_values(value, text):
    assert task_writer.toml(value) == text
    assert tomllib.loads(f"x = {text}")["x"] == value


@pytest.mark.parametrize(
    ("names", "metric", "direction"),
    [
        (["train_loss", "val_loss", "val_acc"], "val_loss", "minimize"),
        (["loss", "val_f1"], "val_f1", "maximize"),
        (["accuracy"], "accuracy", "maximize"),
        (["lr", "perplexity"], "perplexity", "minimize"),
        (["validAUC"], "validAUC", "maximize"),
        (["thing"], "thing", None),
        (["eval/rmse"], "eval/rmse", "minimize"),
    ],
)
def test_metrics(names, metric, direction):
    assert task_writer.choose_metric(names) == metric
    assert task_writer.guess_direction(metric) == direction


def test_no_metric():
    assert task_writer.choose_metric([]) is None
