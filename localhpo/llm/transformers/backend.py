"""Backend that runs the model in this process."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from localhpo.errors import BackendError, CardError
from localhpo.llm import tokens
from localhpo.llm.models import description, versions
from localhpo.llm.models import registry as model_registry
from localhpo.llm.protocol import Completion, GenerationRequest, Message, Model, derive_seeds
from localhpo.llm.transformers import adapter, loading
from localhpo.llm.transformers.rendering import PromptRenderer

if TYPE_CHECKING:
    from transformers import PretrainedConfig

    from localhpo.llm.placement import ModelPlacer
    from localhpo.llm.transformers.decoding import Decoder


def open_transformers(
    model: str | None, device: str | None, threads: int, placer: ModelPlacer | None
) -> TransformersBackend:
    """Return the backend of a model by name; options and errors as `open_backend` has them."""
    folder = model_registry.find_model(model or model_registry.DEFAULT)
    versions.check_in_use(folder)
    return TransformersBackend(folder, device=device, threads=threads, placer=placer)


class TransformersBackend:
    """Runs a model folder in this process.

    The model uses one thread by default, because trials run on the same machine. The KV cache of
    the last prompt is kept: a prompt with the same beginning is read faster.

    Attributes:
        on_device: Device memory of the model; None for a model on a CPU.
    """

    server = None

    def __init__(
        self,
        folder: Path,
        *,
        device: str | None = None,
        threads: int = 1,
        placer: ModelPlacer | None = None,
    ) -> None:
        """Verify the folder against its card, if it has one, and load it.

        Args:
            folder: A folder in Hugging Face layout with safetensors weights, or a LoRA adapter.
            device: Device as torch names it; by default a GPU if there is one.
            threads: Number of threads of torch while this backend works.
            placer: Asked for memory on a GPU before the model is loaded, where no device is
                given: loading waits until there is enough.

        Raises:
            CardError: the folder differs from its card, or is not a complete model.
            BackendError: the model cannot be used under a grammar, or not on this device.
            MissingExtraError: torch, transformers or llguidance is not installed.
        """
        card = model_registry.read_verified_card(folder)
        base = model_registry.find_base_folder(folder, card)
        loading.import_libraries()
        from localhpo.llm.transformers.decoding import Decoder
        from localhpo.llm.transformers.network import Network

        self._threads = threads
        if device is None and placer is not None:
            device = loading.find_device(base, placer)
        with self._working():
            loaded = loading.load_network(base, device, adapter=folder if base != folder else None)
            self.on_device = loading.device_footprint(loaded.network, base)
            self._decoder: Decoder | None = Decoder(
                Network(loaded.network), loaded.grammar_tokenizer
            )
        self._model = description.describe_model(
            folder,
            card,
            card.context_length if card else _context_length(loaded.network.config),
            deterministic=loaded.network.device.type == "cpu",
        )
        self._prompts = PromptRenderer(loaded.tokenizer, self._model)

    @property
    def model(self) -> Model:
        """The model that it runs."""
        return self._model

    def count_tokens(self, messages: Sequence[Message]) -> int:
        """Return the tokens of the rendered prompt."""
        return len(self._prompts.tokens(messages))

    def generate(self, request: GenerationRequest) -> list[Completion]:
        """Return completions of the prompt that match the grammar."""
        from localhpo.llm.transformers.decoding import Sampling

        if self._decoder is None:
            raise BackendError("the backend is closed")
        started = time.perf_counter()
        prompt = self._prompts.tokens(request.messages)
        tokens.check_context(
            self._model,
            len(prompt),
            request.max_tokens,
            hint="shorten the prompt, or choose a model with a longer context",
        )
        sampling = Sampling(
            derive_seeds(request.seed, request.n), request.temperature, request.max_tokens
        )
        with self._working():
            draws = self._decoder.draw(prompt, request.constraint.grammar, sampling)
        seconds = time.perf_counter() - started
        return [
            Completion(
                text=draw.text,
                prompt_tokens=len(prompt),
                completion_tokens=len(draw.tokens),
                seconds=seconds / request.n,
                seed=answer_seed,
                logprob=draw.logprob,
            )
            for draw, answer_seed in zip(draws, sampling.seeds, strict=True)
        ]

    def close(self) -> None:
        """Free the model's memory."""
        if self._decoder is None:
            return
        import gc

        import torch

        self._decoder = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Set the number of torch threads; raise BackendError when memory runs out."""
        import torch

        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            yield
        except torch.OutOfMemoryError as exc:
            raise BackendError(
                f"the model ran out of memory: {exc}",
                hint="free memory on the device, or choose a smaller model",
            ) from exc
        finally:
            torch.set_num_threads(before)


def _context_length(config: PretrainedConfig) -> int:
    if (length := adapter.find_context_length(config)) is None:
        raise CardError(
            "config.json does not have the context length (max_position_embeddings)",
            hint="write a card.toml with context_length",
        )
    return length
