"""Language models: backends that generate text under a constraint, and models on disk."""

from localhpo.llm.protocol import (
    AnswerConstraint,
    Backend,
    Completion,
    GenerationRequest,
    Message,
    Model,
)
from localhpo.llm.registry import BACKENDS, open_backend

__all__ = [
    "BACKENDS",
    "AnswerConstraint",
    "Backend",
    "Completion",
    "GenerationRequest",
    "Message",
    "Model",
    "open_backend",
]
