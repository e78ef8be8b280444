"""A model that is to be trained: loaded, made ready, asked for its loss, and written."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localhpo.errors import MissingExtraError
from localhpo.finetune.rows import TokenRow
from localhpo.llm.tuning_record import Method

if TYPE_CHECKING:
    from torch import Tensor

TARGETS = "all-linear"
"""Matrices that get an adapter, as peft calls them; output and embeddings are left out."""

DROPOUT = 0.05
"""Of an adapter's input: past studies are few."""

_TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model",
    "vocab.json", "merges.txt", "chat_template.jinja",
)  # fmt: skip


class TrainableModel:
    """A base model, on its device, with what is trained of it."""

    def __init__(
        self, base: Path, method: Method, *, rank: int, seed: int, device: str | None = None
    ) -> None:
        """Load the base and make it ready.

        Args:
            base: its folder, known to be safe.
            method: whether adapters or all weights are trained.
            rank: of adapters.
            seed: of their start.
            device: as torch names it; a GPU where there is one by default.

        Raises:
            MissingExtraError: torch, transformers, llguidance or peft is not installed.
            CardError, BackendError: the base cannot be loaded.
        """
        from localhpo.llm.transformers import loading
        from localhpo.llm.transformers.network import Network

        loading.import_libraries()
        import torch

        torch.manual_seed(seed)
        loaded = loading.load(base, device)
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
        """Where it is."""
        return next(self.network.parameters()).device

    def trained(self) -> dict[str, Tensor]:
        """Return the weights that are trained, by name."""
        return {n: p for n, p in self.network.named_parameters() if p.requires_grad}

    def losses(self, row: TokenRow) -> Tensor:
        """Return the loss of each token of a row, (T,): 0 where the weight is."""
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
        told = scores[torch.as_tensor(row.source, device=device)[kept]].float()
        out = torch.zeros(len(row), device=device)
        out[kept] = torch.nn.functional.cross_entropy(told, ids[kept], reduction="none")
        return out

    def write(self, folder: Path, base_name: str) -> None:
        """Write the adapter, or the whole model with its tokenizer, as safetensors.

        A whole model has the precision of its base's files afterwards, and is trained no more.
        """
        from localhpo.llm.transformers import loading

        folder.mkdir(parents=True)
        if self._method == "lora":
            # Embeddings are not trained; told so, peft does not look for the base on a hub.
            self.network.save_pretrained(folder, save_embedding_layers=False)
            _say_base(folder / "adapter_config.json", base_name)
            (folder / "README.md").unlink(missing_ok=True)  # a form that nobody filled in
        else:
            with loading.quiet():
                self.network.to(_dtype_of(self._base)).save_pretrained(folder)
            for name in _TOKENIZER_FILES:
                if (self._base / name).is_file():
                    shutil.copyfile(self._base / name, folder / name)
        for path in folder.iterdir():
            path.chmod(0o644)  # peft and transformers write what only their owner can read


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


def _say_base(path: Path, name: str) -> None:
    """Name the base rather than the folder where it lay."""
    said = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**said, "base_model_name_or_path": name}, indent=2) + "\n")


def _dtype_of(base: Path) -> Any:
    """Return the type in which the base keeps its weights."""
    import torch

    from localhpo.llm.folder import description

    said = description.read_text_config(base)
    return getattr(torch, str(said.get("dtype") or said.get("torch_dtype")), torch.float32)
