"""Loads a model folder for decoding in this process."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from localhpo.errors import BackendError, CardError, MissingExtraError
from localhpo.llm import offline
from localhpo.llm.models import config, weights
from localhpo.llm.models.memory import PROPOSAL_TOKENS, WORK_BYTES
from localhpo.llm.placement import DeviceFootprint, MemoryRequest, ModelPlacer

if TYPE_CHECKING:
    from llguidance import LLTokenizer
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

# modeling_utils is where transformers imports a torchvision that it finds.
_LIBRARIES = ("torch", "safetensors", "transformers", "transformers.modeling_utils", "llguidance")
_TORCHVISION_HINT = (
    "torchvision is not built for this torch: uninstall it (LocalHPO does not need it), or install"
    " builds of both from one index"
)


@dataclass(frozen=True, slots=True)
class LoadedNetwork:
    """A model in evaluation mode, with its tokenizer in two forms."""

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerFast
    grammar_tokenizer: LLTokenizer
    """llguidance's form of the tokenizer, with as many tokens as the network has logits."""


def import_libraries() -> None:
    """Import the libraries that a model needs, offline.

    Raises:
        MissingExtraError: a library is not installed.
        BackendError: the installed builds are incompatible.
    """
    try:
        with offline.imported_offline():
            for name in _LIBRARIES:
                importlib.import_module(name)
    except ImportError as exc:
        raise MissingExtraError(
            exc.name or str(exc), "a language model in this process", "local"
        ) from exc
    except (RuntimeError, OSError) as exc:  # compiled code of incompatible builds
        hint = _TORCHVISION_HINT if "torchvision" in str(exc) else "install compatible builds"
        raise BackendError(f"transformers cannot be imported: {exc}", hint=hint) from exc


def load_network(
    folder: Path, device: str | None = None, *, adapter: Path | None = None
) -> LoadedNetwork:
    """Load a folder whose files were checked.

    Args:
        folder: A folder in Hugging Face layout.
        device: Device as torch names it; by default a GPU if there is one.
        adapter: Folder of a LoRA adapter, as peft writes it; merged into the weights.

    Raises:
        CardError: the folder is not a complete model.
        BackendError: the model cannot be used under a grammar, or not on this device.
    """
    from safetensors import SafetensorError

    if not (folder / "config.json").is_file():
        raise CardError(f"{folder} is not a model folder: it has no config.json")
    try:
        with quiet():
            tokenizer = _tokenizer(folder)
            network = _network(folder, on_cpu=(device or default_device()).startswith("cpu"))
            if adapter is not None:
                network = _merged(network, adapter)
    # The errors of transformers for damaged or unknown folders.
    except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as exc:
        raise CardError(
            f"the model in {folder} cannot be loaded: {exc}",
            hint="a model folder is complete, in Hugging Face layout, with safetensors weights",
        ) from exc
    grammar_tokenizer = _grammar_tokenizer(network, tokenizer)
    return LoadedNetwork(_move(network, device or default_device()), tokenizer, grammar_tokenizer)


def _tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)


def _network(folder: Path, *, on_cpu: bool) -> PreTrainedModel:
    import torch
    from transformers import AutoModelForCausalLM

    network, report = AutoModelForCausalLM.from_pretrained(
        folder,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        # A CPU decodes faster in single precision than in the half precision of checkpoints.
        dtype=torch.float32 if on_cpu else "auto",
        output_loading_info=True,
    )
    if missing := sorted(report["missing_keys"]):
        # transformers would initialize them at random.
        raise ValueError(f"its weights lack {len(missing)} tensors, {missing[0]} among them")
    return network.eval()


def _merged(network: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    try:
        from peft import PeftModel
    except ImportError as exc:
        raise MissingExtraError("peft", "a fine-tuned model in this process", "finetune") from exc
    whole = PeftModel.from_pretrained(network, adapter, local_files_only=True)
    return whole.merge_and_unload().eval()


def default_device() -> str:
    """Return "cuda" if there is a GPU, else "cpu"."""
    import torch

    with offline.set_environment(offline.cuda_device_order()):
        return "cuda" if torch.cuda.is_available() else "cpu"


def find_device(folder: Path, placer: ModelPlacer) -> str:
    """Return the device for the model of a folder, as torch names it.

    Where there is a GPU, blocks until one has enough free memory.
    """
    if (device := default_device()) != "cuda":
        return device
    candidates = _devices()
    size_bytes = weights.size_bytes(folder) + _working_bytes(folder)
    request = MemoryRequest(size_bytes, candidates=candidates)
    named = placer.wait_for_memory(request, f"the model in {folder}")
    return f"{device}:{candidates.index(named[0])}" if named else device


def _devices() -> tuple[str, ...]:
    """Return the UUIDs of the GPUs that this process sees, in the order of torch."""
    import torch

    with offline.set_environment(offline.cuda_device_order()):
        count = torch.cuda.device_count()
        return tuple(str(torch.cuda.get_device_properties(i).uuid) for i in range(count))


def _working_bytes(folder: Path) -> int:
    """Return the memory that a model needs beside its weights.

    Its KV cache counts twice: the prefix is copied for the continuations.
    """
    shape = config.parse_shape(config.read_config(folder))
    return 2 * shape.cache.kv_bytes(min(PROPOSAL_TOKENS, shape.context_length)) + WORK_BYTES


def device_footprint(network: PreTrainedModel, folder: Path) -> DeviceFootprint | None:
    """Return the device memory of a network that was loaded from a folder; None on a CPU."""
    import torch

    if network.device.type != "cuda":
        return None
    index = network.device.index or 0
    return DeviceFootprint(
        uuid=str(torch.cuda.get_device_properties(index).uuid),
        index=index,
        reserved_bytes=torch.cuda.memory_reserved(index),
        working_bytes=_working_bytes(folder),
    )


def _move(network: PreTrainedModel, device: str) -> PreTrainedModel:
    try:
        with offline.set_environment(offline.cuda_device_order()):
            return network.to(device)
    except (RuntimeError, AssertionError) as exc:  # no such device, or not enough memory
        size = network.get_memory_footprint() / 2**30
        raise BackendError(
            f"the model cannot be put on device {device!r}, which must have {size:.2g} GiB free"
            f" for its weights alone: {exc}",
            hint="free memory on the device, choose a smaller model, or keep the model in host"
            ' memory (sharing = "cpu")',
        ) from exc


def _grammar_tokenizer(network: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> LLTokenizer:
    import llguidance.hf

    ends = {tokenizer.eos_token_id}
    named = network.generation_config.eos_token_id
    ends |= set(named) if isinstance(named, list) else {named}
    ends.discard(None)
    if not ends:
        raise BackendError("the model has no token that ends a text (eos_token)")
    size = network.config.get_text_config().vocab_size
    try:
        return llguidance.hf.from_tokenizer(tokenizer, n_vocab=size, eos_token=sorted(ends))
    except (ValueError, TypeError) as exc:
        raise BackendError(f"the model's tokenizer cannot be used under a grammar: {exc}") from exc


@contextmanager
def quiet() -> Iterator[None]:
    """Hide progress bars and log messages of transformers while a model is loaded."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
