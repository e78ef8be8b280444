"""Runs a model folder in this process, with transformers and llguidance."""

from localhpo.llm.transformers.backend import TransformersBackend

__all__ = ["TransformersBackend"]
