"""Writes a commented task.toml for a script whose options were read."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from localhpo.analysis.formatting import printable
from localhpo.cli.init.argparse_reader import Option, Script
from localhpo.cli.init.ranges import RangeProposal, propose_range
from localhpo.creator import CREATORS
from localhpo.errors import SpaceError
from localhpo.llm import BACKENDS
from localhpo.objective import Direction
from localhpo.scheduler.pruning import PRUNERS
from localhpo.space import Space

PLACEHOLDER_METRIC = "val_loss"

_GENERIC_STEMS = ("train", "main", "run", "script", "model", "fit")
_MORE_IS_BETTER = (
    "acc|accuracy|f1|f1score|auc|auroc|roc|auprc|ap|map|precision|recall|sensitivity|specificity"
    "|r2|score|bleu|rouge|chrf|meteor|iou|miou|dice|psnr|ssim|reward|return|hits|mrr|ndcg|kappa"
    "|mcc|correlation|pearson|spearman|throughput|top1|top5|em|pass"
)
_LESS_IS_BETTER = (
    "loss|error|err|mse|rmse|mae|mape|rmsle|perplexity|ppl|nll|logloss|crossentropy|ce|bpb|bpc|wer"
    "|cer|fid|regret|cost|latency|brier|ece|time|seconds|divergence|kl"
)
_HELD_OUT = "val|valid|validation|dev|eval|test|heldout|holdout|cv"

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_SEED = re.compile(r"(?:^|[-_.])(?:seed|random[-_]state)$")
_OUTPUT = re.compile(r"(?:^|[-_.])(?:out|output|save|log)(?:[-_.]?(?:dir|folder|path))?$")


@dataclass(frozen=True, slots=True)
class TaskFilePlan:
    """Contents of a task file to write."""

    script: str
    """Path of the script in the command; empty for a template."""
    name: str
    """Name of the task."""
    proposed: tuple[RangeProposal, ...] = ()
    unread: tuple[str, ...] = ()
    """Calls of the script that could not be read, one line each."""
    metrics: tuple[str, ...] = ()
    read_by: str = ""

    @property
    def tuned(self) -> tuple[RangeProposal, ...]:
        """The options that become parameters."""
        return tuple(p for p in self.proposed if p.table is not None)

    @property
    def left_out(self) -> tuple[RangeProposal, ...]:
        """The options that are not tuned."""
        return tuple(p for p in self.proposed if p.table is None)

    @property
    def explicit(self) -> bool:
        """Whether the command has a placeholder for each value, since one cannot be appended."""
        return any(not p.option.appendable for p in self.tuned)

    @property
    def fixable(self) -> tuple[RangeProposal, ...]:
        """The options that are not tuned but may be hyperparameters, for `[fixed]`."""
        known = (p for p in self.left_out if p.option.default is not None and not p.option.required)
        return tuple(p for p in known if p.fixable and (self.explicit or p.option.appendable))

    @property
    def to_fill_in(self) -> tuple[Option, ...]:
        """The required options whose values the user must fill in."""
        return tuple(
            p.option for p in self.left_out if p.option.required and not _is_known(p.option)
        )


def plan(script: Script, command_path: str, name: str) -> TaskFilePlan:
    """Return the contents of a task file for a script."""
    return TaskFilePlan(
        script=command_path,
        name=name,
        proposed=tuple(_checked(propose_range(option)) for option in script.options),
        unread=tuple(f"line {u.line}: {u.why}: {_short(u.text)}" for u in script.unread),
        metrics=script.metrics,
        read_by=script.read_by,
    )


def _checked(proposed: RangeProposal) -> RangeProposal:
    """Return the proposal without its parameter if `Space` refuses it (choices of mixed types)."""
    if proposed.table is None:
        return proposed
    try:
        Space.from_table({proposed.option.name: proposed.table})
    except SpaceError as exc:
        return replace(proposed, table=None, why=str(exc), fixable=True)
    return proposed


def task_name(script: Path) -> str:
    """Return a name for the task: the script's, with its folder's if the script is `train.py`."""
    stem = _slug(script.stem)
    if stem in _GENERIC_STEMS:
        stem = f"{_slug(script.resolve().parent.name)}-{stem}".strip("-")
    return stem or "task"


def _slug(text: str) -> str:
    """Return the letters and digits of a text, lower case, without accents."""
    ascii_text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
    return re.sub(r"[^a-z0-9]+", "-", ascii_text.lower()).strip("-")[:60]


def write(plan: TaskFilePlan) -> str:
    """Return the text of a task file."""
    parts = [_header(plan), _task(plan), _goals(), _space(plan), _fixed(plan)]
    parts += [_budget(), _resources(), _others()]
    return "\n".join(part for part in parts if part)


def _header(plan: TaskFilePlan) -> str:
    source = f" {plan.script}" if plan.script else ""
    return (
        f"# Written by `localhpo init{source}`. The ranges below are proposals: check and change\n"
        "# them, then: localhpo run task.toml\n"
    )


def _task(plan: TaskFilePlan) -> str:
    metric, direction, comment = _metric(plan)
    return "\n".join(
        [
            "[task]",
            f"name = {toml(plan.name)}",
            *_command(plan),
            *comment,
            f"metric = {toml(metric)}",
            f"direction = {toml(direction)}",
            "# For the language model, in plain words: the data, the model, the goal, what you",
            "# know already. It knows nothing else about your problem.",
            'background = """',
            '"""',
            "",
        ]
    )


