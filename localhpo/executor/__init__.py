"""Run one trial, and say what happened. See `localhpo.executor.protocol` for the laws."""
