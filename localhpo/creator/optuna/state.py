"""What an engine needs of earlier trials to go on: Optuna's `system_attrs` of each trial.

They are JSON. For CMA-ES they say which generation a trial belongs to and hold the distribution
it was drawn from; without them CMA-ES never leaves its start. Optuna keeps that distribution as a
pickle in hexadecimal, and a pickle can run any code when it is read. A store may come from
somebody else, so a pickle that names anything but the classes of CMA-ES and the array types in it
is refused before Optuna reads it.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping
from typing import Any

from localhpo.errors import CreatorError

_OPTIMIZER = "cma:optimizer:"

_ALLOWED = frozenset(
    {
        ("cmaes._cma", "CMA"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        # numpy 2 and numpy 1 spell the same two differently
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy.core.multiarray", "scalar"),
    }
)


class _Reader(pickle.Unpickler):
    """Reads pickles that name only the classes in `_ALLOWED`."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)


def check_state(state: Mapping[str, Any], number: int) -> dict[str, Any]:
    """Return the state of a trial after checking that Optuna can read it safely.

    Raises:
        CreatorError: an engine of LocalHPO did not write it.
    """
    keys = [key for key in state if key.startswith(_OPTIMIZER)]
    try:
        text = "".join(state[f"{_OPTIMIZER}{index}"] for index in range(len(keys)))
        if text:
            _Reader(io.BytesIO(bytes.fromhex(text))).load()
    except (pickle.UnpicklingError, LookupError, ValueError, EOFError, TypeError) as error:
        raise CreatorError(
            f"the state of the engine stored with trial {number} cannot be used: {error}",
            hint="the store was damaged or tampered with; start another study with --study NEW",
        ) from error
    return dict(state)
