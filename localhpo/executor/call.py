"""The program that a trial of a Python function runs: calls it once, reports what it returns.

    python -P call.py FUNCTION.pickle METRIC config|keywords

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


def main(path: str, metric: str, style: str) -> None:
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
        try:
            reporter.report(**{metric: value})
        except TypeError:
            raise TypeError(
                f"the function must return {metric} as a number, a dict of numbers by name, or"
                f" None after report(); it returned {type(value).__name__}: {value!r:.80}"
            ) from None


if __name__ == "__main__":
    main(*sys.argv[1:])
