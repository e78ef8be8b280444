"""Decides what to try next. See `protocol` for what every Creator promises."""

from localhpo.creator.opening import NAMES, open_creator
from localhpo.creator.protocol import Creator, History

__all__ = ["NAMES", "Creator", "History", "open_creator"]
