"""`localhpo finetune`: train a model on past studies."""

from __future__ import annotations

import os
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from localhpo.cli import output
from localhpo.cli.command import Command

if TYPE_CHECKING:
    from localhpo.finetune.pipeline import FinetunePlan
    from localhpo.finetune.train import TrainingProgress, TrainingSettings
    from localhpo.llm.models.card import Card
    from localhpo.transfer import PastStudy

_PROGRESS_INTERVAL_S = 10.0


@click.command(
    "finetune",
    cls=Command,
    examples=(
        "localhpo finetune --dry-run",
        "localhpo finetune --dry-run --json",
        "localhpo finetune --auto --every 5    # for cron: trains when 5 more studies have ended",
        "localhpo finetune --rollback",
    ),
)
@click.option(
    "--model", help="Model to train (`localhpo models`), or a folder; default: the built-in one."
)
@click.option(
    "--dry-run", is_flag=True, help="Show which studies would be used, and how; train nothing."
)
@click.option(
    "--method", type=click.Choice(["lora", "full"]), help="Train LoRA adapters, or all weights."
)
@click.option("--rank", type=click.IntRange(1, 16), help="Rank of the adapters.")
@click.option("--rate", type=click.FloatRange(0, 1, min_open=True), help="Highest learning rate.")
@click.option("--passes", type=click.IntRange(min=1), help="Passes over the training examples.")
@click.option("--batch-tokens", type=click.IntRange(min=64), help="Tokens of a batch.")
@click.option(
    "--minutes", type=click.FloatRange(0, min_open=True), help="Time limit of the training."
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of the training.")
@click.option("--seed", type=click.IntRange(min=0), help="Seed of all random choices.")
@click.option("--device", help="Device (cpu, cuda:0); default: a GPU where there is one.")
@click.option(
    "--force", is_flag=True, help="Use the new model even if it is not better than its base."
)
@click.option(
    "--auto", is_flag=True, help="Train only if enough studies have ended since the last training."
)
@click.option(
    "--every", type=click.IntRange(min=1), default=5, show_default=True,
    help="Studies that must have ended for --auto.",
)  # fmt: skip
@click.option(
    "--rollback",
    is_flag=True,
    help="Go back to the version before; the files of the withdrawn one are kept.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    model: str | None, dry_run: bool, device: str | None, force: bool, auto: bool, every: int,
    rollback: bool, as_json: bool, **given: Any,
) -> None:  # fmt: skip
    """Train a model on past studies.

    A quarter of the tasks (at least nine, at most half) is held out to test the new model. `run
    --transfer finetuned` uses it only if it is better than its base on them: if it gives good
    configurations a higher probability, and finds them sooner in replayed studies. Training pauses
    while studies wait for the machine. After an interruption, the same command continues it.
    """
    from localhpo.finetune.train import TrainingSettings

    settings = TrainingSettings(**{key: value for key, value in given.items() if value is not None})
    if rollback:
        _roll_back(model)
        return
    past_studies = _read_past_studies()
    if auto and (missing := _missing(past_studies, model, every)):
        _print_missing(missing, as_json)
        return
    plan = _plan(past_studies, model, settings.seed)
    if dry_run:
        _show(plan, as_json)
        return
    plan.check()
    card = _tune(plan, settings, device, force)
    _conclude(card, as_json)


def _read_past_studies() -> list[PastStudy]:
    from localhpo.store import Store, default_home
    from localhpo.study.past_studies import read_past_studies

    found, unreadable = read_past_studies(Store(default_home()))
    for one in unreadable:
        click.echo(
            f"note: study {one.study} is left out, it cannot be read: {one.reason}", err=True
        )
    return found


def _plan(past_studies: list[PastStudy], model: str | None, seed: int) -> FinetunePlan:
    from localhpo.finetune import pipeline
    from localhpo.llm.models import registry as model_registry

    return pipeline.plan_finetuning(past_studies, model or model_registry.DEFAULT, seed=seed)


def _missing(past_studies: list[PastStudy], model: str | None, every: int) -> int:
    from localhpo.finetune import pipeline, registration
    from localhpo.llm.models import registry as model_registry

    return pipeline.count_missing_studies(
        past_studies, registration.find_base_model(model or model_registry.DEFAULT).name, every
    )


def _print_missing(missing: int, as_json: bool) -> None:

    if as_json:
        output.print_json({"missing_studies": missing})
    else:
        click.echo(f"nothing to do yet: --auto trains after {missing} more finished studies")


def _tune(plan: FinetunePlan, settings: TrainingSettings, device: str | None, force: bool) -> Card:
    """Train and test the model, while no study waits for the machine."""
    from localhpo.cli.models.low_priority import LowPriorityClaim
    from localhpo.finetune import pipeline
    from localhpo.finetune.replay import Replayer
    from localhpo.resources.inventory import find_inventory

    with closing(
        LowPriorityClaim(find_inventory(), threads=settings.threads, report=_print_progress)
    ) as claim:
        assignment = claim.take()
        if assignment.gpus and device is None:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(assignment.gpus)
        with closing(Replayer(device=device)) as replay:
            return pipeline.run_finetuning(
                plan, settings, replay, force=force, device=device,
                watch=_ProgressPrinter(), pause=claim.give_way,
            )  # fmt: skip


class _ProgressPrinter:
    """Prints the progress of a training at intervals."""

    def __init__(self) -> None:
        self._printed_s = 0.0

    def __call__(self, progress: TrainingProgress) -> None:
        from localhpo.analysis import formatting

        if (
            progress.seconds - self._printed_s < _PROGRESS_INTERVAL_S
            and progress.step < progress.steps
        ):
            return
        self._printed_s = progress.seconds
        _print_progress(
            f"step {progress.step} of {progress.steps}, loss {progress.loss:.3f}, "
            f"{formatting.duration(progress.left_s)} left"
        )


def _print_progress(line: str) -> None:
    click.echo(line, err=True)


def _show(plan: FinetunePlan, as_json: bool) -> None:
    from localhpo.cli.models import finetune_views

    if as_json:
        output.print_json(finetune_views.plan_record(plan))
        return
    output.show(finetune_views.plan_table(plan))
    if plan.missing:
        click.echo(f"\ntraining is not possible: {plan.missing}")


def _conclude(card: Card, as_json: bool) -> None:
    from localhpo.cli.models import finetune_views

    if as_json:
        output.print_json(finetune_views.version_record(card))
        return
    output.show(finetune_views.versions_table([card]))
    if finetune_views.is_in_use(card):
        click.echo("\nUse it: localhpo run TASK --transfer finetuned")
    else:
        click.echo("\nThe new model is not used; studies use its base as before.")


def _roll_back(model: str | None) -> None:
    from localhpo.finetune import registration
    from localhpo.llm.models import registry as model_registry
    from localhpo.llm.models import versions

    base = registration.find_base_model(model or model_registry.DEFAULT).name
    gone = versions.roll_back(base)
    now = versions.find_current_version(base)
    if gone is not None:
        click.echo(f"{gone.name} is no longer used; its files are kept")
    click.echo(f"in use: {now.name if now else base}")
