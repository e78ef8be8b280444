"""The errors of LocalHPO. Catch `LocalHPOError` for all of them.

LocalHPOError                      exit 1
├── InputError                     exit 2   what the user wrote cannot be used
│   ├── SpaceError                          a search space
│   ├── ConfigurationError                  a configuration that is not in its space
│   ├── TaskError                           a task file or the task it describes
│   ├── DataError                           files that a task reads are not there
│   ├── StudyNotFoundError                  a name that the store does not hold
│   └── StudyChangedError                   a study continued under other settings
├── MissingExtraError              exit 1   an optional dependency is absent
├── StoreError                     exit 1   the store cannot be read or written
│   ├── StoreVersionError                   written by a newer LocalHPO
│   └── StudyLockedError                    another process runs this study
├── ModelError                     exit 1   a language model cannot be used
│   ├── CardError                           a model folder: a file missing, a hash wrong
│   ├── BackendError                        it does not answer, or refuses
│   ├── ConstraintError                     it ignores, or cannot hold, the constraint
│   └── GenerationError                     an answer that is not complete
├── CreatorError                   exit 1   no proposal could be made
│   └── SpaceExhaustedError                 every configuration has been tried
├── ExecutorError                  exit 1   a trial could not be supervised
├── NoGoodTrialError               exit 3   the study ended without one good trial
└── StudyInterruptedError          exit 130 stopped by the user; it can be continued

Exit code and hint belong to the class; an instance may bring a better hint. One place
(`localhpo.cli`) turns an error into an exit.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the question that a misspelled word raises; empty where no known one is near."""
    import difflib  # needed when something went wrong, not by everyone who imports this

    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else ""


class LocalHPOError(Exception):
    """Base of all errors raised on purpose."""

    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        """Say what must hold and what came in `message`, and what to do in `hint`."""
        super().__init__(message)
        self.hint = self.default_hint if hint is None else hint


class InputError(LocalHPOError):
    """What the user wrote cannot be used."""

    exit_code = 2


class SpaceError(InputError):
    """A search space that contradicts itself."""


class ConfigurationError(InputError):
    """A configuration that is not in its space."""


class TaskError(InputError):
    """A task file, or the task it describes, cannot be used."""


class DataError(InputError):
    """Files that a task reads are not on this machine."""


class StudyNotFoundError(InputError):
    """No study of that name in the store."""

    default_hint = "`localhpo trials` lists the studies of this store"


class StudyChangedError(InputError):
    """A study continued under other settings than it was started with."""

    default_hint = "put the old settings back, or start another study with --study NEW"


class MissingExtraError(LocalHPOError):
    """An optional dependency is absent.

    Args of the constructor: what is missing, who needs it, the extra that brings it, and how that
    is installed, where pip alone does not do.
    """

    def __init__(
        self, package: str, needed_by: str, extra: str, *, hint: str | None = None
    ) -> None:
        """Name the package, what needs it, and the extra to install."""
        super().__init__(
            f"{needed_by} needs {package}, which is not installed",
            hint=f"pip install 'localhpo[{extra}]'" if hint is None else hint,
        )


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
    """A model folder is not what its card says."""


class BackendError(ModelError):
    """A backend does not answer, or refuses."""


class ConstraintError(ModelError):
    """A backend ignores, or cannot hold, the constraint it was given."""


class GenerationError(ModelError):
    """An answer that is not complete."""


class CreatorError(LocalHPOError):
    """No proposal could be made."""


class SpaceExhaustedError(CreatorError):
    """Every configuration of the space has been tried."""


class ExecutorError(LocalHPOError):
    """A trial could not be supervised."""


class NoGoodTrialError(LocalHPOError):
    """The study ended without one good trial."""

    exit_code = 3
    default_hint = "`localhpo trials --failed` shows each failure and its cause"


class StudyInterruptedError(LocalHPOError):
    """Stopped by the user; the study can be continued."""

    exit_code = 130
    default_hint = "run the same command again to continue"
