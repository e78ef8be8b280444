"""What a study comes to: its summary, its report in a file, the command of its winner."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from localhpo.analysis.summary import Summary
    from localhpo.study import Study
    from localhpo.trial import Trial

REPORT = "report.md"


def summary_of(study: Study) -> Summary:
    """Return the facts of a study as it stands."""
    from localhpo.analysis.summary import summarize
    from localhpo.scheduler.budget import Spent

    events = study.events
    elapsed_s = Spent.from_data([event.data for event in events]).wall_s or None
    return summarize(study.task, study.key, study.trials, elapsed_s=elapsed_s, events=events)


def record_of(study: Study, summary: Summary) -> dict[str, Any]:
    """Return the facts of a study as JSON, with the command that runs the winner again."""
    from localhpo.analysis.records import summary_record

    return {**summary_record(summary), "rerun": rerun(study, summary.best)}


def report_of(study: Study, summary: Summary) -> str:
    """Return the report as Markdown."""
    from localhpo.analysis.report import render

    return render(summary, rerun=rerun(study, summary.best))


def rerun(study: Study, trial: Trial | None) -> str:
    """Return the shell commands that run a trial again by hand; empty where there is no command."""
    from localhpo.executor.command import arguments
    from localhpo.executor.process import Files

    task = study.task
    if trial is None or not task.command:
        return ""
    files = Files(study.folder / "trials" / str(trial.number))
    known = {
        "config": str(files.config),
        "trial.dir": str(files.folder),
        "trial.number": str(trial.number),
        "seed": str(trial.seed),
    }
    settings = {
        **task.env,
        "LOCALHPO_CONFIG": str(files.config),
        "LOCALHPO_SEED": str(trial.seed),
    }
    words = arguments(task.command, {**task.fixed, **trial.config}, task, known)
    lines = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
    folder = shlex.quote(str(task.folder.absolute()))
    return f"cd {folder} &&\n" + " \\\n".join([*lines, *_wrapped(words)])


def _wrapped(words: Iterable[str], width: int = 80) -> list[str]:
    """Return an argument list as lines of a shell command, each short enough to copy."""
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("   ")
        lines[-1] += f" {shlex.quote(word)}" if lines[-1] else shlex.quote(word)
    return lines


def write_report(study: Study, summary: Summary) -> Path:
    """Write the report into the folder of the study and return where it is.

    Raises:
        StoreError: it cannot be written.
    """
    path = study.folder / REPORT
    save(path, report_of(study, summary))
    return path


def save(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        StoreError: it cannot be written.
    """
    from localhpo.errors import StoreError

    aside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        aside.write_text(text, encoding="utf-8")
        aside.replace(path)
    except OSError as exc:
        aside.unlink(missing_ok=True)
        raise StoreError(f"{path} cannot be written: {exc.strerror}") from exc
