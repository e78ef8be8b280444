"""Paths: the home, and the folder of a study and of a trial in it.

    $LOCALHPO_HOME/                     ./.localhpo by default
        store.duckdb
        studies/<task>/<study>/         the name of a study is its path below studies/
            lock
            journal.jsonl
            trials/<number>/

Both parts of a name are letters, digits, `.`, `_` and `-`, and begin with a letter or digit:
no name can leave the home, hide, or look like an option.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from localhpo.errors import InputError

DATABASE = "store.duckdb"
STUDIES = "studies"
LOCK = "lock"
JOURNAL = "journal.jsonl"
OLD_JOURNAL = "spool.jsonl"
"""What version 0.1.0 wrote instead."""
TRIALS = "trials"

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)


def default_home() -> Path:
    """Return `$LOCALHPO_HOME`, or `.localhpo` in the working directory."""
    return Path(os.environ.get("LOCALHPO_HOME") or ".localhpo").expanduser().absolute()


def study_name(task_name: str, study: str = "main") -> str:
    """Return the name under which the store keeps a study of a task.

    Raises:
        InputError: one of the two cannot be the name of a folder.
    """
    for what, part in (("name of a task", task_name), ("name of a study", study)):
        if not _PART.fullmatch(part):
            raise InputError(
                f"the {what} must be 1 to 100 letters, digits, '.', '_' or '-' and begin with "
                f"a letter or digit, got {part!r}",
                hint="choose another name, for instance water-xgboost or run_2",
            )
    return f"{task_name}/{study}"


def study_folder(home: Path, name: str) -> Path:
    """Return the folder of a study; it need not exist.

    Raises:
        InputError: `name` is not `<task>/<study>`.
    """
    task_name, slash, study = name.partition("/")
    if not slash:
        raise InputError(
            f"the full name of a study must be <task>/<study>, got {name!r}",
            hint=f"did you mean {name}/main?",
        )
    return home / STUDIES / study_name(task_name, study)


def trial_folder(home: Path, name: str, number: int) -> Path:
    """Return the folder of a trial; it need not exist."""
    return study_folder(home, name) / TRIALS / str(number)
