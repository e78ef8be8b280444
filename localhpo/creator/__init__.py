"""Decides what to try next. See `protocol` for what every Creator promises."""

from localhpo.creator.protocol import Creator, History
from localhpo.creator.registry import CREATORS, describe_ignored_goals, open_creator

__all__ = ["CREATORS", "Creator", "History", "describe_ignored_goals", "open_creator"]
