"""A model in training: its memory, loading, losses of rows, and writing the result."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localhpo.errors import InputError, MissingExtraError
from localhpo.finetune.rows import TokenRow
from localhpo.llm.models import config, weights
from localhpo.llm.models.card import Method
from localhpo.llm.models.memory import WORK_BYTES

if TYPE_CHECKING:
    from torch import Tensor


TARGETS = "all-linear"
"""Matrices that get an adapter, as peft names them; output layer and embeddings do not."""

DROPOUT = 0.05
"""Dropout on the input of an adapter; high, because past studies are few."""

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model",
    "vocab.json", "merges.txt", "chat_template.jinja",
)  # fmt: skip


class TrainableModel:
    """A base model on its device, with the weights that are trained."""

    def __init__(
        self, base: Path, method: Method, *, rank: int, seed: int, device: str | None = None
    ) -> None:
        """Load the base and prepare it for training.

        Args:
            base: folder of the base, whose files were checked.
            method: whether an adapter or all weights are trained.
            rank: rank of the adapter.
            seed: seed of the initial weights of the adapter.
            device: device as torch names it; by default a GPU if there is one.

        Raises:
            MissingExtraError: torch, transformers, llguidance or peft is not installed.
            CardError, BackendError: the base cannot be loaded.
        """
        from localhpo.llm.transformers import loading
        from localhpo.llm.transformers.network import Network

        loading.import_libraries()
        import torch

        torch.manual_seed(seed)
        loaded = loading.load_network(base, device)
        self._base = base
        self._method = method
        self.tokenizer = loaded.tokenizer
        self.dtype = loaded.network.dtype
        self.packs = Network(loaded.network).packs
        self.network: Any = loaded.network
        if method == "lora":
            self.network = _with_adapter(loaded.network, rank)
        else:
            self.network.float()

    @property
    def device(self) -> Any:
        """Device of the model."""
        return next(self.network.parameters()).device

    def trained(self) -> dict[str, Tensor]:
        """Return the weights that are trained, by name."""
        return {n: p for n, p in self.network.named_parameters() if p.requires_grad}

    def losses(self, row: TokenRow) -> Tensor:
        """Return the loss of each token of a row, (T,); 0 where its weight is 0."""
        import torch

        device = self.device
        given: dict[str, Any] = {}
        if row.owner.max() > 1:
            seen = torch.as_tensor(row.visible, device=device)
            dtype = self.dtype if self._method == "lora" else torch.float32
            mask = torch.zeros(seen.shape, dtype=dtype, device=device)
            given["attention_mask"] = mask.masked_fill_(~seen, torch.finfo(dtype).min)[None, None]
            given["position_ids"] = torch.as_tensor(row.positions, device=device)[None]
        ids = torch.as_tensor(row.ids, device=device)
        scores = self.network(input_ids=ids[None], use_cache=False, **given).logits[0]
        kept = torch.as_tensor(row.weights > 0, device=device)
        predicted = scores[torch.as_tensor(row.source, device=device)[kept]].float()
        out = torch.zeros(len(row), device=device)
        out[kept] = torch.nn.functional.cross_entropy(predicted, ids[kept], reduction="none")
        return out

    def write(self, folder: Path, base_name: str) -> None:
        """Write the adapter, or the whole model with its tokenizer, as safetensors.

        A whole model is converted to the precision of the base's files: do not train it further.
        """
        from localhpo.llm.transformers import loading

        folder.mkdir(parents=True)
        if self._method == "lora":
            # Embeddings are not trained; so peft does not look for the base on a hub.
            self.network.save_pretrained(folder, save_embedding_layers=False)
            _write_base_name(folder / "adapter_config.json", base_name)
            (folder / "README.md").unlink(missing_ok=True)  # an empty template
        else:
            with loading.quiet():
                self.network.to(_dtype_of(self._base)).save_pretrained(folder)
            for name in _TOKENIZER_FILES:
                if (self._base / name).is_file():
                    shutil.copyfile(self._base / name, folder / name)
        for path in folder.iterdir():
            path.chmod(0o644)  # peft and transformers write files that only their owner can read


def _with_adapter(network: Any, rank: int) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as exc:
        raise MissingExtraError("peft", "training with LoRA", "finetune") from exc
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=DROPOUT, target_modules=TARGETS,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    return get_peft_model(network, config)


def _write_base_name(path: Path, name: str) -> None:
    """Replace the path of the base by its name in the configuration of an adapter."""
    table = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**table, "base_model_name_or_path": name}, indent=2) + "\n")


def _dtype_of(base: Path) -> Any:
    """Return the torch dtype of the weights in the base's files."""
    from localhpo.llm.models import description
    from localhpo.llm.transformers import adapter

    table = description.read_text_config(base)
    return adapter.find_dtype(str(table.get("dtype") or table.get("torch_dtype")))


_SINGLE = 4
"""Bytes of a number in single precision, which training on a CPU uses."""

_ADAM = 3 * _SINGLE
"""Bytes per trained weight besides itself: its gradient and two moments."""

_NUMBERS_A_LAYER = 34
"""Activations per layer and token that the backward pass needs, in units of the width (Korthikanti
et al. 2022, https://arxiv.org/abs/2205.05198, with attention that stores no matrix)."""

_SCORES = 3
"""Copies of the logits of a token: as computed, in single precision, and their gradient."""


def estimate_training_bytes(
    base: Path, method: Method, *, rank: int, tokens: int, on_cpu: bool
) -> int:
    """Return an upper estimate of the memory of a training on its device.

    Args:
        base: folder of the model.
        method: whether an adapter or all weights are trained.
        rank: rank of the adapter.
        tokens: tokens of the longest row.
        on_cpu: whether it trains on a CPU, in single precision.

    Raises:
        CardError: the folder is not a complete model.
    """
    table = config.read_config(base)
    found = weights.summarize_weights(weights.read_headers(base), config.parse_shape(table))
    width, layers = int(table["hidden_size"]), int(table["num_hidden_layers"])
    number = _SINGLE if on_cpu or method == "full" else 2
    # An adapter adds two thin matrices to each of seven per layer; the widest is about 4 x width.
    trained = found.parameters if method == "full" else layers * 7 * rank * 5 * width
    kept = tokens * layers * width * _NUMBERS_A_LAYER * number
    scores = tokens * int(table["vocab_size"]) * _SINGLE * _SCORES
    masks = tokens * tokens * number
    held = found.parameters * number + trained * (_ADAM + _SINGLE)
    return held + kept + scores + masks + WORK_BYTES


def check_memory(needed: int, free: int, device: str) -> None:
    """Refuse a training that does not fit.

    Raises:
        InputError: it needs more memory than is free.
    """
    if needed > free:
        raise InputError(
            f"training needs about {needed / 2**30:.1f} GiB on {device}, where "
            f"{free / 2**30:.1f} GiB are free",
            hint="free memory on the device, choose another device, or fine-tune a smaller model; "
            "--method lora and a smaller --batch-tokens need less",
        )


def find_free_bytes(device: str) -> int:
    """Return the free memory of a device, which is named as torch does."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    return int(psutil.virtual_memory().available)