def _goals() -> str:
    """Return how to set several objectives and constraints, as comments."""
    return "\n".join(
        [
            "# Several objectives: instead of metric and direction above, one table for each.",
            "# [[objective]]",
            '# name = "val_accuracy"',
            '# direction = "maximize"',
            "# Constraints that the best trials must meet: min, max or both, on a reported metric",
            "# or on wall_s, peak_memory_mb, gpu_s, energy_j, which LocalHPO measures.",
            "# [[constraint]]",
            '# name = "peak_memory_mb"',
            "# max = 4000.0",
            "",
        ]
    )


def _command(plan: TaskFilePlan) -> Iterator[str]:
    """Yield the lines of the command, with the options that are not tuned as comments."""
    if plan.explicit:
        yield "# {name} is replaced by the value of a parameter."
    else:
        yield "# Each parameter of [space] is appended as --name value."
    yield "command = ["
    yield f"    {_list_of(['python', plan.script or 'train.py'])},"
    for proposed in plan.left_out:
        if proposed not in plan.fixable and (line := _argument(proposed.option)):
            yield f"    {line}"
    if plan.explicit:
        yield from (f"    {_placeholder(p.option)}" for p in plan.tuned)
        yield from (f"    # {_placeholder(p.option)}  # see [fixed]" for p in plan.fixable)
    yield "]"


def _placeholder(option: Option) -> str:
    return f"{_list_of([option.flag or None, '{' + option.name + '}'])},"


def _argument(option: Option) -> str:
    """Return the line of an option that is not tuned; a comment unless it is required."""
    if option.why_not and not option.required:
        return ""
    line = f"{_list_of([option.flag or None, _fixed_value(option)])},"
    if option.required:
        return line if _is_known(option) else f"{line}  # <- FILL IN"
    return f"# {line}" + (f"  # {_short(option.help)}" if option.help else "")


def _fixed_value(option: Option) -> str:
    """Return the value of an option that is not tuned; its name if the value is unknown."""
    if _SEED.search(option.name):
        return "{seed}"
    if _OUTPUT.search(option.name):
        return "{trial.dir}"
    known = option.choices[0] if option.default is None and option.choices else option.default
    text = option.name.upper() if known is None else str(known)
    return text.replace("{", "{{").replace("}", "}}")


def _is_known(option: Option) -> bool:
    """Return whether `_fixed_value` is a value, not a placeholder."""
    patterned = _SEED.search(option.name) or _OUTPUT.search(option.name)
    return bool(patterned or option.choices or option.default is not None)


def _metric(plan: TaskFilePlan) -> tuple[str, str, list[str]]:
    """Return metric, direction and comments on them."""
    metric = choose_metric(plan.metrics)
    if metric is None:
        return PLACEHOLDER_METRIC, "minimize", _how_to_report(plan)
    comment = []
    if others := [name for name in plan.metrics if name != metric]:
        comment.append(f"# The script also reports: {', '.join(others)}.")
    direction = guess_direction(metric)
    if direction is None:
        comment.append(f"# The direction of {_short(metric)} is a guess: check it.")
    return metric, direction or "minimize", comment


def choose_metric(names: Sequence[str]) -> str | None:
    """Return the metric to optimize: preferably on held-out data and of known direction."""

    def rank(name: str) -> tuple[bool, bool]:
        return _says(name, _HELD_OUT), guess_direction(name) is not None

    return max(names, key=rank, default=None)


def guess_direction(name: str) -> Direction | None:
    """Return the direction that the name of a metric implies, or None."""
    if _says(name, _LESS_IS_BETTER):
        return "minimize"
    return "maximize" if _says(name, _MORE_IS_BETTER) else None


def _says(name: str, words: str) -> bool:
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
    return re.search(rf"(?:^|[^a-z])(?:{words})(?:$|[^a-z])", snake) is not None


def _how_to_report(plan: TaskFilePlan) -> list[str]:
    found = "No call of report(...) was found in the script. " if plan.script else ""
    return [
        f"# {found}A script reports its metric like this:",
        "#     from localhpo.reporter import report",
        f"#     report(step=epoch, {PLACEHOLDER_METRIC}=loss)",
        "# then name it here. (A script that only prints: stdout_regex = 'val_loss=(\\S+)')",
    ]


def _space(plan: TaskFilePlan) -> str:
    lines = ["[space]", *_space_notes(plan)]
    for proposed in plan.tuned:
        lines.append(_parameter(proposed))
    if not plan.tuned:
        lines.extend(_example_parameters())
    lines.extend(_left_out_comments(plan))
    return "\n".join([*lines, ""])


