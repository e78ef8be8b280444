"""Benchmark of sharing memory between trials and the model's server, in simulated time."""
