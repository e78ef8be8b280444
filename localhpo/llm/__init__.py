"""Language models: backends that generate text under a constraint, and models on disk."""

from localhpo.llm.backends import BACKENDS, open_backend
from localhpo.llm.protocol import AnswerConstraint, Backend, Completion, Message, Model

__all__ = [
    "BACKENDS",
    "AnswerConstraint",
    "Backend",
    "Completion",
    "Message",
    "Model",
    "open_backend",
]