def _space_notes(plan: TaskFilePlan) -> list[str]:
    lines = [
        "# type: float, int, ordinal (ordered values), categorical; log = true searches by orders",
        '# of magnitude; when = { optimizer = ["sgd"] } makes a parameter depend on another.',
    ]
    if plan.script and not plan.proposed:
        reader = f"it uses {plan.read_by}" if plan.read_by else "it has no argparse options"
        lines.append(
            f"# No options could be read from {plan.script} ({reader}): these are examples."
        )
    return lines


def _example_parameters() -> list[str]:
    return [
        'learning_rate = { type = "float", low = 1e-5, high = 1e-1, log = true, default = 1e-3 }',
        'batch_size = { type = "ordinal", values = [16, 32, 64, 128], default = 32 }',
        'optimizer = { type = "categorical", values = ["adam", "sgd"] }',
        'momentum = { type = "float", low = 0.5, high = 0.99, when = { optimizer = ["sgd"] } }',
    ]


def _parameter(proposed: RangeProposal) -> str:
    option = proposed.option
    table = dict(proposed.table or {})
    if option.help:
        table["help"] = option.help
    comment = f"  # {_short(proposed.why)}" if proposed.why else ""
    return f"{_key(option.name)} = {_inline(table)}{comment}"


def _fixed(plan: TaskFilePlan) -> str:
    """Return options that may be hyperparameters but are not tuned, as comments; may be empty."""
    if not plan.fixable:
        return ""
    return "\n".join(
        [
            "# [fixed]",
            "# Hyperparameters that are not tuned. The script gets these values.",
            *(f"# {_key(p.option.name)} = {toml(p.option.default)}" for p in plan.fixable),
            "",
        ]
    )


def _left_out_comments(plan: TaskFilePlan) -> Iterator[str]:
    unseen = [p for p in plan.left_out if not _argument(p.option)]
    if unseen or plan.unread:
        yield "# Left out:"
    for p in unseen:
        yield f"#   {p.option.flag or p.option.name} (line {p.option.line}): {_short(p.why)}"
    for text in plan.unread:
        yield f"#   {text}"


def _budget() -> str:
    return _section(
        "[budget]",
        ("trials = 20", "in total: running again continues the study"),
        ("# minutes = 60", "of wall clock, in total"),
        ("# timeout_s = 600", "per trial"),
    )


def _resources() -> str:
    return _section(
        "[resources]",
        ("parallel = 1", "trials at a time"),
        ("# cpus = 1", "per trial"),
        ("# gpus = 1", "per trial; 0.5: two trials share one"),
        ("# memory_mb = 8000", "per trial; a trial that takes more is killed"),
        ("# gpu_memory_mb = 20000", "per trial; estimated from past trials by default"),
        ('# sharing = "auto"', "GPU memory with a vLLM server: resident, sleep, device, stop, cpu"),
        ("# priority = 1.0", "of this study among others on this machine"),
        ('# executor = "ray"', 'trials on a Ray cluster; ray_address = "host:port"'),
    )


def _others() -> str:
    creator = _section(
        "# [creator]",
        ('# name = "hybrid"', ", ".join(CREATORS.names)),
        (
            '# model = "Qwen3-8B"',
            "a name of `localhpo models`, or a folder; default: the built-in model",
        ),
        ('# backend = "vllm"', ", ".join(BACKENDS.names)),
        ("# model_gpus = 2", "number of GPUs to split the model over (vLLM)"),
        ('# on_model_error = "stop"', "or engine: continue without the model"),
        ('# transfer = "retrieve"', "use similar past studies; or finetuned, off"),
    )
    pruner = _section(
        "# [pruner]", ('# name = "median"', f"{', '.join(PRUNERS.names)}: stop bad trials early")
    )
    return f"{creator}\n{pruner}"


def _section(head: str, *options: tuple[str, str]) -> str:
    """Return a table with each option and its meaning."""
    width = max(len(option) for option, _ in options)
    lines = [f"{option:<{width}}  # {meaning}" for option, meaning in options]
    return "\n".join([head, *lines, ""])


def toml(value: Any) -> str:
    """Return a value in TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(toml(item) for item in value)}]"
    # JSON strings are valid TOML except for DEL.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007F")


def _float(value: float) -> str:
    """Return a float in its shortest spelling: `1e-5`, `0.25`, `3.0`."""
    mantissa, _, exponent = repr(value).partition("e")
    if not exponent and 0 < abs(value) < 0.01:
        mantissa, _, exponent = f"{value:e}".partition("e")
        mantissa = mantissa.rstrip("0").rstrip(".")
        if float(f"{mantissa}e{exponent}") != value:
            return repr(value)
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def _inline(table: dict[str, Any]) -> str:
    return "{ " + ", ".join(f"{key} = {toml(value)}" for key, value in table.items()) + " }"


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else toml(name)


def _list_of(items: Iterable[str | None]) -> str:
    return ", ".join(toml(item) for item in items if item is not None)


def _short(text: str, limit: int = 70) -> str:
    line = printable(text)
    return line if len(line) <= limit else f"{line[: limit - 3]}..."
