"""A causal language model as a function: tokens in, scores of the next token out.

`CachedPrefix` keeps what the model has read, so that of the next prompt only what differs is read.
Behind it, several continuations ("branches") are read in the same passes: they lie one after
another in one row, and a mask hides each from the others, so that nothing is copied or padded.
This needs full attention with rotary positions, which most small open-weights models have;
with others each branch goes its own way from a copy of the prefix.

Notation: `T` tokens of one pass, `P` tokens of the prefix, `K` tokens behind it so far, `V` the
vocabulary.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from localhpo.errors import BackendError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import DynamicCache, PreTrainedModel

_TOLERANCE = 0.2
"""Error of scores, as a share of their spread. Measured: up to 0.05 where bfloat16 rounds, 1.2 and
more where a cache is wrongly continued."""


class Network:
    """A loaded model, in evaluation mode.

    Attributes:
        packs: Whether branches can share one row.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        """Take a model, and measure how what it has read can be continued.

        Raises:
            BackendError: it cannot be: answers would be wrong.
        """
        self._model = model
        self._selects = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.packs = self._has_full_attention()
        if self.packs:
            self.packs = self._can_continue([[0, 1]])
        if not self.packs and not self._can_continue([[0], [1]]):
            raise BackendError(
                f"a model of type {model.config.model_type!r} cannot be used in process:"
                " continuing what it has read gives other scores than reading all at once",
                hint="serve it with a server of its own, and use --backend openai",
            )

    def empty_cache(self) -> DynamicCache:
        """Return the keys and values of nothing."""
        from transformers import DynamicCache

        return DynamicCache(config=self._model.config)

    def read(
        self, cache: DynamicCache, tokens: Sequence[int], last: Sequence[int], **given: Tensor
    ) -> Tensor:
        """Read `T` tokens behind what the cache holds; afterwards it holds them too.

        Args:
            cache: Keys and values of what was read.
            tokens: What to read.
            last: Indices of the tokens after which the next one is asked for.
            given: More inputs of the model.

        Returns:
            Scores of the next token, (len(last), V).
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
        """Turn what each token sees, bool (T, P+K), into what attention adds, (1, 1, T, P+K)."""
        import torch

        dtype = self._model.dtype
        hidden = torch.zeros(seen.shape, dtype=dtype)
        return hidden.masked_fill_(~seen, torch.finfo(dtype).min)[None, None]

    def _has_full_attention(self) -> bool:
        from transformers.cache_utils import DynamicLayer

        config = self._model.config
        rotary = getattr(config, "rope_parameters", None) and not getattr(config, "alibi", False)
        layers = self.empty_cache().layers
        return bool(rotary) and all(type(layer) is DynamicLayer for layer in layers)

    def _can_continue(self, groups: Sequence[Sequence[int]]) -> bool:
        """Whether branches, grouped into rows, get the scores of being read from the start."""
        try:
            return max(self._errors(groups)) <= _TOLERANCE
        except (ValueError, TypeError, LookupError):  # not made for it at all
            return False

    def _errors(self, groups: Sequence[Sequence[int]]) -> Iterator[float]:
        start, branches = list(range(1, 9)), ([9, 10, 11], [12, 13, 14])
        prefix = CachedPrefix(self)
        prefix.become(start)
        for group in groups:
            with prefix.row(len(group)) as row:
                row.read({i: branches[b][:2] for i, b in enumerate(group)})
                parts = row.read({i: branches[b][2:] for i, b in enumerate(group)}).float()
            for b, part in zip(group, parts, strict=True):
                whole = self.read(self.empty_cache(), start + branches[b], [-1])[0].float()
                yield float((whole - part).square().mean().sqrt() / whole.std())


class CachedPrefix:
    """What a network has read, to be continued. Thrown away when a pass through it failed."""

    def __init__(self, network: Network) -> None:
        """Start with nothing read."""
        self._network = network
        self._tokens: list[int] = []
        self._cache = network.empty_cache()

    def become(self, tokens: Sequence[int]) -> int:
        """Hold exactly these tokens; return how many of them had to be read."""
        kept = _common_length(self._tokens, tokens)
        if self._network.packs:
            self._forget(len(self._tokens) - kept)
        elif kept < len(self._tokens):
            # A sliding window or a recurrent state cannot be taken back.
            self._cache, kept = self._network.empty_cache(), 0
        if fresh := tokens[kept:]:
            self._network.read(self._cache, fresh, [len(fresh) - 1])
        self._tokens = list(tokens)
        return len(fresh)

    @contextmanager
    def row(self, branches: int) -> Iterator[BranchRow]:
        """Give a row of branches behind this prefix, which is itself again afterwards."""
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
    """Branches behind one prefix, each of which sees the prefix and itself."""

    def __init__(self, network: Network, cache: DynamicCache, prefix: int, branches: int) -> None:
        """Start each branch empty. More than one needs a network that packs.

        Args:
            network: What reads.
            cache: Keys and values of the prefix; the branches are added to it.
            prefix: Its length.
            branches: How many there are.
        """
        self._network = network
        self._cache = cache
        self._prefix = prefix
        self._lengths = [0] * branches
        self._owners: list[int] = []

    def __len__(self) -> int:
        """Tokens of all branches."""
        return len(self._owners)

    def read(self, pending: Mapping[int, Sequence[int]]) -> Tensor:
        """Read the next tokens of some branches, in one pass.

        Returns:
            Scores of what follows each of them, (len(pending), V), in the order given.
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
            return {}  # an ordinary continuation, of any model
        owners = torch.tensor(self._owners)  # (K,)
        places = torch.arange(len(owners))
        own, now = owners[-len(positions) :, None], places[-len(positions) :, None]
        behind = (owners == own) & (places <= now)  # (T, K)
        seen = torch.cat([behind.new_ones(len(positions), self._prefix), behind], dim=1)
        return {
            "position_ids": torch.tensor([positions]),
            "attention_mask": self._network.mask(seen),
        }


def _common_length(a: Sequence[int], b: Sequence[int]) -> int:
    """Return how many tokens both begin with."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))
