"""Which file is the journal of a study, and the conversion of an old one.

LocalHPO 0.1.0 wrote `spool.jsonl` (format 1); today's file is `journal.jsonl` (format 2). Readers
read whichever there is and change nothing. A writer, which holds the lock of the study, converts:

1. `journal.jsonl` is written complete, with the id and the length of the old file at its head;
2. `spool.jsonl` is removed.

Nothing is appended to `journal.jsonl` before step 2. A kill between the two leaves both files,
and an older LocalHPO, which knows the old one alone, may append to it. So, where both exist: if
the old file has the length that was converted, the new one is the journal. If the old one has
grown and the new one has not, the old one is the journal, to be converted again. Anything else is
an error: no file is removed that may hold what the other lacks.
"""

from __future__ import annotations

from pathlib import Path

from localhpo.errors import StoreError
from localhpo.store import journal, paths
from localhpo.store.errors import as_store_errors


def find_journal(folder: Path) -> Path:
    """Return the file that holds the journal of a study; it need not exist.

    Args:
        folder: of the study.

    Raises:
        StoreError: two files are there that do not belong together, or one of them is damaged.
    """
    new, old = folder / paths.JOURNAL, folder / paths.OLD_JOURNAL
    with as_store_errors(folder, "read"):
        if not old.exists():
            return new
        if not new.exists():
            return old
    try:
        return old if _has_grown(old, new) else new
    except FileNotFoundError:  # a writer has just finished the conversion
        return new


def convert_old_journal(folder: Path) -> None:
    """Replace the `spool.jsonl` of a study, if there is one, by `journal.jsonl`.

    The caller holds the lock of the study. A kill at any point loses nothing; the next call does
    the rest.

    Args:
        folder: of the study.

    Raises:
        StoreError: the old file is damaged, or the new one cannot be written. Nothing is changed.
    """
    new, old = folder / paths.JOURNAL, folder / paths.OLD_JOURNAL
    if find_journal(folder) == old:
        header, source = journal.read_header(old), _describe(old)
        _study_line, *lines = journal.read_lines(old)
        journal.create(new, header.record, (line for line, _ in lines), converted_from=source)
    _remove(old)


def _remove(old: Path) -> None:
    with as_store_errors(old, "remove"):
        if old.exists():
            old.unlink()
            journal.sync_folder(old.parent)


def _has_grown(old: Path, new: Path) -> bool:
    """Return whether lines were appended to the old file since the new one was made from it.

    Raises:
        StoreError: the new one was not made from it, or it has grown too.
    """
    source, now = journal.read_header(new).converted_from, _describe(old)
    if source is not None and source.id == now.id:
        if now.size == source.size:
            return False
        if now.size > source.size and len(list(journal.read_lines(new))) == source.lines:
            return True
    raise StoreError(
        f"{old.parent} holds two journals that do not belong together: {new.name}, and {old.name} "
        "of an older LocalHPO",
        hint="keep both, but move the one that is not of this study to another folder",
    )


def _describe(old: Path) -> journal.Source:
    lines = list(journal.read_lines(old))
    return journal.Source(
        id=journal.read_header(old).journal_id,
        size=lines[-1][1] if lines else 0,
        lines=len(lines),
    )
