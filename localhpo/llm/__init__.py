"""How text is produced under a constraint: one protocol, several backends, models on disk."""

from localhpo.llm.backends import BACKENDS, open_backend
from localhpo.llm.protocol import Backend, Completion, Constraint, Message, Model

__all__ = [
    "BACKENDS",
    "Backend",
    "Completion",
    "Constraint",
    "Message",
    "Model",
    "open_backend",
]
