"""Benchmarks of Creators: problems, a runner, statistics and figures."""
