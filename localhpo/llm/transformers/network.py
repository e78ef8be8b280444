"""A causal language model as a function: tokens in, logits of the next token out.

`CachedPrefix` keeps the KV cache of the last prompt, so that only the differing end of the next one
is read. Several continuations ("branches") of a prefix are read in the same forward passes: they
are packed into one row, and a mask hides each from the others, so that nothing is copied or
padded. This needs full attention with rotary positions, as most small open-weight models have; for
other models each branch has a copy of the prefix.

Shapes: `T` tokens of one pass, `P` tokens of the prefix, `K` tokens behind it so far, `V` the
vocabulary.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from localhpo.errors import BackendError
from localhpo.llm.transformers import adapter

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import DynamicCache, PreTrainedModel

_TOLERANCE = 0.2
"""Largest error of logits, relative to their standard deviation. Measured: up to 0.05 by rounding
in bfloat16, 1.2 and more if a cache is continued wrongly."""


class Network:
    """A loaded model, in evaluation mode.

    Attributes:
        packs: Whether several branches can be packed into one row.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Take a model, and test how its KV cache can be continued.

        Raises:
            BackendError: it cannot be continued: answers would be wrong.
        """
        self._model = model
        self._selects = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.packs = self._has_full_attention()
        if self.packs:
            self.packs = self._can_continue([[0, 1]])
        if not self.packs and not self._can_continue([[0], [1]]):
            raise BackendError(
                f"a model of type {model.config.model_type!r} cannot run in this process:"
                " with its KV cache it gives other logits than without",
                hint="start a model server, and use --backend openai",
            )

    def empty_cache(self) -> DynamicCache:
        """Return an empty KV cache."""
        from transformers import DynamicCache

        return DynamicCache(config=self._model.config)

    def read(
        self, cache: DynamicCache, tokens: Sequence[int], last: Sequence[int], **given: Tensor
    ) -> Tensor:
        """Read `T` tokens, and add them to the cache.

        Args:
            cache: KV cache of the tokens before.
            tokens: The tokens to read.
            last: Indices of the tokens whose next-token logits are needed.
            given: Further inputs of the model.

        Returns:
            Logits of the next token, (len(last), V).
        """
        import torch

        device = self._model.device
        kept = torch.tensor(last, device=device)
        inputs: dict[str, Any] = {name: tensor.to(device) for name, tensor in given.items()}
        if self._selects:
            inputs["logits_to_keep"] = kept
        ids = torch.tensor([tokens], device=device)
        with torch.inference_mode():
            scores = self._model(ids, past_key_values=cache, use_cache=True, **inputs).logits[0]
        return scores if self._selects else scores[kept]

    def mask(self, seen: Tensor) -> Tensor:
        """Return the additive attention mask, (1, 1, T, P+K), of a boolean one, (T, P+K)."""
        import torch

        dtype = self._model.dtype
        hidden = torch.zeros(seen.shape, dtype=dtype)
        return hidden.masked_fill_(~seen, torch.finfo(dtype).min)[None, None]

    def _has_full_attention(self) -> bool:
        from transformers.cache_utils import DynamicLayer

        layers = self.empty_cache().layers
        is_full = all(type(layer) is DynamicLayer for layer in layers)
        return is_full and adapter.has_rotary_positions(self._model.config)

    def _can_continue(self, groups: Sequence[Sequence[int]]) -> bool:
        """Return whether branches, grouped into rows, get the same logits as without a cache."""
        try:
            return max(self._errors(groups)) <= _TOLERANCE
        except (ValueError, TypeError, LookupError):  # the model does not support it
            return False

    def _errors(self, groups: Sequence[Sequence[int]]) -> Iterator[float]:
        start, branches = list(range(1, 9)), ([9, 10, 11], [12, 13, 14])
        prefix = CachedPrefix(self)
        prefix.set_tokens(start)
        for group in groups:
            with prefix.row(len(group)) as row:
                row.read({i: branches[b][:2] for i, b in enumerate(group)})
                parts = row.read({i: branches[b][2:] for i, b in enumerate(group)}).float()
            for b, part in zip(group, parts, strict=True):
                whole = self.read(self.empty_cache(), start + branches[b], [-1])[0].float()
                yield float((whole - part).square().mean().sqrt() / whole.std())


class CachedPrefix:
    """KV cache of a prompt, which can be continued. Discarded when a forward pass failed."""

    def __init__(self, network: Network) -> None:
        """Start with an empty cache."""
        self._network = network
        self._tokens: list[int] = []
        self._cache = network.empty_cache()

    def set_tokens(self, tokens: Sequence[int]) -> int:
        """Change the content to these tokens; return how many of them had to be read."""
        kept = _common_length(self._tokens, tokens)
        if self._network.packs:
            self._forget(len(self._tokens) - kept)
        elif kept < len(self._tokens):
            # A sliding window or a recurrent state cannot be cropped.
            self._cache, kept = self._network.empty_cache(), 0
        if fresh := tokens[kept:]:
            self._network.read(self._cache, fresh, [len(fresh) - 1])
        self._tokens = list(tokens)
        return len(fresh)

    @contextmanager
    def row(self, branches: int) -> Iterator[BranchRow]:
        """Yield a row of branches behind this prefix; afterwards the prefix is restored."""
        packs = self._network.packs
        cache = self._cache if packs else copy.deepcopy(self._cache)
        row = BranchRow(self._network, cache, len(self._tokens), branches)
        yield row
        if packs:
            self._forget(len(row))

    def _forget(self, count: int) -> None:
        """Drop the last tokens."""
        if count:
            self._cache.crop(-count)


class BranchRow:
    """Branches behind one prefix, each of which attends to the prefix and to itself."""

    def __init__(self, network: Network, cache: DynamicCache, prefix: int, branches: int) -> None:
        """Start with empty branches. More than one needs a network that packs.

        Args:
            network: The network.
            cache: KV cache of the prefix, to which the branches are added.
            prefix: Number of tokens of the prefix.
            branches: Number of branches.
        """
        self._network = network
        self._cache = cache
        self._prefix = prefix
        self._lengths = [0] * branches
        self._owners: list[int] = []

    def __len__(self) -> int:
        """Return the number of tokens of all branches."""
        return len(self._owners)

    def read(self, pending: Mapping[int, Sequence[int]]) -> Tensor:
        """Read the next tokens of some branches in one forward pass.

        Returns:
            Logits of the token after each branch, (len(pending), V), in the given order.
        """
        tokens: list[int] = []
        positions: list[int] = []
        last: list[int] = []
        for branch, fresh in pending.items():
            first = self._prefix + self._lengths[branch]
            tokens += fresh
            positions += range(first, first + len(fresh))
            last.append(len(tokens) - 1)
            self._owners += [branch] * len(fresh)
            self._lengths[branch] += len(fresh)
        return self._network.read(self._cache, tokens, last, **self._inputs(positions))

    def _inputs(self, positions: Sequence[int]) -> dict[str, Tensor]:
        import torch

        if len(self._lengths) == 1:
            return {}  # an ordinary continuation, which any model supports
        owners = torch.tensor(self._owners)  # (K,)
        places = torch.arange(len(owners))
        own, now = owners[-len(positions) :, None], places[-len(positions) :, None]
        own_tokens = (owners == own) & (places <= now)  # (T, K)
        seen = torch.cat([own_tokens.new_ones(len(positions), self._prefix), own_tokens], dim=1)
        return {
            "position_ids": torch.tensor([positions]),
            "attention_mask": self._network.mask(seen),
        }


def _common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the length of the common prefix."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))
