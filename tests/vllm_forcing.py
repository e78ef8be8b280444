"""Runs inside a vLLM server: has it write a given text, as far as its grammar lets it."""

from __future__ import annotations

from typing import Any

from vllm.v1.sample.logits_processor import AdapterLogitsProcessor

FAR_ABOVE = 1e6


class Forcing(AdapterLogitsProcessor):
    """Makes the tokens that a request names likelier than all others, each in its place."""

    def is_argmax_invariant(self) -> bool:
        return False

    def new_req_logits_processor(self, params: Any) -> Any:
        wanted = (params.extra_args or {}).get("force")
        if not wanted:
            return None

        def force(written: list[int], logits: Any) -> Any:
            if len(written) < len(wanted):
                # A token that the grammar forbids stays at minus infinity.
                logits[wanted[len(written)]] += FAR_ABOVE
            return logits

        return force
