"""Runs a model folder in this process, with transformers and llguidance."""

from localhpo.llm.transformers.backend import TransformersBackend, open_transformers

__all__ = ["TransformersBackend", "open_transformers"]
