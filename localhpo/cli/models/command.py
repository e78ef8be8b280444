"""`localhpo models`: the language models on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from localhpo.cli import output
from localhpo.cli.command import Command, Group

if TYPE_CHECKING:
    from localhpo.llm.models.profiles import ModelProfile
    from localhpo.llm.models.registry import ModelListing


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

    One model comes with LocalHPO. Others are in the folder that LOCALHPO_MODELS names, by default
    ~/.local/share/localhpo/models. LocalHPO never downloads models.
    """
    if context.invoked_subcommand is None:
        context.invoke(list_, as_json=as_json)


@command.command(
    "list",
    cls=Command,
    examples=("localhpo models list", "localhpo models list --json"),
)
@click.option("--json", "as_json", is_flag=True, help="Print the models as JSON.")
def list_(as_json: bool) -> None:
    """List the models on this machine, and known models that you could add.

    The files of each model are compared with its card. The figures of models that are not here are
    those of their publishers; they are checked when you add the model.
    """
    from localhpo.cli.models import views
    from localhpo.cli.models.finetune_views import versions_table
    from localhpo.llm.models.profiles import read_profiles
    from localhpo.llm.models.registry import list_models

    found = list_models()
    added = {entry.card.profile: entry.name for entry in found if entry.card}
    if as_json:
        records = [views.record(entry) for entry in found]
        records += [
            {**views.record(profile), "added_as": added.get(profile.name, "")}
            for profile in read_profiles().values()
        ]
        output.print_json(records)
        return
    output.show(views.models_table(found))
    if tuned := [entry.card for entry in found if entry.card and entry.card.tuned]:
        click.echo()
        output.show(versions_table(tuned))
    others = [profile for profile in read_profiles().values() if profile.name not in added]
    click.echo(
        "\nKnown models that are not on this machine (add one: localhpo models add FOLDER):\n"
    )
    output.show(views.profiles_table(others))


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
    help="Tokens of prompt and answer for which the KV cache of a server is computed.",
)
@click.option("--json", "as_json", is_flag=True, help="Print the model as JSON.")
def show(name: str, tokens: int | None, as_json: bool) -> None:
    """Show the card of a model, or the known facts of a model that is not here.

    The card says how it was made, what was measured, how much memory it needs, and its limits.
    """
    from localhpo.cli.models import views
    from localhpo.llm.models.memory import PROPOSAL_TOKENS

    found = _find(name)
    record = views.record(found, full=True, tokens=tokens or PROPOSAL_TOKENS)
    if as_json:
        output.print_json(record)
    else:
        output.show(views.facts(record))


@command.command(
    "add",
    cls=Command,
    examples=(
        "localhpo models add my-model                   # its files stay where they are",
        "localhpo models add my-model --name own --copy",
    ),
)
@click.argument("path", type=click.Path())
@click.option("--name", default="", help="Name of the model; default: the name of the folder.")
@click.option("--copy", is_flag=True, help="Copy its files to the folder of models.")
@click.option("--json", "as_json", is_flag=True, help="Print the card as JSON.")
def add(path: str, name: str, copy: bool, as_json: bool) -> None:
    """Add a model of yours, so that `run --model NAME` finds it.

    PATH is a folder in Hugging Face layout with safetensors weights. Its files are checked and
    hashed, and a card is written; they stay where they are. Refused are pickles, code, links to
    files outside of the folder, missing files, and weights that do not match config.json.
    """
    from localhpo.cli.models import views
    from localhpo.errors import InputError
    from localhpo.llm.models import registration
    from localhpo.llm.models import registry as model_registry

    if not path:  # as a Path it would be the current folder
        raise InputError("PATH must be a model folder, but is empty", hint="'.' is this folder")
    card = registration.register_model(Path(path), name, copy=copy, on_file=_report_large_file)
    entry = model_registry.inspect_model(model_registry.find_model(card.name), name=card.name)
    if as_json:
        output.print_json(views.record(entry, full=True))
        return
    output.show(views.facts(views.record(entry, full=False)))
    for note in views.notes(card, Path(path).resolve()):
        click.echo(f"note: {note}")
    click.echo(f"Use it: localhpo run TASK --model {card.name}")


@command.command(
    "verify",
    cls=Command,
    examples=("localhpo models verify", "localhpo models verify sprout --json"),
)
@click.argument("names", nargs=-1)
@click.option("--json", "as_json", is_flag=True, help="Print the findings as JSON.")
@click.pass_context
def verify(context: click.Context, names: tuple[str, ...], as_json: bool) -> None:
    """Hash the files of models again, and show what changed.

    NAMES are models; default: all that have a card. The exit code is 1 if one differs.
    """
    from localhpo.llm.models import registry as model_registry

    known = [
        folder.name
        for folder in model_registry.card_folders()
        if (folder / model_registry.CARD).is_file()
    ]
    found = {name: _changes(name) for name in names or known}
    if as_json:
        output.print_json([{"name": name, "changes": changes} for name, changes in found.items()])
    else:
        for name, changes in found.items():
            click.echo(f"{name}: {'unchanged' if not changes else 'differs from its card'}")
            for change in changes:
                click.echo(f"  {change}")
    context.exit(1 if any(found.values()) else 0)


def _changes(name: str) -> list[str]:
    """Return how the files of a model differ from its card."""
    from localhpo.errors import CardError
    from localhpo.llm.models import registry as model_registry

    folder = model_registry.find_model(name)
    try:
        card = model_registry.read_card(folder)
        model_registry.refuse_code(folder)
    except CardError as exc:
        return [f"{exc} ({exc.hint})" if exc.hint else str(exc)]
    return [str(change) for change in model_registry.find_differences(folder, card, again=True)]


def _find(name: str) -> ModelListing | ModelProfile:
    """Return the model of that name or in that folder, or else the profile of that name.

    Raises:
        InputError: there is none.
    """
    from localhpo.errors import InputError
    from localhpo.llm.models import profiles
    from localhpo.llm.models import registry as model_registry

    try:
        return model_registry.inspect_model(model_registry.find_model(name))
    except InputError:
        if (profile := profiles.read_profiles().get(name)) is None:
            raise
        return profile


def _report_large_file(file: Path) -> None:
    """Print which file is read, if it is large enough to take long."""
    if file.stat().st_size > 10**9:
        click.echo(f"reading {file}", err=True)
