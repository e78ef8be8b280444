"""The script for machines with a GPU, on fakes: what its checks accept and reject."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import fake_nvml
import psutil
import pytest

from localhpo.llm.scripted import ScriptedBackend
from localhpo.trial import Cause, Failure, Origin, Proposal, State, Trial, Usage
from scripts.gpu_smoke import __main__ as smoke
from scripts.gpu_smoke import device, model, studies
from scripts.gpu_smoke.verdict import FailedError, SkippedError, run_check

ROOT = Path(__file__).resolve().parents[2]
TOTAL_MB, DRIVER_MB = 16_200.0, 200.0


class LiveDevice(fake_nvml.Device):
    """A device that holds what the programs recorded (see `fake_torch`)."""

    def __init__(self, notes: Path) -> None:
        self._notes = notes
        super().__init__(total_mb=TOTAL_MB, utilization=70)

    def __getattribute__(self, name: str) -> object:
        if name == "processes":
            return self._held()
        if name == "used_mb":
            return DRIVER_MB + sum(self._held().values())
        return super().__getattribute__(name)

    def _held(self) -> dict[int, float]:
        numbers = [int(note.name) for note in self._notes.iterdir()]
        alive = [pid for pid in numbers if psutil.pid_exists(pid)]
        return {pid: float((self._notes / str(pid)).read_text() or 0) for pid in alive}


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> device.Bench:
    """A device for the programs, which import a fake of torch from their folder."""
    notes, programs, folder = tmp_path / "notes", tmp_path / "programs", tmp_path / "bench"
    notes.mkdir()
    folder.mkdir()
    shutil.copytree(device.PROGRAMS, programs)
    shutil.copy(Path(__file__).parent / "fake_torch.py", programs / "torch.py")
    for name, slow, quick in (
        ("train.py", "LENGTH_S = 12.0", "LENGTH_S = 4.0"),
        ("allocate_too_much.py", "sleep(0.8)", "sleep(0.3)"),
    ):
        text = (programs / name).read_text()
        assert slow in text
        (programs / name).write_text(text.replace(slow, quick))
    monkeypatch.setenv("FAKE_GPU", str(notes))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml.make_fake_nvml([LiveDevice(notes)]))
    monkeypatch.setattr(device, "PROGRAMS", programs)
    monkeypatch.setattr(studies, "PROGRAMS", programs)
    (gpu,) = smoke.devices.find_gpus()
    return device.Bench(gpu, folder)


def make_ended(number: int, start: float, end: float, state: State = State.COMPLETE) -> Trial:
    proposal = Proposal({"mb": 300}, Origin.parse("llm"))
    return Trial(number, state, proposal, started_at=start, finished_at=end)


def test_without_a_gpu_nothing_is_checked() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "scripts.gpu_smoke"],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "no NVIDIA GPU" in done.stdout and "ok" not in done.stdout


@pytest.mark.parametrize(
    "check", [device.check_totals, device.check_growth, device.check_meter, device.check_inventory]
)
def test_right_numbers_pass(check, bench: device.Bench) -> None:
    assert " MB" in check(bench)


def test_wrong_numbers_fail(bench: device.Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    measure = device.footprint.measure_device_mb
    monkeypatch.setattr(
        device.footprint, "measure_device_mb", lambda pid, gpu: measure(pid, gpu) / 2
    )
    with pytest.raises(FailedError, match="memory of the process"):
        device.check_growth(bench)


def test_unreported_processes_skip_the_check(
    bench: device.Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    library: ModuleType = sys.modules["pynvml"]
    monkeypatch.setattr(library, "nvmlDeviceGetComputeRunningProcesses", lambda _device: [])
    with pytest.raises(SkippedError, match="memory by process"):
        device.check_growth(bench)


def test_trials_that_never_ran_at_once_fail() -> None:
    in_turn = [make_ended(0, 1.0, 2.0), make_ended(1, 2.0, 3.0)]
    assert studies.count_most_at_once(in_turn) == 1
    assert studies.count_most_at_once([*in_turn, make_ended(2, 2.5, 4.0)]) == 2
    with pytest.raises(FailedError, match="at most 1"):
        studies.describe_shared_device(
            in_turn, [], studies.make_task("train", "random", studies.SPACE, {})
        )
    with pytest.raises(FailedError, match="ended as complete, failed"):
        failed = make_ended(1, 1.0, 2.0, State.FAILED)
        task = studies.make_task("train", "random", studies.SPACE, {})
        studies.describe_shared_device([in_turn[0], failed], [], task)


def test_the_record_of_a_trial_out_of_memory_is_checked() -> None:
    right = replace(
        make_ended(0, 1.0, 9.0, State.FAILED),
        failure=Failure(Cause.OUT_OF_MEMORY_DEVICE, "the device ran out of memory"),
        usage=Usage(peak_gpu_memory_mb=14_400.0),
    )
    assert "14400 MB of 16000 MB" in studies.describe_out_of_memory([right], 16_000.0)
    for wrong in (
        replace(right, state=State.COMPLETE, values=(0.5,)),
        replace(right, failure=Failure(Cause.EXIT_CODE, "exit code 1")),
        replace(right, usage=Usage()),
        replace(right, usage=Usage(peak_gpu_memory_mb=400.0)),
    ):
        with pytest.raises(FailedError):
            studies.describe_out_of_memory([wrong], 16_000.0)


def test_a_check_that_raises_is_a_failure(capsys: pytest.CaptureFixture[str]) -> None:
    def broken() -> str:
        raise OSError("no such device")

    assert not run_check("broken", broken)
    assert run_check("fine", lambda: "1 and 1 MB")
    assert capsys.readouterr().out == (
        "FAILED   broken: OSError: no such device\nok       fine: 1 and 1 MB\n"
    )


@pytest.mark.slow
def test_all_checks_on_fakes(
    bench: device.Bench, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from localhpo.llm import transformers

    real = transformers.TransformersBackend
    monkeypatch.setattr(transformers, "TransformersBackend", lambda folder, device: real(folder))
    monkeypatch.setattr(model, "has_vllm", lambda: False)
    assert smoke.run_checks(bench), capsys.readouterr().out
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*["ok"] * 6, "skipped", "ok"]
    assert "out of device memory" in lines[4] and "4 trials, 2 at once" in lines[7]


class SleepingServer:
    """A server that holds some memory of the device awake, and less or as much asleep."""

    def __init__(self, awake_mb: float, asleep_mb: float) -> None:
        self._note = Path(os.environ["FAKE_GPU"]) / str(os.getpid())
        self._awake_mb, self._asleep_mb = awake_mb, asleep_mb
        self.wake()

    def sleep(self, _level: int) -> None:
        self._note.write_text(str(self._asleep_mb))

    def wake(self) -> None:
        self._note.write_text(str(self._awake_mb))


def test_memory_freed_by_sleep_is_measured(bench: device.Bench) -> None:
    answer = '{"side":"left","count":420}'
    backend = ScriptedBackend(lambda *_: answer)
    slept = model.check_sleep(
        bench, model.OpenedModel(backend, SleepingServer(900.0, 300.0), opened_s=1.0)
    )
    assert slept.count("frees 600 MB") == 2
    with pytest.raises(FailedError, match="frees 0 MB"):
        model.check_sleep(
            bench, model.OpenedModel(backend, SleepingServer(900.0, 900.0), opened_s=1.0)
        )
