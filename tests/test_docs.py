"""The manual is in the package, and what it says of commands, keys and files is true."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import importlib.resources
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin, get_type_hints

import click
import duckdb
import pytest
from manual import (
    DOCS,
    DOCUMENTS,
    PAGES,
    README,
    ROOT,
    Block,
    read_blocks,
    read_commands,
    read_prose,
    read_rows,
    read_sections,
)

from localhpo import cli
from localhpo.creator.registry import CREATORS
from localhpo.errors import InputError
from localhpo.llm.models.registry import DEFAULT, find_model, read_card
from localhpo.llm.registry import BACKENDS
from localhpo.objective import Constraint, Objective
from localhpo.scheduler.pruning import PRUNERS
from localhpo.space.table import KINDS
from localhpo.store import schema
from localhpo.task import (
    KEYS,
    Budget,
    CreatorSettings,
    PrunerSettings,
    Resources,
    Task,
    load_task,
    parse_task,
)

TASK_FILE = DOCS / "task-file.md"
TOPICS = {
    "architecture", "benchmarks", "contributing", "creators", "getting-started", "models",
    "past-studies", "python", "task-file", "trials",
}  # fmt: skip


def blocks(*languages: str) -> list[Any]:
    """Return the blocks of all documents as parameters of a test."""
    found = [block for path in DOCUMENTS for block in read_blocks(path, *languages)]
    return [pytest.param(block, id=f"{block.page}-{i}") for i, block in enumerate(found)]


# --- pages ---------------------------------------------------------------------------------------


def test_the_manual_is_data_of_the_package() -> None:
    folder = importlib.resources.files("localhpo") / "docs"
    assert {Path(page.name).stem for page in folder.iterdir()} >= TOPICS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_begins_with_a_title_and_one_sentence(page: Path) -> None:
    title, summary = page.read_text(encoding="utf-8").split("\n\n")[:2]
    assert re.fullmatch(r"# \S.*", title)
    assert re.fullmatch(r"[A-Z][^#|`]{20,160}\.", summary)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_drawings_and_programs_fit_into_a_terminal(page: Path) -> None:
    for block in read_blocks(page, "text", "python", "toml", "sql"):
        width = 98 if block.language == "python" else 78
        assert max(map(len, block.text.splitlines())) <= width


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_links_lead_to_files(document: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            assert (document.parent / target).is_file(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_paths_that_are_named_exist(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    folders = "scripts|tests|localhpo|models|prompts"
    packages = "|".join(p.name for p in (ROOT / "localhpo").iterdir() if p.is_dir())
    paths = set(re.findall(rf"(?<![\w./~-])((?:{folders}|{packages})/[\w./-]*[\w/])", text))
    paths |= set(re.findall(r"(?<![\w./-])(\w+\.py)\b", text)) - {"train.py"}
    paths = {path for path in paths if not re.search(r"[A-Z]{3}", path)}
    for path in paths:
        assert any((root / path).exists() for root in (ROOT, ROOT / "localhpo")), path


# --- commands ------------------------------------------------------------------------------------


def parse(words: list[str]) -> None:
    """Parse a command as click does, without running it or asking whether files exist."""
    command: click.Command = cli.cli
    name, *rest = words
    context = click.Context(command, info_name=name)
    while isinstance(command, click.Group) and rest and rest[0] in command.list_commands(context):
        found = command.get_command(context, rest.pop(0))
        assert found is not None
        command = found
        context = click.Context(command, parent=context)
    values, left, _ = command.make_parser(context).parse_args(list(rest))
    assert not left
    for parameter in command.params:
        value = values.get(parameter.name)
        if isinstance(parameter.type, click.Choice) and isinstance(value, str):
            parameter.type.convert(value, parameter, context)


@pytest.mark.parametrize(("page", "line"), sorted(set(read_commands())))
def test_commands_parse(page: str, line: str) -> None:
    del page
    parse(shlex.split(line.replace("[TOPIC]", "")))


def known_options() -> set[str]:
    """Return the options of all commands."""
    found: set[str] = set()

    def visit(command: click.Command, context: click.Context) -> None:
        for parameter in command.params:
            found.update(parameter.opts)
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                if (child := command.get_command(context, name)) is not None:
                    visit(child, click.Context(child, parent=context))

    visit(cli.cli, click.Context(cli.cli, info_name="localhpo"))
    return {*found, "--help"}


def test_options_that_are_named_exist() -> None:
    known = known_options()
    programs = "\n".join(
        path.read_text(encoding="utf-8")
        for folder in ("scripts", "localhpo/tasks")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in ("", ".py", ".toml")
    )
    for document in DOCUMENTS:
        spans = re.findall(r"`([^`]+)`", read_prose(document))
        for option in {o for span in spans for o in re.findall(r"(?<!\S)--[a-z][a-z-]*", span)}:
            of_program = f'"{option}"' in programs or f" {option}" in programs
            assert option in known or of_program or option in FOREIGN, (document.name, option)


FOREIGN = {"--name", "--num-gpus", "--num-cpus"}
"""Options of other programs: of a user's script, and of `ray start`."""


