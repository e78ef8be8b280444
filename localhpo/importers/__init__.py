"""Trials that other programs kept: reads them, and plans which go into a study.

Readers (`optuna`, `tables`) turn a file into a `TrialSource`. `plan_import` puts its trials into a
space, which the user's task gives, the file states, or `inference` derives from the values.
"""

from localhpo.importers.plan import AcceptedTrial, ImportPlan, plan_import
from localhpo.importers.source import SkippedRow, SourceTrial, TrialSource, read_source

__all__ = [
    "AcceptedTrial",
    "ImportPlan",
    "SkippedRow",
    "SourceTrial",
    "TrialSource",
    "plan_import",
    "read_source",
]
