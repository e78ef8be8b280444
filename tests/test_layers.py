"""The shape of the code: who may import whom, where third parties live, how long things are.

`MAY_IMPORT` says what a module may import of the package, beside `errors` and itself; `ALSO` has
the exceptions. `HOME_OF` says where a third party may be imported. A change of a table is a change
of the design.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "localhpo"
SCRIPTS = PACKAGE.parent / "scripts"
TESTS = PACKAGE.parent / "tests"

BELOW_STUDY = {
    "assets", "reporter", "runtime", "space", "trial", "objective", "grammar", "task", "store",
    "llm", "transfer", "data", "creator", "executor", "resources", "scheduler", "analysis",
    "plugins",
}  # fmt: skip

MAY_IMPORT: dict[str, set[str]] = {
    "errors": set(),
    "reporter": set(),
    "assets": set(),
    "runtime": set(),
    "plugins": set(),
    "tables": set(),
    "space": set(),
    "trial": set(),
    "objective": {"trial"},
    "grammar": {"space", "trial"},
    "data": {"tables"},
    "task": {"space", "trial", "objective", "tables", "data"},
    "store": {"trial", "space", "task"},
    "llm": {"assets", "runtime", "plugins"},
    "transfer": {"trial", "objective", "space", "task", "assets"},
    "importers": {"trial", "objective", "space", "task"},
    "creator": {
        "trial", "objective", "space", "task", "grammar", "llm", "transfer", "assets", "plugins",
    },
    "executor": {"trial", "objective", "task", "reporter"},
    "resources": {"trial", "objective", "space", "task", "runtime"},
    "scheduler": {
        "runtime", "trial", "objective", "space", "task", "store", "resources", "plugins",
        "creator.protocol", "executor.protocol",
    },
    "analysis": {"trial", "objective", "space", "task", "assets", "store.records"},
    "study": BELOW_STUDY,
    "finetune": {
        "trial", "objective", "space", "task", "store", "grammar", "llm", "transfer", "resources",
        "creator",
    },
    "sampler": {"trial", "objective", "space", "task", "creator"},
    "tasks": {"reporter", "data"},
    "testing": BELOW_STUDY | {"study"},
    "cli": BELOW_STUDY | {"study", "sampler", "tasks", "importers", "finetune", "cli"},
    "__main__": {"cli"},
    "__init__": BELOW_STUDY | {"study", "sampler", "tasks"},  # lazily
}  # fmt: skip
"""Package module -> what it may import (a dotted name allows that submodule alone)."""

ALSO = {
    "space": {"trial"},  # the types Value and Config
    "llm": {"executor.supervisor"},  # the program that ends a server with its study
    "scheduler": {"executor.clock"},  # a simulated executor brings its own time
}

OF_SCRIPTS = {
    "tasks.images",
    "tasks.boosting",
    "tasks.image_classification",
    "tasks.text_models",
    "tasks.text_classification",
}
"""What training scripts of ready tasks share: parts of programs, imported by nothing else."""

HOME_OF: dict[str, set[str]] = {
    "duckdb": {"store"},
    # In llm.transformers: its errors; in llm.models: chat templates are rendered.
    "jinja2": {"creator.prompt", "analysis.report", "llm.transformers", "llm.models.thinking"},
    "click": {"cli"},
    "rich": {"cli"},
    "torch": {"llm.transformers", "finetune", *OF_SCRIPTS},
    "transformers": {"llm.transformers", *OF_SCRIPTS},
    "tokenizers": {"tasks.text_models"},
    "timm": {"tasks.image_classification"},
    "PIL": {"tasks.images"},
    "llguidance": {"llm.transformers", "llm.scripted"},
    "peft": {"llm.transformers", "finetune"},
    "safetensors": {"llm.transformers"},
    "optuna": {
        "space.optuna",
        "creator.optuna",
        "sampler",
        "importers.optuna",
    },
    "cmaes": {"creator.optuna"},
    "scipy": {
        "creator.optuna",
        "creator.bo",
        "analysis",
        "resources.peaks",
        "finetune.evaluation",
    },
    "pytest": {"testing"},
    "numpy": {
        "testing",
        "space",
        "creator",
        "analysis",
        "executor.simulated",
        "finetune",
        "resources.peaks",
        *OF_SCRIPTS,
    },
    "httpx": {"llm"},
    "psutil": {
        "finetune.trainable_model",
        "resources.inventory",
        "resources.footprint",
        "resources.meter",
        "executor",
    },
    "pynvml": {"resources.nvml", "executor"},
    "ray": {"executor.ray"},
    "cloudpickle": {"executor.function"},
    "xgboost": {"tasks.boosting"},
    "sklearn": {"tasks.boosting"},
}
"""Third party -> the modules of the package where it may be imported."""

MAX_FILE_LINES = 700
MAX_FUNCTION_LINES = 60
MAX_FOLDER_FILES = 15


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def package_files() -> Iterator[Path]:
    for path in sorted(PACKAGE.rglob("*.py")):
        is_script = path.parent.parent == PACKAGE / "tasks"  # a ready task is a user's program
        if "_data" not in path.parts and not is_script:
            yield path


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module
            if node.module == "localhpo":
                yield from (f"localhpo.{alias.name}" for alias in node.names)


def within(module: str, allowed: set[str]) -> bool:
    return any(module == name or module.startswith(f"{name}.") for name in allowed)


@pytest.mark.parametrize("path", list(package_files()), ids=module_name)
def test_imports_go_downwards(path: Path) -> None:
    module = module_name(path)
    top = module.split(".")[0]
    assert top in MAY_IMPORT, f"{module} has no row in MAY_IMPORT"
    allowed = MAY_IMPORT[top] | ALSO.get(top, set()) | {top, "errors"}
    for imported in imports_of(path):
        if imported.startswith("localhpo."):
            inner = imported.removeprefix("localhpo.")
            if (
                not (PACKAGE / inner.split(".")[0]).exists()
                and not (PACKAGE / f"{inner.split('.')[0]}.py").exists()
            ):
                continue  # a name of the package itself, such as __version__
            assert within(inner, allowed), f"{module} imports {imported}"


@pytest.mark.parametrize("path", list(package_files()), ids=module_name)
def test_third_parties_stay_at_home(path: Path) -> None:
    module = module_name(path)
    for imported in imports_of(path):
        top = imported.split(".")[0]
        if top == "localhpo" or top in sys.stdlib_module_names:
            continue
        assert top in HOME_OF, f"{module} imports {top}, which has no row in HOME_OF"
        assert within(module, HOME_OF[top]), f"{module} imports {top}"


@pytest.mark.parametrize(
    "path",
    [*package_files(), *sorted(SCRIPTS.rglob("*.py")), *sorted(TESTS.rglob("*.py"))],
    ids=lambda path: str(path.relative_to(PACKAGE.parent)),
)
def test_files_and_functions_are_short(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert source.count("\n") <= MAX_FILE_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1 - docstring_lines(node)
            assert lines <= MAX_FUNCTION_LINES, f"{node.name} has {lines} lines"


def docstring_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    first = node.body[0]
    if ast.get_docstring(node) is None:
        return 0
    return (first.end_lineno or 0) - first.lineno + 1


@pytest.mark.parametrize("root", [PACKAGE, SCRIPTS / "benchmarks"], ids=lambda root: root.name)
def test_folders_are_small(root: Path) -> None:
    folders = [root, *(path for path in root.rglob("*") if path.is_dir())]
    for folder in folders:
        files = [path for path in folder.iterdir() if path.suffix in (".py", ".toml", ".md", ".j2")]
        assert len(files) <= MAX_FOLDER_FILES, f"{folder} has {len(files)} files"


def test_modules_of_the_tables_exist() -> None:
    named = {*MAY_IMPORT, *ALSO}.union(*MAY_IMPORT.values(), *ALSO.values(), *HOME_OF.values())
    modules = {module_name(path) for path in package_files()}
    packages = {module.rpartition(".")[0] for module in modules}
    assert not named - modules - packages


def test_no_catch_all_modules() -> None:
    banned = {"utils", "common", "types", "helpers", "misc"}
    assert not [path for path in package_files() if path.stem in banned]


def loaded_after(code: str) -> set[str]:
    """Return the top-level modules that a fresh interpreter holds after `code`."""
    program = f"{code}\nimport sys\nprint(*{{m.split('.')[0] for m in sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def third_parties(modules: set[str]) -> set[str]:
    return modules & (set(HOME_OF) | {"pandas"})


def test_importing_the_package_loads_nothing() -> None:
    assert third_parties(loaded_after("import localhpo")) == set()


def test_help_loads_click_alone() -> None:
    code = """
from localhpo.cli import main
try:
    main(["--help"])
except SystemExit:
    pass
"""
    assert third_parties(loaded_after(code)) == {"click"}
