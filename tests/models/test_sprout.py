"""The built-in model, used like any other: card, backend, grammar, agent."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localhpo import assets, grammar, tasks
from localhpo.creator.agent import Agent
from localhpo.creator.protocol import History
from localhpo.llm import open_backend
from localhpo.llm.models import registry as model_registry
from localhpo.llm.protocol import Backend
from localhpo.objective import Objective
from localhpo.space import Categorical, Float, Ordinal, Space
from localhpo.task import Task, load_task
from localhpo.trial import Config, Proposal

FOLDER = assets.folder("models") / "sprout"

AGENT_SPACE = load_task(tasks.find("breast-cancer-xgboost")).space
CONDITIONAL = Space(
    [
        Categorical("optimizer", values=("sgd", "adam")),
        Float("momentum", low=0.0, high=0.99, when={"optimizer": ("sgd",)}),
        Float("lr", low=1e-6, high=1.0, log=True),
        Ordinal("batch_size", values=(16, 32, 64)),
        Categorical("amp", values=(True, False)),
        Float("shift", low=-0.5, high=0.5),
    ]
)


@pytest.fixture(scope="module")
def backend() -> Iterator[Backend]:
    opened = open_backend("transformers", model="sprout")
    yield opened
    opened.close()


def test_the_card_matches_the_files() -> None:
    card = model_registry.read_card(FOLDER)
    model_registry.verify_files(FOLDER, card)
    assert card.name == "sprout" and card.prompt == "compact" and card.license
    assert card.limitations and card.made["script"]


def test_the_readme_matches_the_card() -> None:
    measured = model_registry.read_card(FOLDER).measured
    text = (FOLDER / "README.md").read_text(encoding="utf-8")
    for row, key in [("none", "0"), ("1 to 5", "1_to_5"), ("6 to 20", "6_to_20")]:
        shown = measured[f"value_loss_trials_{key}"]
        hidden = measured.get(f"value_loss_trials_{key}_hidden", "-")
        assert f"| {row} | {shown} | {hidden} |" in text


def test_files_in_the_models_readme_exist() -> None:
    text = (FOLDER.parent / "README.md").read_text(encoding="utf-8")
    root = Path(__file__).resolve().parents[2]
    named = re.findall(r"`((?:localhpo|scripts|models)/[\w./]+)`", text)
    assert len(named) >= 2
    assert [name for name in named if not (root / name).exists()] == []


def test_the_model_is_small_and_readable() -> None:
    files = [path for path in FOLDER.iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6
    assert all(path.stat().st_mode & stat.S_IROTH for path in files)


@pytest.mark.parametrize("space", [AGENT_SPACE, CONDITIONAL], ids=["agent", "conditional"])
def test_the_grammar_accepts_its_tokens(space: Space) -> None:
    """The grammar accepts the spelling that the model was trained on, token by token."""
    import llguidance.hf
    from llguidance import LLMatcher
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(FOLDER)
    source = LLMatcher.grammar_from_lark(grammar.lark_grammar(space))
    matcher = LLMatcher(llguidance.hf.from_tokenizer(tokenizer), source)
    rng = np.random.default_rng(0)
    for _ in range(50):
        text = space.text(space.sample(rng))
        tokens = tokenizer.encode(text, add_special_tokens=False)
        assert tokenizer.decode(tokens) == text
        fresh = matcher.deep_copy()
        assert fresh.consume_tokens(tokens), (text, fresh.get_error())
        assert fresh.is_accepting()


@pytest.mark.parametrize("space", [AGENT_SPACE, CONDITIONAL], ids=["agent", "conditional"])
def test_its_proposals_are_valid_and_new(
    space: Space, backend: Backend, make_task: Callable[..., Task], make_trial: Callable[..., Any]
) -> None:
    agent = Agent(backend, on_model_error="stop", fallback=nobody)
    trials = []
    for number in range(3):
        history = History(make_task(space=space), tuple(trials), seed=1, next_number=number)
        proposal = agent.propose_one(history)
        space.validate(proposal.config)
        assert (
            str(proposal.origin) == "llm"
            and proposal.model_digest == model_registry.read_card(FOLDER).digest
        )
        trials.append(make_trial(number, proposal.config, value=float(number)))
    assert len({space.key(trial.config) for trial in trials}) == 3


@pytest.mark.slow
def test_its_first_trial_beats_random_search(backend: Backend, tmp_path: Path) -> None:
    """Real trainings on generated data: the mean regret of the first trial over problems."""
    agent = Agent(backend, on_model_error="stop", fallback=nobody)
    model, random = [], []
    for i in range(4):
        kind = ("classification", "regression")[i % 2]
        score = problem(kind, seed=i)
        task = Task(
            name="generated", command=(), objectives=(Objective("val_loss"),),
            space=AGENT_SPACE, background=f"XGBoost, {kind}.", folder=tmp_path,
        )  # fmt: skip
        rng = np.random.default_rng(i)
        losses = np.array([score(AGENT_SPACE.sample(rng)) for _ in range(16)])
        proposal = agent.propose_one(History(task, (), seed=i, next_number=0))
        scale = np.median(losses) - losses.min()
        model.append((score(proposal.config) - losses.min()) / scale)
        random.append(float(np.mean((losses - losses.min()) / scale)))
    assert np.mean(model) < np.mean(random), (model, random)


def problem(kind: str, seed: int) -> Callable[[Config], float]:
    """Return a function from a configuration to its validation loss."""
    import xgboost
    from sklearn import datasets

    if kind == "regression":
        x, y = datasets.make_friedman1(400, noise=1.0, random_state=seed)
    else:
        x, y = datasets.make_classification(400, 12, n_informative=6, flip_y=0.1, random_state=seed)
    is_regression = kind == "regression"
    estimator = xgboost.XGBRegressor if is_regression else xgboost.XGBClassifier

    def loss(config: Config) -> float:
        model = estimator(n_jobs=1, max_bin=32, random_state=0, **config)
        model.fit(x[:280], y[:280])
        if is_regression:
            return float(np.sqrt(np.mean((model.predict(x[280:]) - y[280:]) ** 2)))
        shares = model.predict_proba(x[280:])[np.arange(120), y[280:]]
        return float(-np.mean(np.log(np.clip(shares, 1e-6, 1.0))))

    return loss


def nobody(history: History) -> Proposal:
    raise AssertionError(f"the model failed at trial {history.next_number}")
