"""A language model in this process: a local folder, run by transformers, under llguidance."""

from localhpo.llm.transformers.backend import TransformersBackend

__all__ = ["TransformersBackend"]
