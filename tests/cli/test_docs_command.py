"""`localhpo docs`."""

import json
import os
import pty
import subprocess
import sys

import pytest

from localhpo import assets
from localhpo.cli import docs, main

FOLDER = assets.folder("docs")


def test_topics_are_listed_with_what_they_are_about(capsys):
    assert main(["docs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == (
        "getting-started   Install LocalHPO, tune a script of your own, and read what a study"
        " leaves behind."
    )
    assert {line.split()[0] for line in lines[2:-2]} == {page.stem for page in FOLDER.glob("*.md")}


def test_the_list_as_json_says_where_the_pages_are(capsys):
    assert main(["docs", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)[0]
    assert first["title"] == "Getting started"
    assert first["path"] == str(FOLDER / "getting-started.md")


@pytest.mark.parametrize("topic", ["task-file", "Task file", "task_file", "task-file.md"])
def test_a_page_is_markdown_where_there_is_no_terminal(topic, capsys):
    assert main(["docs", topic]) == 0
    assert capsys.readouterr().out == (FOLDER / "task-file.md").read_text(encoding="utf-8")


def test_the_path_of_the_manual_and_of_a_page(capsys):
    assert main(["docs", "--path"]) == 0
    assert main(["docs", "models", "--path"]) == 0
    assert capsys.readouterr().out == f"{FOLDER}\n{FOLDER / 'models.md'}\n"


@pytest.mark.parametrize(
    ("topic", "hint"),
    [("creator", "did you mean 'creators'?"), ("zzz", "the topics are getting-started, task-file")],
)
def test_an_unknown_topic_names_others(topic, hint, capsys):
    assert main(["docs", topic]) == 2
    assert hint in capsys.readouterr().err


def test_a_link_to_a_page_becomes_a_command_outside_of_code():
    text = "See [the task file](task-file.md#space).\n```\n[a](b.md)\n```\n[web](https://x.org)"
    assert docs.name_topics(text) == (
        "See the task file (`localhpo docs task-file`).\n```\n[a](b.md)\n```\n[web](https://x.org)"
    )


@pytest.mark.parametrize(
    ("settings", "options", "expected"),
    [
        ({"PAGER": "sed s/^/>/"}, [], ">"),
        ({"PAGER": "sed s/^/>/"}, ["--plain"], "# Models and servers"),
        ({"PAGER": "cat", "NO_COLOR": "1"}, [], "Models and servers\r\n"),
    ],
)
def test_a_terminal_gets_a_page_in_the_pager_of_the_user(settings, options, expected):
    out = run_on_terminal(["docs", "models", *options], settings)
    assert expected in out
    assert ("# Models" in out) == ("--plain" in options)
    assert "\x1b[3" not in out  # colors


def run_on_terminal(arguments, settings):
    """Return what the command line prints on a terminal."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", **settings}
    process = subprocess.Popen(
        [sys.executable, "-m", "localhpo", *arguments],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment,
    )  # fmt: skip
    os.close(theirs)
    parts = []
    try:
        while part := os.read(ours, 4096):
            parts.append(part)
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    return b"".join(parts).decode()