def test_variables_that_are_named_exist() -> None:
    source = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "localhpo").rglob("*.py"))
    for document in DOCUMENTS:
        for name in set(re.findall(r"\bLOCALHPO_[A-Z_]+\b", document.read_text(encoding="utf-8"))):
            assert name in source, (document.name, name)


# --- programs ------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", blocks("python"))
def test_programs_compile_and_their_names_exist(block: Block) -> None:
    tree = ast.parse(block.text)
    modules: dict[str, Any] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                modules[alias.asname or alias.name] = importlib.import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module or "")
            for alias in node.names:
                assert hasattr(module, alias.name), alias.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = modules.get(node.value.id)
            assert module is None or hasattr(module, node.attr), ast.unparse(node)


PROGRAMS = [block for block in blocks("python") if block.values[0].page == "python.md"]


@pytest.mark.slow
@pytest.mark.parametrize("block", PROGRAMS)
def test_programs_of_the_python_page_run(block: Block, tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(block.text)
    done = subprocess.run(
        [sys.executable, "program.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", blocks("toml"))
def test_task_files_are_valid(block: Block) -> None:
    table = tomllib.loads(block.text)
    if "space" in table:
        parse_task(table, folder=Path())
        return
    for section in KEYS.keys() & table.keys():
        rows = table[section] if isinstance(table[section], list) else [table[section]]
        for row in rows:
            assert row.keys() <= set(KEYS[section]), section


@pytest.mark.parametrize("block", blocks("sql"))
def test_queries_fit_the_store(block: Block) -> None:
    with duckdb.connect() as connection:
        schema.migrate(connection, "test", schema.MIGRATIONS)
        connection.execute(block.text)


# --- the page of the task file -------------------------------------------------------------------

SECTIONS = {
    heading.strip("[]"): text
    for heading, text in read_sections(TASK_FILE).items()
    if heading.startswith("[")
}
ROWS = {
    (section, key.strip("`")): (kind, default, meaning)
    for section, text in SECTIONS.items()
    if section != "fixed"
    for key, kind, default, meaning in read_rows(text)
}


def test_it_lists_the_sections_and_keys_that_a_task_file_may_have() -> None:
    assert SECTIONS.keys() == {*KEYS, "space", "fixed"}
    of_parameters = {
        field.name for kind in KINDS.values() for field in dataclasses.fields(kind)
    } - {"name"}
    accepted = {(section, key) for section, keys in KEYS.items() for key in keys}
    accepted |= {("space", key) for key in {"type", *of_parameters}}
    assert ROWS.keys() == accepted


MINIMAL: dict[str, dict[str, str]] = {
    "task": {
        "name": '"t"', "command": '["true"]', "metric": '"loss"', "direction": '"minimize"',
    },
    "space": {"x": '{ type = "float", low = 0.0, high = 1.0 }'},
}  # fmt: skip
REQUIRED: dict[str, dict[str, str]] = {
    "[objective]": {"name": '"loss"', "direction": '"minimize"'},
    "[constraint]": {"name": '"size"', "max": "1.0"},
    "data": {"folder": '"d"', "files": '{ "a.csv" = "a" }', "source": '"s"', "license": '"l"'},
}


def task_text(tables: dict[str, dict[str, str]]) -> str:
    lines = []
    for section, keys in tables.items():
        lines += [f"[{section}]", *(f"{key} = {value}" for key, value in keys.items())]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("section", "key"),
    [
        (section, key)
        for (section, key), (_, default, _) in ROWS.items()
        if default == "required" and section != "space"
    ],
)
def test_keys_that_are_called_required_are(section: str, key: str, tmp_path: Path) -> None:
    tables = {name: dict(keys) for name, keys in MINIMAL.items()}
    place = f"[{section}]" if section in ("objective", "constraint") else section
    tables |= {name: dict(keys) for name, keys in REQUIRED.items() if name == place}
    if section == "objective":
        del tables["task"]["metric"], tables["task"]["direction"]
    file = tmp_path / "task.toml"
    file.write_text(task_text(tables))
    load_task(file)
    del tables[place][key]
    file.write_text(task_text(tables))
    with pytest.raises(InputError):
        load_task(file)


def test_keys_of_parameters_have_the_defaults_that_are_told() -> None:
    for kind in KINDS.values():
        for field in dataclasses.fields(kind):
            if field.name == "name":
                continue
            _, told, _ = ROWS["space", field.name]
            if field.default is not dataclasses.MISSING:
                default = field.default
                told_default = read_default(told)
                assert told_default == (list(default) if default == () else default), field.name
            else:
                required = field.default_factory is dataclasses.MISSING
                assert told == ("required" if required else "`{}`"), field.name


def read_default(told: str) -> Any:
    """Return the value of a default as the page writes it."""
    if told in ("none", "required"):
        return None
    return tomllib.loads(f"value = {told.strip('`')}")["value"]


def default_of(section: str, key: str) -> Any:
    """Return the value that a task has where the file does not have the key."""
    task = parse_task(tomllib.loads(task_text(MINIMAL)), folder=Path())
    owner: Any = task if section == "task" else getattr(task, section)
    value = getattr(owner, key)
    return list(value) if isinstance(value, tuple) else value


OPTIONAL = [
    (section, key)
    for (section, key), (_, default, _) in ROWS.items()
    if default != "required" and section in ("task", "budget", "resources", "creator", "pruner")
]


@pytest.mark.parametrize(("section", "key"), OPTIONAL)
def test_defaults_are_those_of_a_task_without_the_key(section: str, key: str) -> None:
    _, told, _ = ROWS[section, key]
    if key == "cwd":  # `Task` has the folder that it leads to
        assert Path(read_default(told)) == Path()
        return
    value = default_of(section, key)
    assert read_default(told) == value
    assert type(read_default(told)) is type(value)


OWNERS: dict[str, type] = {
    "task": Task, "objective": Objective, "constraint": Constraint, "budget": Budget,
    "resources": Resources, "creator": CreatorSettings, "pruner": PrunerSettings,
}  # fmt: skip
WORDS = {str: "string", int: "integer", float: "number", bool: "boolean"}


@pytest.mark.parametrize(
    ("section", "key"),
    [place for place in ROWS if place[0] in OWNERS and place != ("task", "cwd")],
)
def test_types_and_options_are_those_of_the_code(section: str, key: str) -> None:
    kind, _, meaning = ROWS[section, key]
    hints = {**get_type_hints(OWNERS[section])}
    if section == "task":
        hints |= {"metric": str, "direction": get_type_hints(Objective)["direction"]}
    hint = hints[key]
    if isinstance(hint, UnionType):
        hint = next(one for one in get_args(hint) if one is not type(None))
    if get_origin(hint) is Literal:
        assert kind == "string"
        trials = (DOCS / "trials.md").read_text(encoding="utf-8")
        for option in get_args(hint):
            told = f'"{option}"' in meaning or (key == "sharing" and f"`{option}`" in trials)
            assert told, option
    elif get_origin(hint) is tuple:
        assert kind == "list of strings"
    elif hint in WORDS:
        assert kind == WORDS[hint]
    else:
        assert kind == "table of strings"


def test_all_names_that_can_be_chosen_are_told() -> None:
    for registry, page in (
        (CREATORS, "creators.md"), (BACKENDS, "models.md"), (PRUNERS, "task-file.md"),
    ):  # fmt: skip
        text = (DOCS / page).read_text(encoding="utf-8")
        for name in registry.built_in:
            assert re.search(f'`"?{name}"?`', text), name


def test_the_settings_of_task_files_that_prose_names_are_accepted() -> None:
    for document in DOCUMENTS:
        for section, key in re.findall(r"`\[(\w+)\]\s+(\w+)", read_prose(document)):
            known = {*KEYS.get(section, ()), "objective", "experience"}
            assert key in known, (document.name, section, key)


# --- numbers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", ["yahpo-seen", "xgboost", "mlp", "yahpo-unseen"])
def test_the_numbers_are_those_of_the_card(suite: str) -> None:
    measured = read_card(find_model(DEFAULT)).measured
    rows = read_rows(read_sections(DOCS / "benchmarks.md")[suite])
    if suite == "yahpo-seen":
        rows += read_rows(read_sections(README)["How good it is"])
    assert len(rows) >= 3
    for creator, *cells in rows:
        name = f"{suite}_{creator.strip('`')}".replace("-", "_").replace("+", "_")
        expected = [measured[f"{name}_{trial}"] for trial in (1, 3, 5, 10)]
        assert [float(cell) for cell in cells] == pytest.approx(expected, abs=0.0006), creator
