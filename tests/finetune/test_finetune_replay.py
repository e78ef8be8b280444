"""Replays of past tasks."""

from made_history import BEST, SPACE, make_past

from localhpo.creator.bo.surrogate import MAX_REGRET, expected_regret
from localhpo.finetune.replay import Replayer
from localhpo.llm.models import registry as model_registry


def test_expected_regret_is_low_where_trials_were_good_and_bounded():
    past = make_past(1, trials=20, fails=0)
    regret = expected_regret(SPACE, "minimize", past.trials)
    good, poor = past.ranked_trials[0].config, past.ranked_trials[-1].config
    low, high, best = regret([good, poor, BEST])
    assert 0.0 <= low < 0.3
    assert 0.9 < high <= MAX_REGRET
    assert best < high
    turned = expected_regret(SPACE, "maximize", past.trials)([good, poor])
    assert turned[0] > turned[1]


def test_a_study_that_does_not_fit_tells_nothing():
    past = make_past(1, trials=1, fails=0)
    assert list(expected_regret(SPACE, "minimize", past.trials)([BEST])) == [1.0]


def test_a_replay_is_the_same_each_time():
    past, replayer = make_past(1, trials=12), Replayer(seeds=1, trials=3, device="cpu")
    first = replayer(past, model_registry.find_model("sprout"))
    assert 0.0 <= first <= MAX_REGRET
    assert replayer(past, model_registry.find_model("sprout")) == first
    replayer.close()
