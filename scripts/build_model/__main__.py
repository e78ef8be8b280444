"""Builds the built-in language model, step by step.

    python -m scripts.build_model train-data   real trainings on generated data (3 h of CPU)
    python -m scripts.build_model generate     questions and answers from all sources (45 min)
    python -m scripts.build_model meta-data    its meta-data: results on past data sets (1 h)
    python -m scripts.build_model tokenizer    the vocabulary, from the questions
    python -m scripts.build_model train        the model (--budget-s; continues an earlier run)
    python -m scripts.build_model export       weights, tokenizer and card to models/sprout
    python -m scripts.build_model evaluate     regrets and losses of models/sprout, into its card
    python -m scripts.build_model all          all of these, in this order

    python -m scripts.build_model leave-out --from WORK --work OTHER
                                               copy the questions of WORK without the families in
                                               `[learning] base_without` of splits.toml; the steps
                                               from `tokenizer` on build a base model from them

Each step reads what the step before wrote to `--work` (default `.data/sprout`, not in the
repository) and can be run again alone; files that exist are kept. `train` may start as soon as
there are a first shard and the vocabulary. `--data` is a folder of public data (default
`.data/public`): yahpo, taskset_adam8p, tabdl_tuning, flaml_default.

Needs the extras `local` and `bench`, and torch-geometric. One CPU thread is
enough for the default size; on a GPU, which is used where there is one, build a larger model:
--hidden 256 --layers 8 --heads 4. Set OMP_NUM_THREADS=1 where the machine is shared.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from localhpo.errors import InputError, LocalHPOError
from localhpo.llm.models.description import META_DATA
from scripts.benchmarks.problems import yahpo

from . import (
    corpus,
    designs,
    evaluate,
    export,
    leave_out,
    meta_data,
    tokenizer,
    train,
    trainings,
)

TARGET = Path("models/sprout")


def read_settings(options: argparse.Namespace) -> train.TrainSettings:
    """Return the model's settings."""
    return train.TrainSettings(
        hidden=options.hidden, layers=options.layers, heads=options.heads,
        budget_s=options.budget_s, seed=options.seed,
    )  # fmt: skip


def step_train_data(options: argparse.Namespace) -> None:
    trainings.main(
        options.work / "trainings.jsonl", options.data_sets, options.evaluations, jobs=options.jobs
    )
    designs.train_networks(options.work, options.network_data_sets, jobs=options.jobs)


def read_sources(options: argparse.Namespace) -> corpus.Sources:
    """Return the sources of problems."""
    names = tuple(options.sources.split(","))
    return corpus.Sources(options.data, options.work / "trainings.jsonl", names)


def step_generate(options: argparse.Namespace) -> None:
    corpus.write_shards(
        options.work / "questions", read_sources(options),
        shards=options.shards, problems_each=options.problems, seed=options.seed,
        jobs=options.jobs,
    )  # fmt: skip


def step_meta_data(options: argparse.Namespace) -> None:
    target = options.work / META_DATA
    if not meta_data.is_complete(target):
        print(
            f"{meta_data.write_meta_data(read_sources(options), target, options.seed)} source tasks"
        )


def step_leave_out(options: argparse.Namespace) -> None:
    families = yahpo.splits()["learning"]["base_without"]
    kept = leave_out.copy_without(
        options.source / "questions", options.work / "questions", families
    )
    print(f"{kept} questions remain without {', '.join(families)}")


def step_tokenizer(options: argparse.Namespace) -> None:
    if tokenizer.is_complete(options.work / "model"):
        return  # a checkpoint that was trained with it needs it
    paths = sorted((options.work / "questions").glob("shard-*.jsonl"))[:5]
    if not paths:
        raise InputError(
            f"{options.work / 'questions'}: no questions", hint="run the step generate first"
        )
    questions = [q for path in paths for q in corpus.load(path)]
    texts = [text for q in questions for text in (q.prompt, *q.answers[:2])]
    made = tokenizer.train_tokenizer(texts, options.work / "model")
    print(f"{made.get_vocab_size()} tokens from {len(questions)} questions")


