"""Compares Creators: problems, runner, statistics."""
