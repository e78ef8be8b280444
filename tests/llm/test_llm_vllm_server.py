"""The managed server with a fake vLLM that fails in various ways.

What the real vLLM does is seen in test_llm_vllm_real.py and in the contract of backends.
"""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from fake_vllm import calls

from localhpo.errors import (
    BackendError,
    InputError,
    MissingExtraError,
)
from localhpo.llm import AnswerConstraint, Message, open_backend
from localhpo.llm.protocol import GenerationRequest
from localhpo.llm.vllm import ManagedServer, Settings, VllmBackend, builds
from localhpo.llm.vllm.memory import WORK_BYTES
from localhpo.llm.vllm.process import find_reason
from localhpo.llm.vllm.server import is_genuine
from localhpo.llm.vllm.server_registry import ServerRecord, ServerSlot

ASKED = [Message("user", "Propose.")]
CONSTRAINT = AnswerConstraint('start: "{\\"a\\":" /[1-9]/ "}"', {"type": "object"})

Make = Callable[..., ManagedServer]


def record_of(server: ManagedServer) -> ServerRecord:
    record = ServerSlot(server.adapter_folder.parent).read()
    assert record is not None
    return record


def is_gone(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    return True


# Start and end


def test_a_server_is_private_and_ends_with_its_child_processes(
    make: Make,
) -> None:
    server = make()
    assert (server.running, server.pid, server.sleeping) == (False, None, False)
    server.start()
    record = record_of(server)
    assert server.running
    assert not server.shared
    assert server.pid == record.pid
    (child,) = psutil.Process(record.pid).children()
    command = child.cmdline()
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert record.key not in " ".join(command)
    assert len(record.key) > 30
    private = [
        server.adapter_folder.parent / "server.json",
        server.adapter_folder.parent,
        server.adapter_folder.parent.parent,
    ]
    assert [stat.S_IMODE(path.stat().st_mode) for path in private] == [0o600, 0o700, 0o700]
    server.stop()
    server.stop()
    assert is_gone(child.pid)
    assert is_gone(record.pid)
    assert (server.running, server.pid, server.sleeping) == (False, None, False)
    server.start()
    assert record_of(server).key != record.key


def test_the_environment_is_offline(make: Make) -> None:
    server = make(settings=Settings(threads=2))
    server.start()
    (child,) = psutil.Process(server.pid).children()
    seen = child.environ()
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK"):
        assert seen[name] == "1"
    assert seen["OMP_NUM_THREADS"] == "2"
    assert seen["CUDA_DEVICE_ORDER"] == "PCI_BUS_ID"  # an index is what the placement takes it for


def test_a_failed_start_reports_the_error(make: Make) -> None:
    server = make("crashes")
    with pytest.raises(BackendError, match=r"did not start: ValueError: no room for the KV") as got:
        server.start()
    assert not server.running
    log = Path(got.value.hint.removeprefix("its log: "))
    assert "See root cause above" in log.read_text()


def test_a_hanging_start_times_out_and_is_cleaned_up(make: Make) -> None:
    server = make("hangs", start_s=3)
    with pytest.raises(BackendError, match=r"within 3 s; the end of its log:\n  INFO loading"):
        server.start()
    assert not [p for p in psutil.Process().children(recursive=True) if "vllm" in p.cmdline()]


def test_a_server_of_another_model_fails_the_start(make: Make) -> None:
    with pytest.raises(BackendError, match="did not answer within"):
        make("other", start_s=2).start()


@pytest.mark.parametrize(
    ("sign", "hint"),
    [
        ("dev/nvidiactl", "pip install 'localhpo[vllm]'"),
        ("proc/driver/nvidia/gpus", "pip install 'localhpo[vllm]'"),
        ("dev/null", "scripts/install_vllm_cpu"),
    ],
)
def test_without_vllm_the_error_says_what_to_install(
    sign: str, hint: str, sprout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / sign).parent.mkdir(parents=True)
    (tmp_path / sign).touch()
    monkeypatch.setattr(builds, "ROOT", tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as caught:
        open_backend("vllm", model=str(sprout))
    assert caught.value.hint.startswith(hint)


# A second study


def test_a_second_process_adopts_the_server(make: Make) -> None:
    first, second = make(), make()
    first.start()
    second.start()
    assert second.pid == first.pid
    assert first.shared and second.shared
    second.stop()
    assert first.running
    assert not first.shared
    assert (
        VllmBackend(first, owned=False).generate(GenerationRequest(ASKED, CONSTRAINT))[0].text
        == '{"a":3}'
    )


def test_other_settings_start_another_server(make: Make) -> None:
    first, second = make(), make(settings=Settings(answers=4))
    first.start()
    second.start()
    assert second.pid != first.pid
    assert not second.shared


@contextmanager
def misled(server: ManagedServer, **changes: Any) -> Iterator[None]:
    """Change the record of a running server."""
    path = server.adapter_folder.parent / "server.json"
    true = path.read_text()
    path.write_text(json.dumps({**json.loads(true), **changes}))
    yield
    path.write_text(true)


@pytest.mark.parametrize("changes", [{"key": "sesame"}, {"port": 9}])
def test_an_unverified_server_is_not_adopted(make: Make, changes: dict[str, Any]) -> None:
    first, second = make(), make()
    first.start()
    with misled(first, **changes):
        second.start()
    assert second.pid != first.pid
    assert not second.shared
    assert first.running


def test_a_server_is_verified_by_key_and_model(make: Make, program: Any) -> None:
    server = make()
    server.start()
    record = record_of(server)
    assert is_genuine(record, server.name)
    assert not is_genuine(record, "another@0123")
    server.stop()
    assert not is_genuine(record, server.name)
    with pytest.raises(BackendError, match="did not answer"):
        make("open", start_s=2).start()  # it would answer anyone


def test_a_folder_of_another_user_is_refused(make: Make, tmp_path: Path) -> None:
    place = tmp_path / "shared"
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    with pytest.raises(BackendError, match="belongs to you alone"):
        make(runtime_folder=place).start()


def test_a_start_waits_for_one_in_progress(make: Make, tmp_path: Path) -> None:
    server = make()
    server.start()
    path = server.adapter_folder.parent / "server.json"
    path.rename(path.with_suffix(".later"))  # as it is until the server answers
    waiting = make(start_s=30)
    command = f"sleep 1; mv {path.with_suffix('.later')} {path}"
    with subprocess.Popen(["sh", "-c", command]):
        waiting.start()
    assert waiting.pid == server.pid


# Sleep: on a GPU; here only that it is asked for as vLLM's interface says


def test_a_cpu_cannot_sleep(make: Make) -> None:
    server = make()
    server.start()
    assert not server.can_sleep
    with pytest.raises(BackendError, match="on a CPU vLLM frees nothing"):
        server.sleep()


@pytest.mark.parametrize(
    ("level", "waking"),
    [
        (1, ["/wake_up"]),
        (2, ["/wake_up?tags=weights", "/collective_rpc", "/wake_up?tags=kv_cache"]),
    ],
)
def test_a_server_sleeps_and_wakes(make: Make, level: int, waking: list[str]) -> None:
    server = make(on_cpu=False)
    backend = VllmBackend(server)
    server.sleep(level)
    assert server.sleeping
    with pytest.raises(BackendError, match="is asleep"):
        backend.generate(GenerationRequest(ASKED, CONSTRAINT))
    server.wake()
    server.wake()
    assert not server.sleeping
    assert backend.generate(GenerationRequest(ASKED, CONSTRAINT))
    asked = [path for path, _ in calls(server.adapter_folder.parent)]
    asleep = asked.index(f"/sleep?level={level}&mode=wait")
    assert asked[asleep + 1 : asleep + 1 + len(waking)] == waking


def test_a_failed_sleep_is_an_error(make: Make) -> None:
    server = make("sleepless", on_cpu=False)
    server.start()
    with pytest.raises(BackendError, match="did not go to sleep"):
        server.sleep()


def test_the_arguments_for_a_gpu(make: Make) -> None:
    settings = Settings(gpus=("0", "1"), gpu_share=0.5, kv_cache_mb=2000)
    server = make(on_cpu=False, settings=settings)
    server.start()
    (child,) = psutil.Process(server.pid).children()
    command = " ".join(child.cmdline())
    assert "--enable-sleep-mode" in command
    assert "--gpu-memory-utilization 0.5" in command
    assert f"--kv-cache-memory-bytes {2000 * 2**20}" in command
    assert "--tensor-parallel-size 2" in command
    assert child.environ()["CUDA_VISIBLE_DEVICES"] == "0,1"


# Reasons


@pytest.mark.parametrize(
    ("log", "said"),
    [
        ("", "it ended"),
        ("x.py: error: unrecognized arguments: --y", "x.py: error: unrecognized arguments: --y"),
        (
            "OSError: [Errno 98] Address already in use",
            "OSError: [Errno 98] Address already in use",
        ),
        ("WARNING this can cause `OSError: [Errno 24]`.", "it ended; the end of its log:"),
        (
            "(Worker pid=1) ERROR 11-24 06:45:04 [multiproc_executor.py:953] RuntimeError: sizes\n"
            "RuntimeError: Engine core initialization failed. See root cause above.",
            "RuntimeError: sizes",
        ),
        ("torch.OutOfMemoryError: CUDA out of memory.", "torch.OutOfMemoryError: CUDA out"),
    ],
)
def test_the_reason_is_the_root_error(log: str, said: str) -> None:
    assert find_reason(log, "it ended").startswith(said)


# Memory


def test_weights_in_two_layouts_count_once(
    tiny_model: Path, program: Callable[[str], None], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(tiny_model, tmp_path / "tiny"))
    shutil.copyfile(folder / "model.safetensors", folder / "consolidated.safetensors")
    server = ManagedServer(folder, on_cpu=True)
    size = (folder / "model.safetensors").stat().st_size
    assert 0.9 * size < server.weight_bytes <= size
    (folder / "model.safetensors").unlink()
    assert server.weight_bytes == size  # vLLM reads what it finds


@pytest.mark.parametrize("on_cpu", [True, False])
def test_a_server_asks_for_weights_cache_and_working_memory(
    tiny_model: Path, program: Callable[[str], None], on_cpu: bool
) -> None:
    server = ManagedServer(tiny_model, Settings(kv_cache_mb=700), on_cpu=on_cpu)
    assert server.need_bytes == server.weight_bytes + 700 * 2**20 + WORK_BYTES
    halved = ManagedServer(tiny_model, Settings(gpu_share=0.5), on_cpu=False)
    assert halved.need_bytes == server.weight_bytes + WORK_BYTES
    split = ManagedServer(tiny_model, Settings(kv_cache_mb=700, gpu_count=2), on_cpu=False)
    assert split.need_bytes == server.need_bytes - server.weight_bytes // 2  # of each
    assert split.memory_request.gpu_count == 2


def test_a_vllm_for_cpus_refuses_several_gpus(
    tiny_model: Path, program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("localhpo.llm.vllm.builds.is_for_cpus", lambda: True)
    with pytest.raises(InputError, match="built for CPUs; got 2 GPUs") as caught:
        open_backend("vllm", model=str(tiny_model), model_gpus=2)
    assert "model_gpus" in caught.value.hint
