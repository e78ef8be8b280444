"""The errors of LocalHPO. Catch `LocalHPOError` for all of them.

LocalHPOError                      exit 1
├── InputError                     exit 2   the user's input cannot be used
│   ├── SpaceError                          an invalid search space
│   ├── ConfigurationError                  a configuration that is not in its space
│   ├── TaskError                           an invalid task file or task
│   ├── DataError                           data files of a task are missing
│   ├── StudyNotFoundError                  no study of that name in the store
│   └── StudyChangedError                   a study continued with other settings
├── MissingExtraError              exit 1   an optional package is not installed
├── PluginError                    exit 1   a plug-in cannot be imported, or fails
├── StoreError                     exit 1   the store cannot be read or written
│   ├── StoreVersionError                   written by a newer LocalHPO
│   └── StudyLockedError                    another process runs this study
├── ModelError                     exit 1   a language model cannot be used
│   ├── CardError                           a model folder with a missing or changed file
│   ├── BackendError                        a backend does not answer, or refuses
│   ├── ConstraintError                     a backend does not follow the grammar
│   └── GenerationError                     an answer is not complete
├── CreatorError                   exit 1   no proposal could be made
│   └── SpaceExhaustedError                 every configuration has been tried
├── ExecutorError                  exit 1   a trial could not be run
├── NoGoodTrialError               exit 3   the study ended without a complete trial
└── StudyInterruptedError          exit 130 the study was stopped by the user

Exit code and default hint belong to the class; an instance may have its own hint. `localhpo.cli`
turns an error into a message and an exit code.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return `did you mean ...?` with the most similar known word; empty where none is similar."""
    import difflib  # imported here to keep `import localhpo` fast

    similar = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {similar[0]!r}?" if similar else ""


class LocalHPOError(Exception):
    """Base class of the errors that LocalHPO raises."""

    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """Make the error.

        Args:
            message: What must hold, and what was given instead.
            hint: What to do about it; None for the hint of the class.
        """
        super().__init__(message)
        self.hint = self.default_hint if hint is None else hint


class InputError(LocalHPOError):
    """The user's input cannot be used."""

    exit_code = 2


class SpaceError(InputError):
    """A search space is invalid."""


class ConfigurationError(InputError):
    """A configuration is not in its space."""


class TaskError(InputError):
    """A task file, or the task that it describes, is invalid."""


class DataError(InputError):
    """Data files of a task are not on this machine."""


class StudyNotFoundError(InputError):
    """There is no study of that name in the store."""

    default_hint = "`localhpo trials` lists the studies of this store"


class StudyChangedError(InputError):
    """The settings of a study differ from those that it was started with."""

    default_hint = "restore the old settings, or start another study with --study NEW"


class MissingExtraError(LocalHPOError):
    """An optional package is not installed."""

    def __init__(
        self, package: str, needed_by: str, extra: str, *, hint: str | None = None
    ) -> None:
        """Make the error.

        Args:
            package: The missing package.
            needed_by: What needs it.
            extra: The extra of LocalHPO that installs it.
            hint: How to install it; None for pip with the extra.
        """
        super().__init__(
            f"{needed_by} needs {package}, which is not installed",
            hint=f"pip install 'localhpo[{extra}]'" if hint is None else hint,
        )


class PluginError(LocalHPOError):
    """A plug-in cannot be imported, or fails at run time."""

    default_hint = "repair or remove its package, or choose another name"


class StoreError(LocalHPOError):
    """The store cannot be read or written."""


class StoreVersionError(StoreError):
    """The store was written by a newer LocalHPO."""

    default_hint = "update LocalHPO, or set LOCALHPO_HOME to another folder"


class StudyLockedError(StoreError):
    """Another process runs this study."""

    default_hint = "wait for it, stop it, or start another study with --study NEW"


class ModelError(LocalHPOError):
    """A language model cannot be used."""


class CardError(ModelError):
    """A model folder does not match its card, or has none."""


class BackendError(ModelError):
    """A backend does not answer, or refuses."""


class ConstraintError(ModelError):
    """A backend returns answers that violate the grammar."""


class GenerationError(ModelError):
    """An answer of a model is not complete."""


class CreatorError(LocalHPOError):
    """No proposal could be made."""


class SpaceExhaustedError(CreatorError):
    """Every configuration of the space has been tried."""


class ExecutorError(LocalHPOError):
    """A trial could not be run."""


class NoGoodTrialError(LocalHPOError):
    """The study ended without a complete trial."""

    exit_code = 3
    default_hint = "`localhpo trials --failed` shows each failure and its cause"


class StudyInterruptedError(LocalHPOError):
    """The user stopped the study; it can be continued."""

    exit_code = 130
    default_hint = "run the same command again to continue"
