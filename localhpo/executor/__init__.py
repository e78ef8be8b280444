"""Runs one trial and reports what happened. See `localhpo.executor.protocol` for the laws."""

from localhpo.executor.command import check_command, check_program
from localhpo.executor.function import FunctionExecutor, check_function
from localhpo.executor.process import ProcessExecutor
from localhpo.executor.protocol import Executor, Job, Outcome, Run
from localhpo.executor.ray import RayExecutor
from localhpo.executor.simulated import Replay, SimulatedExecutor

__all__ = [
    "Executor",
    "FunctionExecutor",
    "Job",
    "Outcome",
    "ProcessExecutor",
    "RayExecutor",
    "Replay",
    "Run",
    "SimulatedExecutor",
    "check_command",
    "check_function",
    "check_program",
]
