import pytest

from localhpo.analysis import formatting
from localhpo.objective import Constraint, Objective
from localhpo.space import Float, Space
from localhpo.trial import Origin


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"),
        (59.6, "1 min 00 s"), (185, "3 min 05 s"), (3599.7, "1 h 00 min"), (7620, "2 h 07 min"),
        (360000, "100 h 00 min"),
    ],
)  # fmt: skip
def test_durations(seconds, text):
    assert formatting.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0.98765432, "0.98765"),
        (-0.0, "-0"),
        (1234567.0, "1.2346e+06"),
        (1e-9, "1e-09"),
    ],
)
def test_values(value, text):
    assert formatting.value(value) == text


def test_memory_counts_and_percent():
    assert formatting.memory(310.4) == "310 MB"
    assert formatting.memory(12500) == "12.5 GB"
    assert formatting.memory(None) == "-"
    assert formatting.count(1, "trial") == "1 trial"
    assert formatting.count(12345, "token") == "12,345 tokens"
    assert formatting.percent(1 / 3) == "33 %"


def test_long_lists_of_trials_are_shortened():
    assert formatting.trial_numbers([1, 2]) == "1, 2"
    assert formatting.trial_numbers(list(range(10)), limit=3) == "0, 1, 2 and 7 more"


def test_configurations_are_spelled_canonically(small_space):
    config = {"learning_rate": 0.00031, "depth": 3, "gone": "x\x1b[2Jy"}
    texts = formatting.config_texts(small_space, config)
    assert texts == {"learning_rate": "3.1e-4", "depth": "3", "gone": "x[2Jy"}
    assert formatting.assignments(texts) == "learning_rate=3.1e-4 depth=3 gone=x[2Jy"


def test_huge_and_tiny_values_are_short():
    space = Space([Float("huge", 0.0, 1e300), Float("tiny", -1e-250, 1e-250), Float("x", 0.0, 1e9)])
    texts = formatting.config_texts(space, {"huge": 5e299, "tiny": -8.59e-251, "x": 123456000.0})
    assert texts == {"huge": "5e299", "tiny": "-8.59e-251", "x": "123456000"}


def test_a_value_outside_of_the_space_is_shown_as_it_is(small_space):
    assert formatting.config_texts(small_space, {"depth": 99}) == {"depth": "99"}


@pytest.mark.parametrize(
    ("message", "tail", "text"),
    [
        ("exit code 1", "Traceback\nValueError: bad\n\n", "exit code 1: ValueError: bad"),
        ("exit code 1: ValueError: bad", "Traceback\nValueError: bad", None),
        ("timeout", "", None),
    ],
)
def test_the_last_line_of_stderr_is_added_to_a_failure_once(message, tail, text):
    assert formatting.failure_text(message, tail) == (text or message)


def test_escape_sequences_and_line_breaks_are_removed():
    assert formatting.printable("a\x1b[31m\r\n b\t\u202ec\x00") == "a[31m b c"
    assert formatting.printable_lines("one\x1b[0m  \ntwo\r50%\r100%") == "one[0m\ntwo\n50%\n100%"


@pytest.mark.parametrize(
    ("series", "width", "line"),
    [
        ([], 10, ""),
        ([1.0], 10, "▁"),
        ([2.0, 2.0], 10, "▁▁"),
        ([8, 7, 6, 5, 4, 3, 2, 1], 10, "█▇▆▅▄▃▂▁"),
        (list(range(100)), 5, "▁▃▅▆█"),
    ],
)
def test_sparklines(series, width, line):
    assert formatting.sparkline(series, width) == line


@pytest.mark.parametrize(
    ("origin", "text"),
    [
        ("llm", "the language model"),
        ("bo", "Bayesian optimization"),
        ("bo+llm", "Bayesian optimization, guided by the language model"),
        (
            "bo+llm+transfer",
            "Bayesian optimization, guided by the language model and past studies",
        ),
        ("meta", "similar data sets"),
        ("default", "the task's default configuration"),
        ("user", "the user (enqueued)"),
        ("bo+user", "Bayesian optimization, guided by what the user expects"),
        ("my-plugin", "my-plugin"),
    ],
)
def test_origins_in_words(origin, text):
    assert formatting.origin_text(Origin.parse(origin)) == text


@pytest.mark.parametrize(
    ("constraint", "violation", "text"),
    [
        (Constraint("latency_ms", max=200.0), 50.0, "latency_ms 250 > 200"),
        (Constraint("latency_ms", max=200.0), -50.0, "latency_ms 150 <= 200"),
        (Constraint("recall", min=0.9), 0.15, "recall 0.75 < 0.9"),
        (Constraint("recall", min=0.9), -0.05, "recall 0.95 >= 0.9"),
        (Constraint("size", min=1.0, max=2.0), 0.5, "size 0.5 outside 1 to 2"),
        (Constraint("size", min=1.0, max=2.0), -0.5, "size in 1 to 2"),
        (Constraint("energy_j", max=1.0), float("nan"), "energy_j unknown"),
    ],
)
def test_constraints_with_the_values_of_a_trial(constraint, violation, text):
    assert formatting.constraint_text(constraint, violation) == text


def test_only_violated_and_unknown_constraints_are_listed(make_trial):
    limits = [Constraint("a", max=1.0), Constraint("b", max=1.0), Constraint("c", max=1.0)]
    trial = make_trial(0, {}, value=0.5, violations=(0.5, -0.5, float("nan")))
    assert formatting.violations_text(trial, limits) == "a 1.5 > 1, c unknown"


def test_the_goals_of_a_task(make_task):
    task = make_task(
        objectives=(Objective("f1", "maximize"), Objective("cost", "minimize")),
        constraints=(Constraint("wall_s", max=60.0),),
    )
    assert formatting.goals_text(task) == "maximize f1, minimize cost; subject to wall_s <= 60"
