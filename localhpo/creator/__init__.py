"""Decides what to try next. See `protocol` for what every Creator promises."""

from localhpo.creator.protocol import Creator, History
from localhpo.creator.registry import NAMES, open_creator

__all__ = ["NAMES", "Creator", "History", "open_creator"]
