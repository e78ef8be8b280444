"""Finds words in the tree that are not those of the field: `python scripts/check_words.py`.

Part of `scripts/check`. Coined names make code and messages hard to read for somebody who knows
Optuna, vLLM or SQLite, so each has one replacement, listed here. Identifiers are split at
underscores and capitals: `_take_up` and `SpoolWriter` are found as `take up` and `spool`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

WORDS = {
    # Creator
    "opinions?|beliefs?|believed": "prior",
    "leans?|leaning": "guided by the prior",
    "thoughts?": "samples",
    "taught|teach(?:er|es|ing)?|lessons?": "meta-data, source task",
    "kin|kinship|strangers?|strangeness": "similar space, unknown space",
    "memories|remember(?:s|ed|ing)?": "retrieved studies, retrieval",
    "openers?": "initial design",
    "misfits?": "invalid",
    "excused?": "fallback",
    "tally|tallies": "win rate",
    # Scheduler
    "tenants?|tenanc(?:y|ies)": "ModelResidency",
    "bulletins?": "event",
    "ledgers?": "TrialTable, ResourceBroker",
    "drafts?": "prefetched proposals",
    "audience": "EventBus",
    "accountants?": "usage accounting",
    "take up|takes up": "recover",
    "reckon(?:s|ed|ing)?": "recompute",
    "stir(?:s|red)?": "mark_dirty",
    "heed(?:s|ed)?": "check",
    "farewell": "shutdown_timeout_s",
    "hopeless": "max_initial_failures",
    # Store, study, models
    "spools?|spooled": "journal",
    "inbox": "enqueued",
    "wording": "formatting",
    "shelf|shelves|shelving": "model registry",
    "hindsight": "relabelling",
    # American English
    r"(?:optimi|minimi|maximi|normali|standardi|initiali|organi|recogni|quanti|utili|summari)"
    r"s(?:e|es|ed|er|ers|ing|ation|ations)": "-ize",
    "centres?|centred": "center",
    "licences?": "license",
    "colou?rs?(?<=our)|colours": "color",
    "behaviou?rs?(?<=our)|behaviours": "behavior",
    "neighbours?|neighbourhoods?|neighbouring": "neighbor",
    "favourites?|labelled|modelled|catalogues?|grey": "American spelling",
}
"""Regular expression of a word (in lower case) -> what to write instead."""

CLASSES = (
    "Accountant", "Audience", "Belief", "Bulletin", "Carrier", "Course", "Drafts", "Expectation",
    "Guard", "Ledger", "Machine", "Memory", "News", "Numbers", "Past", "Rest", "Room", "Standing",
    "Supply", "Surface", "Teacher", "Tenancy", "Tenant", "Told",
)  # fmt: skip
"""Classes that were renamed: these names may not come back."""

PHRASES = {
    r"\bstand[-_]ins?\b|\bstands? in for\b": "fallback; in tests: fake",
    r'"""Of (?:all|the|each|an?|its|those|this)\b': "a docstring begins with a verb or a noun",
    r'"engine:|"model\+|\bmodel\+bo\b|\bexperience\+bo\b': "origins are spelled as `Origin` does",
}

ALLOWED = {
    "scripts/check_words.py": "the list itself",
    "localhpo/store/schema.py": "released migrations never change",
    "tests/golden": "what version 0.1.0 proposed and printed",
    "tests/written_by_0.1.0": "files of version 0.1.0",
    "tests/test_words.py": "examples",
    "tests/test_old_files.py": "reads files of version 0.1.0",
    "tests/store/test_store_old_files.py": "reads files of version 0.1.0",
}
"""File or folder -> why it may hold such words."""

ALLOWED_WORDS: dict[tuple[str, str], str] = {
    ("localhpo/transfer/source_tasks.py", "lessons"): "a key of the file format",
    ("localhpo/llm/models/description.py", "lessons"): "a file name in the model's digest",
    ("models/sprout/README.md", "lessons"): "a file name in the model's digest",
    ("models/sprout/card.toml", "lessons"): "a file name in the model's digest",
    ("models/sprout/tokenizer.json", "neighbours"): "the vocabulary of the model",
    ("localhpo/llm/models/description.py", "licence"): "a file name that models use",
    ("localhpo/analysis/records.py", "utilisation"): "a JSON key of version 0.1.0",
    ("localhpo/study/session.py", "inbox"): "the folder of version 0.1.0 is read",
    ("tests/study/test_study_by_hand.py", "inbox"): "the same",
    ("localhpo/trial.py", '"engine:'): "origins of version 0.1.0 are read",
    ("tests/test_objective.py", '"engine:'): "the same",
    ("tests/test_objective.py", '"model+'): "the same",
    ("tests/test_objective.py", "experience+bo"): "the same",
    ("tests/test_golden.py", '"engine:'): "the same",
    ("localhpo/tasks/images.py", "draft"): "a method of Pillow",
    ("scripts/benchmarks/comparison.py", "stand_ins"): "a JSON key of version 0.1.0",
    (
        "scripts/benchmarks/agenthpo/training_cache.py",
        "utilisation",
    ): "files of version 0.1.0 are read",
    ("scripts/benchmarks/problems/yahpo.py", "neighbours"): "a text that the model was trained on",
    ("localhpo/store/conversion.py", "spool"): "files of version 0.1.0 are read",
    ("localhpo/store/paths.py", "spool"): "the same",
    ("localhpo/store/journal.py", "spool"): "the same",
    ("localhpo/store/journal.py", "utilisation"): "the same",
    ("scripts/benchmarks/results.py", "lessons"): "names of version 0.1.0 are read",
    ("scripts/benchmarks/results.py", "centre"): "the same",
    ("tests/benchmarks/test_bench_results.py", "centre"): "the same",
    ("tests/benchmarks/test_agenthpo_training_cache.py", "utilisation"): "the same",
    ("tests/creator/test_creator_meta_data.py", "lessons"): "a file name in the model's digest",
    ("scripts/build_model/learners.py", "neighbours"): "a text that the model was trained on",
}
"""(File, word) -> why this word may stand in this file."""

SEARCHED = ("localhpo", "scripts", "tests", "prompts", "models", "README.md", "Containerfile")
TRAINED_ON = "prompts/compact.txt.j2"
"""The built-in model was trained on this template: it stays byte for byte."""

_WORD = re.compile(r"\b(" + "|".join(f"(?:{word})" for word in WORDS) + r")\b")
_CLASS = re.compile(r"^class (" + "|".join(CLASSES) + r")\b")
_BOUNDARY = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|_+")


def find_words(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield (line number, word, what to write instead) of each word that goes."""
    for number, line in enumerate(text.splitlines(), start=1):
        plain = _BOUNDARY.sub(" ", line).lower()
        for found in _WORD.finditer(plain):
            instead = next(new for word, new in WORDS.items() if re.fullmatch(word, found[1]))
            yield number, found[1], instead
        if found := _CLASS.search(line):
            yield number, found[1], "the name that its package uses now"
        for phrase, instead in PHRASES.items():
            if found := re.search(phrase, line):
                yield number, found[0], instead


def main() -> int:
    """Print every word that goes; return how a shell should see it."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "--", *SEARCHED],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    found = 0
    for name in listed:
        path = ROOT / name
        if any(f"{name}/".startswith(f"{place}/") for place in (*ALLOWED, TRAINED_ON)):
            continue
        if not path.is_file():
            continue
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, word, instead in find_words(text):
            if (name, word) not in ALLOWED_WORDS:
                print(f"{name}:{number}: {word!r} is not a word of the field: write {instead}")
                found += 1
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
