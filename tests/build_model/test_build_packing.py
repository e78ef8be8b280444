from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from scripts.build_model import corpus, packing, tokenizer, train

WORDS = ["learning_rate", "max_depth", "adam", "minimize loss", *["1..2 3..4"] * 9]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("vocabulary")
    tokenizer.train_tokenizer(WORDS, target)
    return target


def question(seed: int) -> corpus.Question:
    rng = np.random.default_rng(seed)
    answers = tuple(
        f'{{"learning_rate":{rng.integers(1, 10)}.5e-{i},"opt":"adam"}}' for i in (1, 2)
    )
    return corpus.Question(
        f"minimize loss\nlearning_rate float log 1e-5..1e{seed}\n9:", answers, (9, 4), 0, ""
    )


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("3.1e-4", ["3", ".1", "e-4"]),
        ("2.56e0", ["2", ".56", "e0"]),
        ("250", ["25", "0"]),
        ("0.7312", ["0", ".73", "12"]),
        ("-0.5", ["-", "0", ".5"]),
        ("1e-5..1e0", ["1", "e-5", "..", "1", "e0"]),
        ("9:{", ["9", ":", "{"]),
    ],
)
def test_numbers_are_regular(folder: Path, text: str, pieces: list[str]) -> None:
    assert tokenizer.load(folder).encode(text).tokens == pieces


def test_values_carry_the_weight() -> None:
    text = '{"lr":3.1e-2,"opt":"adam"}'
    offsets = [(i, i + 1) for i in range(len(text))]
    heavy = "".join(
        c for c, w in zip(text, packing.weigh_tokens(text, offsets), strict=True) if w == 1
    )
    assert heavy == '3.1e-2"adam"'


def test_packed_losses_are_those_of_each_answer_alone(folder: Path) -> None:
    import torch

    settings = train.TrainSettings(hidden=32, layers=2, heads=2)
    model = train.build_model(settings, folder).eval()
    items = packing.tokenize_questions([question(i) for i in range(3)], tokenizer.load(folder))
    packed = packing.make_batch(packing.pack_rows(items, 256), 256, pad=0)
    with torch.no_grad():
        losses, weights = train.compute_losses(model, packed, "cpu")
        alone = 0.0
        for item in items:
            for answer, weight in zip(item.answers, item.weights, strict=True):
                ids = torch.tensor([item.prompt + answer])
                logits = model(input_ids=ids).logits[0, len(item.prompt) : -1]
                each = torch.nn.functional.cross_entropy(
                    logits, torch.tensor(answer[1:]), reduction="none"
                )
                alone += float((each * torch.tensor(weight[1:])).sum())
    of_answers = torch.as_tensor(packed.answer).flatten() > 0
    assert float((losses * weights)[of_answers].sum()) == pytest.approx(alone, rel=1e-4)


def test_near_numbers_begin_near(folder: Path) -> None:
    def code(token: str) -> np.ndarray:
        return np.asarray(train.number_features(token, 64))

    assert np.dot(code("50"), code("51")) > np.dot(code("50"), code("90"))
    assert np.dot(code(".5"), code(".51")) > np.dot(code(".5"), code("50"))
    assert train.number_features("adam", 64) is None
