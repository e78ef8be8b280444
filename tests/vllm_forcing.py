"""Logits processor for a vLLM server: forces a given text, as far as the grammar allows it."""

from __future__ import annotations

from typing import Any

from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

FAR_ABOVE = 1e6


class Forcing(AdapterLogitsProcessor):
    """Raises the logit of the given token at each position."""

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: Any) -> Any:
        forced = (params.extra_args or {}).get("force")
        if not forced:
            return None

        def force(written: list[int], logits: Any) -> Any:
            if len(written) < len(forced):
                # A token that the grammar forbids stays at minus infinity.
                logits[forced[len(written)]] += FAR_ABOVE
            return logits

        return force