def step_train(options: argparse.Namespace) -> None:
    print(train.train(options.work, read_settings(options), max_steps=options.max_steps))


def step_export(options: argparse.Namespace) -> None:
    options.target.mkdir(parents=True, exist_ok=True)
    count = export.write_weights(
        options.work, options.target, read_settings(options), options.average
    )
    export.write_card(
        options.work, options.target, count, read_settings(options), options.name, options.version
    )
    print(f"{count} parameters in {options.target}")


def step_evaluate(options: argparse.Namespace) -> None:
    losses = evaluate.measure_history_loss(options.work, options.target)
    evaluate.write_numbers(
        options.work / "history.json", evaluate.compute_digest(options.target), losses
    )
    print(losses)
    evaluate.run_suites(
        options.target, options.data, options.work / "bench.json",
        seeds=options.seeds, jobs=options.jobs, names=options.suites, by=options.creators,
    )  # fmt: skip
    step_export(options)


STEPS: dict[str, Callable[[argparse.Namespace], None]] = {
    "train-data": step_train_data,
    "generate": step_generate,
    "meta-data": step_meta_data,
    "tokenizer": step_tokenizer,
    "train": step_train,
    "export": step_export,
    "evaluate": step_evaluate,
}


OTHER_STEPS: dict[str, Callable[[argparse.Namespace], None]] = {"leave-out": step_leave_out}
"""Steps that are not part of `all`."""


def _listed(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def main(arguments: list[str] | None = None) -> None:
    """Run one step, or all steps."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.build_model", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("step", choices=[*STEPS, *OTHER_STEPS, "all"])
    parser.add_argument("--data", type=Path, default=Path(".data/public"))
    parser.add_argument("--work", type=Path, default=Path(".data/sprout"))
    parser.add_argument("--from", dest="source", type=Path, default=Path(".data/sprout"))
    parser.add_argument("--target", type=Path, default=TARGET)
    parser.add_argument("--name", default=export.NAME, help="name in the card")
    parser.add_argument(
        "--version", help="version in the card (default: one above that of the existing card)"
    )
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--data-sets", type=int, default=303, help="number of generated data sets")
    parser.add_argument(
        "--network-data-sets",
        type=int,
        default=6,
        help="number of generated data sets for each network",
    )
    parser.add_argument("--evaluations", type=int, default=160, help="trainings per data set")
    parser.add_argument(
        "--jobs", type=int, default=1, help="number of processes (not for the step train)"
    )
    parser.add_argument("--sources", default=",".join(corpus.SHARES), help="sources of questions")
    parser.add_argument("--shards", type=int, default=20)
    parser.add_argument("--problems", type=int, default=500, help="problems per shard")
    defaults = train.TrainSettings()
    parser.add_argument("--hidden", type=int, default=defaults.hidden)
    parser.add_argument("--layers", type=int, default=defaults.layers)
    parser.add_argument("--heads", type=int, default=defaults.heads)
    parser.add_argument(
        "--budget-s", type=float, default=defaults.budget_s, help="seconds of training"
    )
    parser.add_argument(
        "--max-steps", type=int, help="stop after this many steps; a later run continues"
    )
    parser.add_argument(
        "--average", type=Path, action="append", default=[], metavar="WORK",
        help="average the weights with the checkpoint in this folder, from an earlier part of the"
        " same training",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, default=8, help="seeds of each problem in `evaluate`")
    parser.add_argument(
        "--suites", type=_listed, metavar="NAME,...",
        help=f"suites to evaluate on (default: of {','.join(evaluate.SUITES)} those with data)",
    )  # fmt: skip
    parser.add_argument(
        "--creators", type=_listed, metavar="NAME,...",
        help=f"Creators to compare (default: {','.join(evaluate.CREATORS)})",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    try:
        for name in STEPS if options.step == "all" else [options.step]:
            (STEPS | OTHER_STEPS)[name](options)
    except LocalHPOError as error:
        hint = f"\nhint: {error.hint}" if error.hint else ""
        parser.exit(error.exit_code, f"error: {error}{hint}\n")


if __name__ == "__main__":
    main()
