"""Measurements of single parts: `python -m scripts.benchmarks.measure.NAME`."""
