"""`localhpo models`: the language models on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from localhpo.cli._help import Command, Group

if TYPE_CHECKING:
    from localhpo.llm.cards import Entry

_STATE_STYLES = {"verified": "green", "no card": "yellow", "broken": "red"}


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
    """List the language models on this machine.

    Each is verified: its files must be what its card says. Shown are those that come with
    LocalHPO, and the folders below the one that LOCALHPO_MODELS names. LocalHPO never
    downloads any.
    """
    if context.invoked_subcommand is None:
        _list(as_json)


@command.command(
    "show",
    cls=Command,
    examples=(
        "localhpo models show sprout",
        "localhpo models show sprout --json",
    ),
)
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print the model as JSON.")
def show(name: str, as_json: bool) -> None:
    """Show the card of a model.

    How it was made, what was measured, and what it is not good at.
    """
    from localhpo.cli import _output

    entry = _find(name)
    if as_json:
        _output.print_json(_record(entry, full=True))
    else:
        _print(entry)


def _list(as_json: bool) -> None:
    from localhpo.cli import _output, _views
    from localhpo.llm.cards import entries

    found = entries()
    if as_json:
        _output.print_json([_record(entry) for entry in found])
        return
    if not found:
        click.echo("no models: LOCALHPO_MODELS names the folder that holds yours")
        return
    table = _views.plain_table(
        "model", "parameters", "size", "context", "prompt", "licence", "files",
        right=("parameters", "size", "context"),
    )  # fmt: skip
    for entry in found:
        table.add_row(*_cells(entry))
    _output.show(table)


def _cells(entry: Entry) -> tuple[Any, ...]:
    from rich.text import Text

    card = entry.card
    facts = (
        ("-", "-", "-", "-")
        if card is None
        else (f"{card.context_length:,}", card.prompt, card.license, _amount(card.parameters))
    )
    context, prompt, licence, parameters = facts
    state = Text(entry.state, style=_STATE_STYLES[entry.state])
    if entry.error:
        state.append(f": {entry.error}", style="")
    return entry.name, parameters, _size(entry.size_bytes), context, prompt, licence, state


def _find(name: str) -> Entry:
    """Return the model of that name, or in that folder.

    Raises:
        InputError: there is none.
    """
    from localhpo.llm import cards

    return cards.entry(cards.find(name))


def _print(entry: Entry) -> None:
    from rich.table import Table

    from localhpo.cli import _output

    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column(overflow="fold")
    for key, value in _record(entry, full=True).items():
        for line_key, line in _lines(key, value):
            grid.add_row(line_key, line)
    _output.show(grid)


def _lines(key: str, value: Any) -> list[tuple[str, str]]:
    """Return the lines that show one fact: a table or a list takes one line for each entry."""
    if isinstance(value, dict):
        items = [f"{name}: {item}" for name, item in value.items()]
    elif isinstance(value, list):
        items = [str(item) for item in value]
    else:
        items = [str(value)] if value not in (None, "") else []
    title = key.replace("_", " ")
    return [(title if i == 0 else "", item) for i, item in enumerate(items)]


def _record(entry: Entry, *, full: bool = False) -> dict[str, Any]:
    import dataclasses

    from localhpo.analysis.records import jsonable

    record: dict[str, Any] = {
        "name": entry.name,
        "state": entry.state,
        "error": entry.error,
        "path": str(entry.path),
        "size_bytes": entry.size_bytes,
    }
    if entry.card is not None:
        card: dict[str, Any] = jsonable(dataclasses.asdict(entry.card))
        card["digest"] = entry.card.digest
        kept = card if full else {k: v for k, v in card.items() if k not in ("files", "made")}
        record.update({key: value for key, value in kept.items() if key != "name"})
    return record


def _amount(number: int) -> str:
    for limit, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}"
    return str(number)


def _size(size_bytes: int) -> str:
    from localhpo.analysis.wording import memory

    return memory(size_bytes / 1e6)
