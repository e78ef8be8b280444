"""Models of a user's own, from `models add` to a study, and which of them fit the machine."""

import json
import shutil

import pytest
from tiny_model import edit_json, make_model

from localhpo.cli import main
from localhpo.cli.doctor import checks, memory_fit
from localhpo.cli.models import views
from localhpo.llm.models import registry as model_registry
from localhpo.llm.vllm.settings import Settings, server_command
from localhpo.resources.placement import Gpu, Inventory

LONG = 32768
"""Tokens: the tiny tokenizer needs more than a real one for the same prompt."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("made") / "Oak", max_position_embeddings=LONG)


@pytest.fixture
def folder(made, tmp_path):
    return shutil.copytree(made, tmp_path / "Oak")


def shown(capsys):
    return capsys.readouterr().out


def test_a_model_is_added_and_shown(folder, capsys):
    assert main(["models", "add", str(folder), "--name", "oak"]) == 0
    told = shown(capsys)
    assert "license" in told and "Use it: localhpo run TASK --model oak" in told
    assert "KV cache 16,384 x 512 B = 8 MB" in told
    assert main(["models", "show", "oak", "--tokens", "100", "--json"]) == 0
    record = json.loads(shown(capsys))
    assert record["memory"]["kv_bytes"] == (100 + 8 * 1024) * 512
    assert record["state"] == "verified" and record["path"] == str(folder)
    asked = {"context_tokens": 100, "name": "oak", "port": 1, "on_cpu": False}
    assert str(record["memory"]["kv_bytes"]) in server_command(Settings(), folder, **asked)
    assert set(record["files"]) >= {"config.json", "model.safetensors", "tokenizer.json"}


def test_a_model_that_is_refused_leaves_2_or_1_and_a_hint(folder, tmp_path, capsys):
    (folder / "pytorch_model.bin").touch()
    assert main(["models", "add", str(folder)]) == 1
    assert "hint:" in capsys.readouterr().err
    assert main(["models", "add", str(tmp_path / "nowhere")]) == 2


def test_no_path_is_not_the_current_folder(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    assert main(["models", "add", ""]) == 2
    assert "PATH must be a model folder" in capsys.readouterr().err
    assert main(["models", "add", "."]) == 0


def test_a_model_that_transformers_does_not_support_is_noted(folder, capsys):
    assert main(["models", "add", str(folder)]) == 0
    assert "does not support" not in shown(capsys)
    edit_json(folder / "config.json", model_type="oak", architectures=["OakForCausalLM"])
    assert main(["models", "add", str(folder)]) == 0
    told = "does not support model_type oak, architecture OakForCausalLM"
    assert told in shown(capsys)


@pytest.mark.parametrize(
    ("number", "told"),
    [
        (999, "999"),
        (999_400, "999k"),
        (999_885_952, "1B"),
        (8_190_735_360, "8.19B"),
        (1_040_000_000_000, "1.04T"),
    ],
)
def test_numbers_of_parameters_have_three_digits(number, told):
    assert views.parameter_count(number) == told


def test_verify_lists_what_changed(folder, capsys):
    main(["models", "add", str(folder)])
    capsys.readouterr()
    assert main(["models", "verify", "Oak"]) == 0
    assert shown(capsys) == "Oak: unchanged\n"
    edit_json(folder / "config.json", rms_norm_eps=1.0)
    (folder / "tokenizer_config.json").unlink()
    (folder / "added_tokens.json").write_text("{}")
    assert main(["models", "verify", "--json"]) == 1
    found = {row["name"]: row["changes"] for row in json.loads(shown(capsys))}
    assert found["sprout"] == []
    words = ("is not the file", "is missing", "is not listed")
    assert len(found["Oak"]) == 3
    assert all(word in change for word, change in zip(words, found["Oak"], strict=True))


def test_profiles_are_listed_until_a_folder_agrees(made, tmp_path, capsys):
    assert main(["models", "list"]) == 0
    assert "qwen3-8b" in shown(capsys)
    folder = shutil.copytree(made, tmp_path / "Qwen3-8B")
    assert main(["models", "add", str(folder)]) == 0
    assert "the model differs from the profile qwen3-8b: context length" in shown(capsys)
    assert main(["models", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(shown(capsys))}
    assert rows["qwen3-8b"]["state"] == "profile" and rows["qwen3-8b"]["added_as"] == ""
    card = model_registry.read_card(folder)
    place = model_registry.registry_folder() / "Qwen3-8B" / "card.toml"
    place.write_text(
        model_registry.render_card(card).replace("dtype =", 'profile = "qwen3-8b"\ndtype =', 1)
    )
    assert main(["models", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(shown(capsys))}
    assert rows["qwen3-8b"]["added_as"] == "Qwen3-8B"


def test_a_profile_is_shown(capsys):
    assert main(["models", "show", "gpt-oss-20b"]) == 0
    told = shown(capsys)
    assert "reasoning_effort: low" in told and "mxfp4" in told and "weights 13.1 GB" in told


def test_an_added_model_proposes_in_a_study(folder, tmp_path, capsys, monkeypatch):
    """From the folder to the trials, with the transformers backend and no engine in its place."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(
        "import sys\nfrom localhpo.reporter import report\nreport(loss=float(sys.argv[2]))\n"
    )
    (tmp_path / "task.toml").write_text(
        '[task]\nname = "t"\ncommand = ["python", "train.py"]\nmetric = "loss"\n'
        'direction = "minimize"\n[space]\nlr = { type = "float", low = 0.1, high = 1.0 }\n'
        "[budget]\ntrials = 2\n"
    )
    assert main(["models", "add", str(folder), "--name", "oak"]) == 0
    capsys.readouterr()
    run = ["run", "task.toml", "--model", "oak", "--creator", "agent", "--json", "--quiet"]
    assert main(run) == 0, capsys.readouterr().err
    capsys.readouterr()
    assert main(["trials", "task.toml", "--json"]) == 0
    proposals = [trial["proposal"] for trial in json.loads(shown(capsys))]
    assert [proposal["origin"] for proposal in proposals] == ["llm"] * 2
    digest = model_registry.read_card(folder).digest
    assert {proposal["model_digest"] for proposal in proposals} == {digest}


