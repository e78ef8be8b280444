"""The program that a trial of a Python function runs: calls it once, reports what it returns.

    python -P call.py FUNCTION.pickle config|keywords OBJECTIVE...

FUNCTION.pickle holds the module path of LocalHPO's process and the function, by cloudpickle
(see `localhpo.executor.function`). It is started by path: the folder it lies in must not be
where the function's imports are looked up.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def main(path: str, style: str, *objectives: str) -> None:
    """Call the function and report what it returns."""
    module_path, pickled = pickle.loads(Path(path).read_bytes())
    sys.path[:] = module_path
    from localhpo import reporter

    function = pickle.loads(pickled)
    config = reporter.config()
    value: Any = function(config) if style == "config" else function(**config)
    if isinstance(value, Mapping):
        reporter.report(**value)
    elif value is not None:
        is_row = isinstance(value, tuple | list) and len(value) == len(objectives) > 1
        named = dict(zip(objectives, value, strict=True)) if is_row else {objectives[0]: value}
        try:
            reporter.report(**named)
        except TypeError:
            every = f", {' and '.join(objectives)} as a tuple" if len(objectives) > 1 else ""
            raise TypeError(
                f"the function must return {objectives[0]} as a number{every}, a dict of numbers"
                f" by name, or None after report(); it returned {type(value).__name__}:"
                f" {value!r:.80}"
            ) from None


if __name__ == "__main__":
    main(*sys.argv[1:])
