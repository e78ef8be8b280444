"""Training: the loss falls, and a killed training resumes."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from localhpo.errors import InputError
from localhpo.finetune import dataset, registration, train, trainable_model
from localhpo.finetune.rows import WEIGHT_VALUE, encode_example, value_weights
from localhpo.finetune.trainable_model import TrainableModel
from localhpo.llm.transformers.rendering import PromptRenderer

SETTINGS = train.TrainingSettings(passes=8, rows=1, rate=3e-3)


def encoded(trainee, base, past_studies):
    render = PromptRenderer(trainee.tokenizer, base.model).tokens
    found = dataset.make_examples(
        past_studies, base.model, lambda messages: len(render(messages)), seed=0
    )
    # Few and short: a test is no place for patience.
    few = [replace(e, answers=e.answers[:6]) for e in found if e.shown == 0]
    return [encode_example(e, render, trainee.tokenizer) for e in few]


@pytest.fixture
def base(tiny):
    return registration.find_base_model(str(tiny))


@pytest.fixture(params=["lora", "full"])
def settings(request):
    return replace(SETTINGS, method=request.param)


def make(base, settings):
    return TrainableModel(base.folder, settings.method, rank=4, seed=0, device="cpu")


def weights(trainee):
    return {name: tensor.detach().clone() for name, tensor in trainee.trained().items()}


def test_training_lowers_the_loss_of_good_configurations(base, settings, past_studies, tmp_path):
    trainee = make(base, settings)
    examples = encoded(trainee, base, past_studies[:2])
    before = train.compute_losses(trainee, examples, settings)
    seen = []
    progress = train.train_model(trainee, examples, settings, tmp_path, "key", watch=seen.append)
    after = train.compute_losses(trainee, examples, settings)
    assert sum(after) < 0.9 * sum(before)
    assert progress.step == progress.steps == len(seen)
    assert seen[0].left_s > seen[-1].left_s == 0


def test_answers_in_one_row_are_independent(base, past_studies):
    trainee = make(base, SETTINGS)
    assert trainee.packs
    (example, *_) = encoded(trainee, base, past_studies[:1])
    together = train.compute_losses(trainee, [example], SETTINGS)
    alone = train.compute_losses(trainee, [example], replace(SETTINGS, answers=1))
    assert together == pytest.approx(alone, rel=1e-4)


class Killed(Exception):
    pass


def test_a_resumed_training_gives_the_same_weights(base, settings, past_studies, tmp_path):
    whole = make(base, settings)
    examples = encoded(whole, base, past_studies[:2])
    train.train_model(whole, examples, settings, tmp_path / "whole", "key")

    def stop(progress):
        if progress.step == 3:
            raise Killed

    first = make(base, settings)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_EVERY_S", -1.0)  # a checkpoint at each step
        with pytest.raises(Killed):
            train.train_model(first, examples, settings, tmp_path / "parts", "key", watch=stop)
    second = make(base, settings)
    steps = []
    train.train_model(second, examples, settings, tmp_path / "parts", "key", watch=steps.append)
    assert steps[0].step == 4
    for name, tensor in weights(whole).items():
        assert (tensor - weights(second)[name]).abs().max() < 1e-6


def test_the_checkpoint_of_another_training_is_ignored(base, past_studies, tmp_path):
    trainee = make(base, SETTINGS)
    examples = encoded(trainee, base, past_studies[:1])
    one = train.compute_training_digest(examples, SETTINGS, "digest")
    for other in (
        train.compute_training_digest([], SETTINGS, "digest"),
        train.compute_training_digest(examples, replace(SETTINGS, rate=1e-3), "digest"),
        train.compute_training_digest(examples, SETTINGS, "another"),
    ):
        assert other != one
    assert train.compute_training_digest(examples, replace(SETTINGS, minutes=1.0), "digest") == one
    train.train_model(trainee, examples, SETTINGS, tmp_path, one)
    steps = []
    train.train_model(make(base, SETTINGS), examples, SETTINGS, tmp_path, other, watch=steps.append)
    assert steps[0].step == 1


def test_training_ends_after_its_minutes(base, past_studies, tmp_path):
    trainee = make(base, SETTINGS)
    examples = encoded(trainee, base, past_studies[:2])
    bound = replace(SETTINGS, minutes=1e-4)
    progress = train.train_model(trainee, examples, bound, tmp_path, "key")
    assert 1 <= progress.step < progress.steps


def test_values_weigh_more_than_forced_tokens():
    text = '{"analysis":"rate:1","config":{"rate":2e-3,"kind":"a,b"},"evidence":[3]}'
    offsets = [(i, i + 1) for i in range(len(text))]
    weighed = "".join(
        text[i] for i, w in enumerate(value_weights(text, offsets)) if w == WEIGHT_VALUE
    )
    assert weighed == '2e-3"a,b"'
    assert all(w > 0 for w in value_weights(text, offsets))


def test_a_training_that_does_not_fit_is_refused(base):
    small = {"rank": 4, "tokens": 1000, "on_cpu": True}
    lora = trainable_model.estimate_training_bytes(base.folder, "lora", **small)
    assert lora < trainable_model.estimate_training_bytes(base.folder, "full", **small)
    assert lora < trainable_model.estimate_training_bytes(
        base.folder, "lora", **{**small, "tokens": 2000}
    )
    trainable_model.check_memory(lora, lora, "cpu")
    with pytest.raises(InputError, match=r"needs about .* GiB on cpu, where .* are free"):
        trainable_model.check_memory(lora, lora - 1, "cpu")


KILLED = """
import sys
from pathlib import Path
from made_history import make_past
from localhpo.finetune import registration, train
from localhpo.finetune.train import TrainingSettings
sys.path.insert(0, {tests!r})
train._EVERY_S = 0.2
from test_finetune_train import encoded, make
base = registration.find_base_model({base!r})
settings = TrainingSettings(passes=10_000, rate=3e-3)
trainee = make(base, settings)
def watch(progress):
    print(progress.step, flush=True)
examples = encoded(trainee, base, [make_past(0)])
train.train_model(trainee, examples, settings, Path({work!r}), "key", watch=watch)
"""


@pytest.mark.slow
def test_a_killed_training_resumes_from_its_checkpoint(tiny, tmp_path):
    tests = Path(__file__).parent
    code = KILLED.format(tests=str(tests), base=str(tiny), work=str(tmp_path / "work"))
    env = {**os.environ, "PYTHONPATH": str(tests.parent), "OMP_NUM_THREADS": "1"}
    reached = []
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=env
        )
        assert process.stdout is not None
        first = int(process.stdout.readline())
        checkpoint = tmp_path / "work" / train.CHECKPOINT
        known, deadline = _written(checkpoint), time.monotonic() + 60
        while _written(checkpoint) == known and time.monotonic() < deadline:
            process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        reached.append(first)
    assert reached[0] == 1
    assert reached[1] > 1


def _written(path):
    return path.stat().st_mtime_ns if path.exists() else 0