# What fits


def checks_by_name(inventory):
    return {check.name: check for check in memory_fit.check_memory_fits(inventory)}


def test_models_and_profiles_are_compared_with_the_largest_gpu(folder, capsys):
    main(["models", "add", str(folder), "--name", "oak"])
    gpus = (Gpu("0", "small", 8192.0), Gpu("1", "large", 24564.0))
    told = checks_by_name(Inventory(cpus=4, memory_mb=64_000, gpus=gpus))
    assert "gpu 1" in told["memory for models"].finding
    assert told["fit oak"].detail.startswith("weights ")
    eight = told["profile qwen3-8b"]
    # 16,381,470,720 bytes of weights; a context of 8,192 and 8 answers of 1,024; 2 GiB.
    assert eight.finding == "fits: needs 20.0 GB of 24.6 GB"
    assert eight.detail == (
        "weights 15.6 GB + KV cache 16,384 x 147,456 B = 2.3 GB + activations 2.0 GB = 20.0 GB"
    )
    assert told["profile qwen3-14b"].finding.startswith("too large: needs ")
    assert told["profile qwen3-14b"].detail.startswith("weights 28.2 GB")


def test_a_folder_without_a_card_is_compared_too(folder, monkeypatch):
    monkeypatch.setenv("LOCALHPO_MODELS", str(folder.parent))
    told = checks_by_name(Inventory(cpus=1, memory_mb=24_000, gpus=()))
    assert told["fit Oak"].finding.startswith("fits: needs ")


def test_a_model_too_large_for_one_gpu_may_fit_several():
    gpus = tuple(Gpu(str(number), memory_mb=24_564.0) for number in range(3))
    told = checks_by_name(
        Inventory(cpus=4, memory_mb=64_000, gpus=(*gpus, Gpu("3", memory_mb=8_192.0)))
    )
    fourteen = told["profile qwen3-14b"]
    assert fourteen.finding.startswith("fits 2 GPUs (model_gpus = 2): needs ")
    assert fourteen.finding.endswith(" of 24.6 GB each")
    assert fourteen.detail.startswith("weights 14.1 GB")
    assert told["profile qwen3-8b"].finding.startswith("fits: needs ")
    # It would fit four GPUs of that size.
    assert told["profile qwen3-30b-a3b"].fits is False


def test_without_a_gpu_32_bit_weights_are_compared_with_the_ram():
    told = checks_by_name(Inventory(cpus=4, memory_mb=24_000, gpus=()))
    assert "RAM" in told["memory for models"].finding
    assert told["profile qwen3-4b"].fits
    assert told["profile qwen3-4b"].detail.startswith("weights 15.3 GB")
    assert told["profile gpt-oss-20b"].detail.startswith("weights 79.8 GB")


def test_a_model_that_is_too_large_is_a_note(folder, capsys):
    main(["models", "add", str(folder), "--name", "oak"])
    told = checks_by_name(Inventory(cpus=1, memory_mb=500, gpus=()))
    assert told["fit oak"].state == "note" and told["fit oak"].hint
    assert told["profile qwen3-8b"].state == "ok"  # no problem: it is not here


def test_gpus_of_unknown_memory_are_a_note():
    told = checks_by_name(Inventory(cpus=1, memory_mb=500, gpus=(Gpu("0"),)))
    assert [(check.name, check.state) for check in told.values()] == [("memory for models", "note")]


def test_doctor_checks_which_models_fit(capsys):
    assert "fit sprout" in {check.name for check in checks.all_checks()}
