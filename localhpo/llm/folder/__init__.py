"""Reads the description of a model from its own files: no code is run, no weights are loaded."""
