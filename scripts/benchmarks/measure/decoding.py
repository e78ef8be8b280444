"""Measures constrained decoding: the time that each optimization saves.

A random Llama, a 12-parameter space, a prompt of some 1,000 tokens, one thread:

    python -m scripts.benchmarks.measure.decoding               # 12 million parameters
    python -m scripts.benchmarks.measure.decoding --hidden 768 --layers 12
    python -m scripts.benchmarks.measure.decoding --model models/sprout
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from localhpo import tasks
from localhpo.grammar import lark_grammar
from localhpo.llm.transformers import loading
from localhpo.space import Categorical, Ordinal, Space
from localhpo.task import load_task

SPACE = Space(
    [
        *load_task(tasks.find("breast-cancer-xgboost")).space,
        Ordinal("max_bin", (64, 128, 256)),
        Categorical("booster", ("gbtree", "dart")),
    ]
)
PROMPT_TOKENS = 1000
SLOW_S = 10.0
"""Runs that take longer than this are not repeated."""


def main() -> None:
    """Time each way of decoding, and print the seconds per answer."""
    options = _options()
    loading.import_libraries()
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(options.model or _random_model(Path(folder), options.hidden, options.layers))
        loaded = loading.load_network(path, options.device)
    weights = sum(weight.numel() for weight in loaded.network.parameters())
    print(f"{weights / 1e6:.1f}M parameters, {options.threads} thread(s), n = {options.n}")
    grammar = lark_grammar(SPACE)
    slowest = None
    print(f"{'':44}{'s/answer':>10}{'ratio':>8}{'passes':>8}{'tokens':>8}")
    for label, run, answers in _ways(loaded, grammar, options.n):
        seconds, passes, length = _time(run, options.repeats)
        slowest = slowest or seconds / answers
        ratio = slowest / (seconds / answers)
        print(f"{label:44}{seconds / answers:10.3f}{ratio:8.1f}{passes:8}{length:8}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--model", help="a model folder; a random model by default")
    parser.add_argument("--hidden", type=int, default=320)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("-n", type=int, default=8, help="answers of one call")
    parser.add_argument("--repeats", type=int, default=3)
    return parser.parse_args()


def _ways(loaded: loading.LoadedNetwork, grammar: str, n: int) -> Iterator[tuple[str, Any, int]]:
    """Yield (label, run, answers of a run); a run returns passes and tokens of an answer."""
    from localhpo.llm.transformers.decoding import Decoder, Sampling
    from localhpo.llm.transformers.network import Network

    network = Network(loaded.network)
    passes = _counted(network)
    ids = loaded.tokenizer("Trials, worst to best: ")["input_ids"]
    prompt = (list(ids) * PROMPT_TOKENS)[:PROMPT_TOKENS]
    kept = Decoder(network, loaded.grammar_tokenizer)

    def fast(decoder: Decoder, answers: int, packs: bool) -> tuple[int, int]:
        before, usual = passes[0], network.packs
        network.packs = packs and usual
        draws = decoder.draw(prompt, grammar, Sampling(range(answers), 1.0, 1000))
        network.packs = usual
        return passes[0] - before, len(draws[0].tokens)

    def fresh() -> Decoder:
        return Decoder(network, loaded.grammar_tokenizer)

    def slow(*, cached: bool) -> tuple[int, int]:
        length = _token_by_token(network, loaded, prompt, grammar, cached=cached)
        return length, length

    yield "no cache: the whole text is read for each token", lambda: slow(cached=False), 1
    yield "+ cache of keys and values", lambda: slow(cached=True), 1
    yield "+ forced tokens are read together", lambda: fast(fresh(), 1, True), 1
    yield "+ prompt cached from the previous call", lambda: fast(kept, 1, True), 1
    yield f"{n} answers, new prompt, one after another", lambda: fast(fresh(), n, False), n
    yield f"{n} answers, new prompt, in one packed row", lambda: fast(fresh(), n, True), n
    yield f"{n} answers, cached prompt, in one packed row", lambda: fast(kept, n, True), n


def _counted(network: Any) -> list[int]:
    """Count the passes of a network, in a list of one number."""
    count, read = [0], network.read

    def counting(*args: Any, **given: Any) -> Any:
        count[0] += 1
        return read(*args, **given)

    network.read = counting
    return count


def _token_by_token(
    network: Any, loaded: loading.LoadedNetwork, prompt: list[int], grammar: str, *, cached: bool
) -> int:
    """Draw one answer without fast-forwarding; return how many tokens it has."""
    from llguidance import LLMatcher

    tokenizer = loaded.grammar_tokenizer
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(grammar))
    rng, cache, fresh, length = random.Random(0), network.empty_cache(), list(prompt), 0
    while not matcher.is_stopped():
        scores = network.read(cache, fresh, [len(fresh) - 1])[0]
        allowed = [token for token, bit in enumerate(matcher.compute_logit_bias()) if bit]
        shares = scores[allowed].double().softmax(0).tolist()
        token = rng.choices(allowed, shares)[0]
        matcher.consume_token(token)
        length += 1
        if cached:
            fresh = [token]
        else:
            fresh, cache = [*fresh, token], network.empty_cache()
    return length


def _time(run: Callable[[], tuple[int, int]], repeats: int) -> tuple[float, int, int]:
    """Return the best seconds of some runs (of one, where it is slow), its passes and tokens."""
    seconds: list[float] = []
    while len(seconds) <= repeats and sum(seconds) < SLOW_S:
        started = time.perf_counter()
        passes, length = run()
        seconds.append(time.perf_counter() - started)
    return min(seconds), passes, length


def _random_model(folder: Path, hidden: int, layers: int) -> Path:
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False
    )
    drawn = (SPACE.sample(np.random.default_rng(seed)) for seed in range(100))
    tokenizer.train_from_iterator((SPACE.text(config) for config in drawn), trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>").save_pretrained(folder)
    torch.manual_seed(0)
    heads = max(1, hidden // 64)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=512,
            hidden_size=hidden,
            intermediate_size=hidden * 4,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=1,
            max_position_embeddings=4096,
            bos_token_id=None,
            eos_token_id=0,
        )
    ).save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
