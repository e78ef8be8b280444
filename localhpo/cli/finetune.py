"""`localhpo finetune`: train a model on the past studies of the store."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from localhpo.cli._help import Command

if TYPE_CHECKING:
    from localhpo.experience import Past
    from localhpo.finetune.rounds import Plan
    from localhpo.finetune.train import Progress, Settings
    from localhpo.llm.card import Card

_SAY_EVERY_S = 10.0


@click.command(
    "finetune",
    cls=Command,
    examples=(
        "localhpo finetune --dry-run",
        "localhpo finetune --dry-run --json",
        "localhpo finetune --auto --every 5    # for cron: one round, where it is due",
        "localhpo finetune --rollback",
    ),
)
@click.option("--model", help="The base, of `localhpo models`, or a folder; the built-in one.")
@click.option("--dry-run", is_flag=True, help="Show which studies are taken and left, and why.")
@click.option("--method", type=click.Choice(["lora", "full"]), help="Adapters, or all weights.")
@click.option("--rank", type=click.IntRange(1, 16), help="Of adapters.")
@click.option("--rate", type=click.FloatRange(0, 1, min_open=True), help="Highest learning rate.")
@click.option("--passes", type=click.IntRange(min=1), help="Over the examples.")
@click.option("--batch-tokens", type=click.IntRange(min=64), help="Of what is read at a time.")
@click.option("--minutes", type=click.FloatRange(0, min_open=True), help="Training ends then.")
@click.option("--threads", type=click.IntRange(min=1), help="Of a CPU, for the training.")
@click.option("--seed", type=click.IntRange(min=0), help="Of all random choices.")
@click.option("--device", help="As torch names it: cpu, cuda:0; a GPU where there is one.")
@click.option("--force", is_flag=True, help="Use the result whatever the gate says.")
@click.option("--auto", is_flag=True, help="Only where enough studies have finished since.")
@click.option(
    "--every", type=click.IntRange(min=1), default=5, show_default=True,
    help="Finished studies after which --auto does a round.",
)  # fmt: skip
@click.option("--rollback", is_flag=True, help="Withdraw the version in use; it is kept.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def command(
    model: str | None, dry_run: bool, device: str | None, force: bool, auto: bool, every: int,
    rollback: bool, as_json: bool, **given: Any,
) -> None:  # fmt: skip
    """Train a model on the past studies of the store.

    A quarter of the tasks is held out, at least nine, though no more than half. The result goes
    to the shelf of models, and is used by `run --experience finetuned` only if it beats its base
    there: if good configurations are likelier, and replayed studies find them sooner. It gives
    way to studies that wait for the machine, and goes on where it was when it was stopped and
    the same command is given again.
    """
    from localhpo.finetune.train import Settings

    settings = Settings(**{key: value for key, value in given.items() if value is not None})
    if rollback:
        _roll_back(model)
        return
    pasts = _pasts()
    if auto and (missing := _missing(pasts, model, every)):
        _say_missing(missing, as_json)
        return
    plan = _plan(pasts, model, settings.seed)
    if dry_run:
        _show(plan, as_json)
        return
    plan.check()
    card = _tune(plan, settings, device, force)
    _conclude(card, as_json)


def _pasts() -> list[Past]:
    from localhpo.store import Store, default_home
    from localhpo.study.pasts import past_studies

    found, unreadable = past_studies(Store(default_home()))
    for one in unreadable:
        click.echo(f"note: study {one.study} cannot be read: {one.reason}", err=True)
    return found


def _plan(pasts: list[Past], model: str | None, seed: int) -> Plan:
    from localhpo.finetune import rounds
    from localhpo.llm import cards

    return rounds.plan(pasts, model or cards.DEFAULT, seed=seed)


def _missing(pasts: list[Past], model: str | None, every: int) -> int:
    from localhpo.finetune import cycle, shelving
    from localhpo.llm import cards

    return cycle.missing(pasts, shelving.find_base(model or cards.DEFAULT).name, every)


def _say_missing(missing: int, as_json: bool) -> None:
    from localhpo.cli import _output

    if as_json:
        _output.print_json({"missing_studies": missing})
    else:
        click.echo(f"nothing to do yet: finished studies missing until the next round: {missing}")


def _tune(plan: Plan, settings: Settings, device: str | None, force: bool) -> Card:
    """Train and judge, while no study wants the machine."""
    from localhpo.bench.replaying import Replayer
    from localhpo.cli._turn import Turn
    from localhpo.finetune import rounds
    from localhpo.scheduler.devices import find_inventory

    with _closing(Turn(find_inventory(), threads=settings.threads, tell=_say)) as turn:
        held = turn.take()
        if held.gpus and device is None:
            os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(held.gpus)
        with _closing(Replayer(device=device)) as replay:
            return rounds.tune(
                plan, settings, replay, force=force, device=device,
                watch=_Watch(), pause=turn.give_way,
            )  # fmt: skip


@contextmanager
def _closing(what: Any) -> Iterator[Any]:
    try:
        yield what
    finally:
        what.close()


class _Watch:
    """Says now and then how far a training is."""

    def __init__(self) -> None:
        self._said = 0.0

    def __call__(self, progress: Progress) -> None:
        from localhpo.analysis import wording

        if progress.seconds - self._said < _SAY_EVERY_S and progress.step < progress.steps:
            return
        self._said = progress.seconds
        _say(
            f"step {progress.step} of {progress.steps}, loss {progress.loss:.3f}, "
            f"{wording.duration(progress.left_s)} left"
        )


def _say(line: str) -> None:
    click.echo(line, err=True)


def _show(plan: Plan, as_json: bool) -> None:
    from localhpo.cli import _finetune_views, _output

    if as_json:
        _output.print_json(_finetune_views.plan_record(plan))
        return
    _output.show(_finetune_views.plan_table(plan))
    if plan.missing:
        click.echo(f"\nnothing can be trained: {plan.missing}")


def _conclude(card: Card, as_json: bool) -> None:
    from localhpo.cli import _finetune_views, _output

    if as_json:
        _output.print_json(_finetune_views.version_record(card))
        return
    _output.show(_finetune_views.versions_table([card]))
    if _finetune_views.is_in_use(card):
        click.echo("\nUse it: localhpo run TASK --experience finetuned")
    else:
        click.echo("\nIt is kept out of use; the base is used as before.")


def _roll_back(model: str | None) -> None:
    from localhpo.finetune import shelving
    from localhpo.llm import cards, versions

    base = shelving.find_base(model or cards.DEFAULT).name
    gone = versions.roll_back(base)
    now = versions.current(base)
    if gone is not None:
        click.echo(f"{gone.name} is withdrawn, and kept")
    click.echo(f"in use: {now.name if now else base}")
