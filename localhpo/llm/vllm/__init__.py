"""A language model in a process of its own: vLLM, started, watched and shared by LocalHPO."""

from localhpo.llm.vllm.backend import VllmBackend
from localhpo.llm.vllm.server import ManagedServer
from localhpo.llm.vllm.settings import Settings

__all__ = ["ManagedServer", "Settings", "VllmBackend"]
