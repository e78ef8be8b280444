"""Runs a model in a vLLM server, which LocalHPO starts, monitors and shares between studies."""

from localhpo.llm.vllm.backend import VllmBackend, open_vllm
from localhpo.llm.vllm.server import ManagedServer
from localhpo.llm.vllm.settings import Settings

__all__ = ["ManagedServer", "Settings", "VllmBackend", "open_vllm"]
