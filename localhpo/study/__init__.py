"""A study wires Creator, Scheduler, Executor and Store together. See `study`."""

from localhpo.study.study import Callback, Study
from localhpo.study.tuning import tune

__all__ = ["Callback", "Study", "tune"]
