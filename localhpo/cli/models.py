"""`localhpo models`: the language models on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from localhpo.cli._help import Command, Group

if TYPE_CHECKING:
    from localhpo.llm.cards import Entry
    from localhpo.llm.profiles import Profile


@click.group(
    "models",
    invoke_without_command=True,
    cls=Group,
    examples=(
        "localhpo models",
        "localhpo models --json",
        "localhpo models show sprout",
    ),
)
@click.option("--json", "as_json", is_flag=True, help="Print the models as JSON.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List, add and verify the language models on this machine.

    A model comes with LocalHPO, or is on your shelf: the folder that LOCALHPO_MODELS names, else
    ~/.local/share/localhpo/models. LocalHPO never downloads any.
    """
    if context.invoked_subcommand is None:
        _list(as_json)


@command.command(
    "list",
    cls=Command,
    examples=(
        "localhpo models list",
        "localhpo models list --json",
    ),
)
@click.option("--json", "as_json", is_flag=True, help="Print the models as JSON.")
def list_(as_json: bool) -> None:
    """List the models on this machine, and profiles of models that are not.

    Each model is verified: its files must be what its card says. A profile says what a published
    model needs; its figures are unverified until you add a folder that agrees with them.
    """
    _list(as_json)


@command.command(
    "show",
    cls=Command,
    examples=(
        "localhpo models show sprout",
        "localhpo models show sprout --json",
        "localhpo models show qwen3-8b --tokens 32768    # a profile: what it would need",
    ),
)
@click.argument("name")
@click.option(
    "--tokens",
    type=click.IntRange(min=1),
    help="Length of prompt and answer for which a server's KV cache is worked out; it has room for"
    " more answers beside.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the model as JSON.")
def show(name: str, tokens: int | None, as_json: bool) -> None:
    """Show the card of a model, or a profile.

    How it was made, what was measured, what memory it needs, and what it is not good at.
    """
    from localhpo.cli import _model_views, _output
    from localhpo.llm.memory import PROPOSAL_TOKENS

    found = _find(name)
    record = _model_views.record(found, full=True, tokens=tokens or PROPOSAL_TOKENS)
    if as_json:
        _output.print_json(record)
    else:
        _output.show(_model_views.facts(record))


@command.command(
    "add",
    cls=Command,
    examples=(
        "localhpo models add my-model                   # used where it is",
        "localhpo models add my-model --name own --copy",
    ),
)
@click.argument("path", type=click.Path())
@click.option("--name", default="", help="What to call it; the folder's name by default.")
@click.option("--copy", is_flag=True, help="Copy its files to the shelf, however large they are.")
@click.option("--json", "as_json", is_flag=True, help="Print the card as JSON.")
def add(path: str, name: str, copy: bool, as_json: bool) -> None:
    """Make the card of a model of yours, so that `run --model NAME` finds it.

    PATH is a folder in Hugging Face layout with safetensors weights. Its files are checked and
    hashed, and stay where they are. Refused are pickles, code, links that lead out of the folder,
    missing files, and weights of another architecture than config.json says.
    """
    from localhpo.cli import _model_views, _output
    from localhpo.errors import InputError
    from localhpo.llm import adding, cards

    if not path:  # as a Path it would be the current folder
        raise InputError("PATH must be a model folder, but is empty", hint="'.' is this folder")
    card = adding.add(Path(path), name, copy=copy, on_file=_tell)
    entry = cards.entry(cards.find(card.name), name=card.name)
    if as_json:
        _output.print_json(_model_views.record(entry, full=True))
        return
    _output.show(_model_views.facts(_model_views.record(entry, full=False)))
    for note in _model_views.notes(card, Path(path).resolve()):
        click.echo(f"note: {note}")
    click.echo(f"Use it: localhpo run TASK --model {card.name}")


@command.command(
    "verify",
    cls=Command,
    examples=(
        "localhpo models verify",
        "localhpo models verify sprout --json",
    ),
)
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def verify(context: click.Context, names: tuple[str, ...], as_json: bool) -> None:
    """Hash the files of models again, and say what changed.

    NAMES are models; all that have a card by default. The exit code is 1 where one differs.
    """
    from localhpo.cli import _output
    from localhpo.llm import cards

    known = [place.name for place in cards.places() if (place / cards.CARD).is_file()]
    found = {name: _changes(name) for name in names or known}
    if as_json:
        _output.print_json([{"name": name, "changes": changes} for name, changes in found.items()])
    else:
        for name, changes in found.items():
            click.echo(f"{name}: {'as its card says' if not changes else 'not as its card says'}")
            for change in changes:
                click.echo(f"  {change}")
    context.exit(1 if any(found.values()) else 0)


def _changes(name: str) -> list[str]:
    """Return how a model differs from its card, every file read again."""
    from localhpo.errors import CardError
    from localhpo.llm import cards

    folder = cards.find(name)
    try:
        card = cards.load(folder)
        cards.refuse_code(folder)
    except CardError as exc:
        return [f"{exc} ({exc.hint})" if exc.hint else str(exc)]
    return [str(change) for change in cards.differences(folder, card, again=True)]


def _list(as_json: bool) -> None:
    from localhpo.cli import _finetune_views, _model_views, _output
    from localhpo.llm.cards import entries
    from localhpo.llm.profiles import profiles

    found = entries()
    added = {entry.card.profile: entry.name for entry in found if entry.card}
    if as_json:
        records = [_model_views.record(entry) for entry in found]
        records += [
            {**_model_views.record(profile), "added_as": added.get(profile.name, "")}
            for profile in profiles().values()
        ]
        _output.print_json(records)
        return
    _output.show(_model_views.models_table(found))
    if tuned := [entry.card for entry in found if entry.card and entry.card.tuned]:
        click.echo()
        _output.show(_finetune_views.versions_table(tuned))
    others = [profile for profile in profiles().values() if profile.name not in added]
    click.echo("\nNot here, but known, as published; unverified until you add a folder:\n")
    _output.show(_model_views.profiles_table(others))


def _find(name: str) -> Entry | Profile:
    """Return the model of that name or in that folder, or else the profile of that name.

    Raises:
        InputError: there is none.
    """
    from localhpo.errors import InputError
    from localhpo.llm import cards, profiles

    try:
        return cards.entry(cards.find(name))
    except InputError:
        if (profile := profiles.profiles().get(name)) is None:
            raise
        return profile


def _tell(file: Path) -> None:
    """Say which file is read, where that takes long enough to wonder."""
    if file.stat().st_size > 10**9:
        click.echo(f"reading {file}", err=True)
