"""The decoder against a plain one: the same tokens, for any cached prefix."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from llguidance import LLMatcher
from tiny_model import make_model

from localhpo.errors import BackendError, ConstraintError, GenerationError
from localhpo.grammar import lark_grammar
from localhpo.llm.transformers import loading
from localhpo.llm.transformers.decoding import DecodedAnswer, Decoder, Sampling
from localhpo.llm.transformers.network import Network
from localhpo.space import Categorical, Float, Int, Ordinal, Space

SPACE = Space(
    [
        Categorical("booster", ("gbtree", "dart")),
        Float("learning_rate", 1e-8, 1.0, log=True),
        Int("max_depth", 3, 11),
        Float("subsample", 0.5, 1.0),
        Float("offset", -2.0, 2.0),
        Int("n_estimators", 100, 4096, log=True),
        Float("gamma", 0.0, 0.5),
        Ordinal("batch", (32, 64, 128, 256)),
        Categorical("shuffle", (True, False)),
        Float("rate_drop", 0.0, 0.5, when={"booster": ("dart",)}),
        Int("patience", 1, 30),
        Float("weight_decay", 1e-6, 1e-1, log=True),
    ]
)
GRAMMARS = {
    "space": lark_grammar(SPACE),
    "free end": "start: /[a-e]{1,8}/",
    "one text": 'start: "nothing to choose"',
    "choices": 'start: "{" ("\\"a\\":" /[0-9]{3}/ | "\\"b\\":" ("true" | "false")) "}"',
    "beyond ascii": "start: /[äöüß√]{4}/",
}
LONG = "Trials so far, worst to best: " + "; ".join(f"{n}: 3.{n}e-4" for n in range(15))
PROMPTS = ["Propose.", LONG, LONG + " 7", LONG[:200], LONG, "other", LONG + " 8"]


def load(folder: Path) -> loading.LoadedNetwork:
    loading.import_libraries()
    return loading.load_network(folder, "cpu")


@pytest.fixture(scope="module")
def llama(tiny_model: Path) -> loading.LoadedNetwork:
    return load(tiny_model)


def decoder(loaded: loading.LoadedNetwork) -> Decoder:
    return Decoder(Network(loaded.network), loaded.grammar_tokenizer)


def encode(loaded: loading.LoadedNetwork, text: str) -> list[int]:
    return list(loaded.tokenizer(text)["input_ids"])


def plain(
    loaded: loading.LoadedNetwork,
    prompt: Sequence[int],
    grammar: str,
    seed: int,
    temperature: float,
) -> tuple[list[int], float]:
    """Decode with a full forward pass per token, without cache, forced tokens or packing."""
    tokenizer = loaded.grammar_tokenizer
    matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_lark(grammar))
    rng, tokens, total = random.Random(seed), list(prompt), 0.0
    while not matcher.is_stopped():
        mask = matcher.compute_logit_bias()
        allowed = [token for token, bit in enumerate(mask) if bit]
        with torch.inference_mode():
            scores = loaded.network(torch.tensor([tokens])).logits[0, -1, allowed].double()
        token = allowed[0]
        if len(allowed) > 1:
            shares = torch.softmax(scores / (temperature or 1e-9), 0).tolist()
            token = rng.choices(allowed, shares)[0]
            total += float(torch.log_softmax(scores, 0)[allowed.index(token)])
        assert matcher.consume_token(token), matcher.get_error()
        tokens.append(token)
    return [t for t in tokens[len(prompt) :] if t not in tokenizer.eos_tokens], total


def assert_same(draw: DecodedAnswer, reference: tuple[list[int], float]) -> None:
    tokens, logprob = reference
    assert list(draw.tokens) == tokens
    assert draw.logprob == pytest.approx(logprob, abs=1e-3)


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("grammar", GRAMMARS.values(), ids=GRAMMARS)
def test_samples_the_same_answers_as_a_plain_decoder(
    llama: loading.LoadedNetwork, grammar: str, temperature: float
) -> None:
    prompt = encode(llama, "Propose the next configuration.")
    draws = decoder(llama).draw(prompt, grammar, Sampling([5, 6], temperature, 400))
    for draw, seed in zip(draws, [5, 6], strict=True):
        assert_same(draw, plain(llama, prompt, grammar, seed, temperature))


def test_free_text_is_sampled_like_a_plain_decoder(llama: loading.LoadedNetwork) -> None:
    prompt = encode(llama, "Propose the next configuration.")
    grammar = lark_grammar(SPACE, rationale=True, trials=[3, 8, 12])
    (draw,) = decoder(llama).draw(prompt, grammar, Sampling([5], 1.0, 1000))
    assert_same(draw, plain(llama, prompt, grammar, 5, 1.0))


def test_the_cached_prefix_changes_no_answer(llama: loading.LoadedNetwork) -> None:
    kept = decoder(llama)
    for seed, text in enumerate(PROMPTS):
        prompt = encode(llama, text)
        draws = kept.draw(prompt, GRAMMARS["space"], Sampling([seed, 99], 1.0, 400))
        assert_same(draws[0], plain(llama, prompt, GRAMMARS["space"], seed, 1.0))


def test_a_row_holds_as_many_answers_as_requested(llama: loading.LoadedNetwork) -> None:
    prompt = encode(llama, LONG)
    alone = [
        decoder(llama).draw(prompt, GRAMMARS["space"], Sampling([s], 1.0, 400))[0]
        for s in range(15)
    ]
    together = decoder(llama).draw(prompt, GRAMMARS["space"], Sampling(range(15), 1.0, 400))
    assert [draw.tokens for draw in together] == [draw.tokens for draw in alone]


def test_only_the_differing_end_of_a_prompt_is_read(llama: loading.LoadedNetwork) -> None:
    lengths: list[int] = []
    network = Network(llama.network)
    read = network.read

    def counting(cache, tokens, last, **given):  # type: ignore[no-untyped-def]
        lengths.append(len(tokens))
        return read(cache, tokens, last, **given)

    network.read = counting  # type: ignore[method-assign]
    fast = Decoder(network, llama.grammar_tokenizer)
    prompt = encode(llama, LONG)
    first = fast.draw(prompt, GRAMMARS["space"], Sampling([1], 1.0, 400))[0]
    assert lengths[0] > len(prompt) * 0.9
    assert len(lengths) < len(first.tokens)  # forced tokens cost no pass
    lengths.clear()
    fast.draw(prompt, GRAMMARS["space"], Sampling([1], 1.0, 400))
    assert max(lengths) < 30


KINDS = {
    "sliding window": ("mistral", {"sliding_window": 8}),
    "alternating windows": ("gemma3_text", {"sliding_window": 8, "head_dim": 16}),
    "recurrent": (
        "qwen3_5_text",
        {
            "head_dim": 16,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 16,
            "linear_value_head_dim": 16,
            "num_hidden_layers": 4,
        },
    ),
    "learned positions": ("gpt2", {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 2048}),
    "full attention": ("qwen3", {"head_dim": 16}),
}


@pytest.mark.filterwarnings("ignore")  # what transformers says of rarer kinds is not the point
@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_every_kind_of_attention_samples_like_a_plain_decoder(
    tmp_path: Path, kind: tuple[str, dict[str, object]]
) -> None:
    name, changes = kind
    loaded = load(make_model(tmp_path / "model", name, **changes))
    assert Network(loaded.network).packs == (name == "qwen3")
    kept = decoder(loaded)
    for text in PROMPTS[:4]:
        prompt = encode(loaded, text)
        draws = kept.draw(prompt, GRAMMARS["choices"], Sampling([1, 2], 1.0, 100))
        for draw, seed in zip(draws, [1, 2], strict=True):
            assert_same(draw, plain(loaded, prompt, GRAMMARS["choices"], seed, 1.0))


@pytest.mark.filterwarnings("ignore")
def test_a_model_whose_cache_cannot_be_continued_is_refused(tmp_path: Path) -> None:
    loaded = load(make_model(tmp_path / "model", "mamba", state_size=8))
    with pytest.raises(BackendError, match="'mamba' cannot run in this process"):
        Network(loaded.network)


BROKEN = {
    "": "cannot be compiled",
    "start: /[/": "cannot be compiled",
    "start: missing": "unknown name",
    'start: "a" X\nX: /b/ & /c/': "after 'a'",
    "start: X\nX: /b/ & /c/": "after ''",
}


@pytest.mark.parametrize("grammar", BROKEN)
def test_a_grammar_without_sentences_is_refused(llama: loading.LoadedNetwork, grammar: str) -> None:
    fast, prompt = decoder(llama), encode(llama, "Propose.")
    with pytest.raises(ConstraintError, match=BROKEN[grammar]):
        fast.draw(prompt, grammar, Sampling([1], 1.0, 100))
    assert fast.draw(prompt, "start: /[a-e]{3}/", Sampling([1], 1.0, 100))  # it goes on


def test_an_answer_above_max_tokens_is_an_error(llama: loading.LoadedNetwork) -> None:
    fast, prompt = decoder(llama), encode(llama, "Propose.")
    with pytest.raises(GenerationError, match="did not end within 20 tokens"):
        fast.draw(prompt, "start: /[a-z]{300}/", Sampling([1], 1.0, 20))
    draws = fast.draw(prompt, GRAMMARS["space"], Sampling([1], 1.0, 400))
    assert_same(draws[0], plain(llama, prompt, GRAMMARS["space"], 1, 1.0))


def test_damaged_weights_are_an_error(tiny_model: Path) -> None:
    loaded = load(tiny_model)
    fast = decoder(loaded)
    loaded.network.lm_head.weight.data.fill_(float("nan"))
    with pytest.raises(BackendError, match="not finite"):
        fast.draw(encode(loaded, "Propose."), GRAMMARS["space"], Sampling([1], 1.0, 400))
