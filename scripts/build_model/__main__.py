"""Makes the built-in language model, step by step.

    python -m scripts.build_model train-data   real trainings on generated data (3 h of CPU)
    python -m scripts.build_model generate     questions and answers from all sources (45 min)
    python -m scripts.build_model lessons      what it takes along of them, case by case (1 h)
    python -m scripts.build_model tokenizer    the vocabulary, from the questions
    python -m scripts.build_model train        the model (--budget-s; goes on where it was stopped)
    python -m scripts.build_model export       weights, tokenizer and card to models/sprout
    python -m scripts.build_model evaluate     regrets and losses of models/sprout, into its card
    python -m scripts.build_model all          all of these, in this order

    python -m scripts.build_model leave-out --from WORK --work OTHER
                                               the questions of WORK without the families that
                                               `[learning] base_without` of splits.toml names; the
                                               steps from `tokenizer` on make a base of them

Each step reads what the one before wrote to `--work` (default `.data/sprout`, not in the
repository) and can be run again alone; what exists is kept. `train` may start as soon as the
first questions and the vocabulary are there. `--data` is a folder of public data (default
`.data/public`): yahpo, taskset_adam8p, tabdl_tuning, flaml_default.

Needs the extras `local` and `bench`, and torch-geometric. One CPU thread suffices
for the default size; on a GPU (found by itself) use more: --hidden 256 --layers 8 --heads 4.
Set OMP_NUM_THREADS=1 where the machine is shared.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from localhpo.bench.problems import yahpo
from localhpo.errors import InputError, LocalHPOError
from localhpo.llm.folder.description import META_DATA

from . import corpus, designs, evaluate, export, leaving, lessons, tokenizer, train, trainings

TARGET = Path("models/sprout")


def settings(options: argparse.Namespace) -> train.Settings:
    """Return the model's settings."""
    return train.Settings(
        hidden=options.hidden, layers=options.layers, heads=options.heads,
        budget_s=options.budget_s, seed=options.seed,
    )  # fmt: skip


def step_train_data(options: argparse.Namespace) -> None:
    trainings.main(
        options.work / "trainings.jsonl", options.data_sets, options.evaluations, jobs=options.jobs
    )
    designs.train_networks(options.work, options.network_data_sets, jobs=options.jobs)


def sources(options: argparse.Namespace) -> corpus.Sources:
    """Return where problems come from."""
    names = tuple(options.sources.split(","))
    return corpus.Sources(options.data, options.work / "trainings.jsonl", names)


def step_generate(options: argparse.Namespace) -> None:
    corpus.shards(
        options.work / "questions", sources(options),
        shards=options.shards, problems_each=options.problems, seed=options.seed,
        jobs=options.jobs,
    )  # fmt: skip


def step_lessons(options: argparse.Namespace) -> None:
    target = options.work / META_DATA
    if not lessons.is_whole(target):
        print(f"{lessons.write(sources(options), target, options.seed)} lessons")


def step_leave_out(options: argparse.Namespace) -> None:
    families = yahpo.splits()["learning"]["base_without"]
    left = leaving.leave_out(options.source / "questions", options.work / "questions", families)
    print(f"{left} questions left without {', '.join(families)}")


def step_tokenizer(options: argparse.Namespace) -> None:
    if tokenizer.is_whole(options.work / "model"):
        return  # a vocabulary belongs to the checkpoint that was trained with it
    paths = sorted((options.work / "questions").glob("shard-*.jsonl"))[:5]
    if not paths:
        raise InputError(
            f"{options.work / 'questions'}: no questions", hint="run the step generate first"
        )
    questions = [q for path in paths for q in corpus.load(path)]
    texts = [text for q in questions for text in (q.prompt, *q.answers[:2])]
    made = tokenizer.train(texts, options.work / "model")
    print(f"{made.get_vocab_size()} tokens from {len(questions)} questions")


def step_train(options: argparse.Namespace) -> None:
    print(train.run(options.work, settings(options), max_steps=options.max_steps))


def step_export(options: argparse.Namespace) -> None:
    options.target.mkdir(parents=True, exist_ok=True)
    count = export.weights(options.work, options.target, settings(options), options.average)
    export.card(
        options.work, options.target, count, settings(options), options.name, options.version
    )
    print(f"{count} parameters in {options.target}")


def step_evaluate(options: argparse.Namespace) -> None:
    losses = evaluate.history_loss(options.work, options.target)
    evaluate.keep(options.work / "history.json", evaluate.digest(options.target), losses)
    print(losses)
    evaluate.run(
        options.target, options.data, options.work / "bench.json",
        seeds=options.seeds, jobs=options.jobs, names=options.suites, by=options.creators,
    )  # fmt: skip
    step_export(options)


STEPS: dict[str, Callable[[argparse.Namespace], None]] = {
    "train-data": step_train_data,
    "generate": step_generate,
    "lessons": step_lessons,
    "tokenizer": step_tokenizer,
    "train": step_train,
    "export": step_export,
    "evaluate": step_evaluate,
}


APART: dict[str, Callable[[argparse.Namespace], None]] = {"leave-out": step_leave_out}
"""Steps that are no part of `all`."""


def _listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def main(arguments: list[str] | None = None) -> None:
    """Run one step, or all."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.build_model", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("step", choices=[*STEPS, *APART, "all"])
    parser.add_argument("--data", type=Path, default=Path(".data/public"))
    parser.add_argument("--work", type=Path, default=Path(".data/sprout"))
    parser.add_argument("--from", dest="source", type=Path, default=Path(".data/sprout"))
    parser.add_argument("--target", type=Path, default=TARGET)
    parser.add_argument("--name", default=export.NAME, help="of the model, in its card")
    parser.add_argument(
        "--version", help="of the model, in its card (default: one above that of the card there)"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--data-sets", type=int, default=303, help="generated, to train on")
    parser.add_argument(
        "--network-data-sets", type=int, default=6, help="generated, to train each network on"
    )
    parser.add_argument("--evaluations", type=int, default=160, help="trainings per data set")
    parser.add_argument("--jobs", type=int, default=1, help="processes at once (not for training)")
    parser.add_argument("--sources", default=",".join(corpus.SHARES), help="of questions")
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--problems", type=int, default=500, help="per shard")
    defaults = train.Settings()
    parser.add_argument("--hidden", type=int, default=defaults.hidden)
    parser.add_argument("--layers", type=int, default=defaults.layers)
    parser.add_argument("--heads", type=int, default=defaults.heads)
    parser.add_argument("--budget-s", type=float, default=defaults.budget_s, help="of training")
    parser.add_argument("--max-steps", type=int, help="stop after so many steps, to go on later")
    parser.add_argument(
        "--average", type=Path, action="append", default=[], metavar="WORK",
        help="export the mean with the checkpoint in this folder, of an earlier part of the same"
        " training",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=8, help="of the suites to evaluate on")
    parser.add_argument(
        "--suites", type=_listed, metavar="NAME,...",
        help=f"to evaluate on (default: those of {','.join(evaluate.SUITES)} whose data are there)",
    )  # fmt: skip
    parser.add_argument(
        "--creators", type=_listed, metavar="NAME,...",
        help=f"to compare there (default: {','.join(evaluate.CREATORS)})",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        for name in STEPS if options.step == "all" else [options.step]:
            (STEPS | APART)[name](options)
    except LocalHPOError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        parser.exit(error.exit_code, f"error: {error}{hint}\n")


if __name__ == "__main__":
    main()
