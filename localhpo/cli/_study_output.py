"""Output of a study: its summary, its report in a file, the commands of its best trials."""

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
    """Return the facts of a study as they stand."""
    from localhpo.analysis.summary import summarize_study
    from localhpo.scheduler.budget import SpentTime

    events = study.events
    elapsed_s = SpentTime.from_data([event.data for event in events]).wall_s or None
    return summarize_study(study.task, study.key, study.trials, elapsed_s=elapsed_s, events=events)


def record_of(study: Study, summary: Summary) -> dict[str, Any]:
    """Return the facts of a study as JSON, with the commands that run the best trials again."""
    from localhpo.analysis.records import summary_record

    best = summary.best_trial
    again = "" if best is None else rerun_command(study, best)
    return {**summary_record(summary), "rerun": again, "reruns": _reruns(study, summary)}


def report_of(study: Study, summary: Summary) -> str:
    """Return the report as Markdown."""
    from localhpo.analysis.report import render_report

    return render_report(summary, reruns=_reruns(study, summary))


def _reruns(study: Study, summary: Summary) -> dict[int, str]:
    """Return the command of each best trial by its number; empty where the task has no command."""
    if not study.task.command:
        return {}
    return {trial.number: rerun_command(study, trial) for trial in summary.best_trials}


def rerun_command(study: Study, trial: Trial) -> str:
    """Return the shell commands that run a trial again; empty where the task has no command."""
    from localhpo.executor.command import build_arguments
    from localhpo.executor.process import TrialFiles

    task = study.task
    if not task.command:
        return ""
    files = TrialFiles(study.folder / "trials" / str(trial.number))
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
    words = build_arguments(task.command, {**task.fixed, **trial.config}, task, known)
    lines = [f"{name}={shlex.quote(value)}" for name, value in settings.items()]
    folder = shlex.quote(str(task.folder.absolute()))
    return f"cd {folder} &&\n" + " \\\n".join([*lines, *_wrapped(words)])


def _wrapped(words: Iterable[str], width: int = 80) -> list[str]:
    """Return an argument list as lines of a shell command, each about `width` characters long."""
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("   ")
        lines[-1] += f" {shlex.quote(word)}" if lines[-1] else shlex.quote(word)
    return lines


def write_report(study: Study, summary: Summary) -> Path:
    """Write the report into the folder of the study and return its path.

    Raises:
        StoreError: it cannot be written.
    """
    path = study.folder / REPORT
    save(path, report_of(study, summary))
    return path


def save(path: Path, text: str) -> None:
    """Write a file atomically.

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
