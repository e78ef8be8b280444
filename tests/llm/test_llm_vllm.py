"""The managed server and its backend around a program that fails in every way vLLM can.

What the real vLLM does is seen in test_llm_vllm_real.py and in the contract of backends.
"""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from localhpo.errors import (
    BackendError,
    CardError,
    ConstraintError,
    MissingExtraError,
)
from localhpo.llm import Constraint, Message, cards, open_backend
from localhpo.llm.vllm import ManagedServer, Settings, VllmBackend
from localhpo.llm.vllm.process import reason
from localhpo.llm.vllm.registry import Record, Slot
from localhpo.llm.vllm.server import proves

ASKED = [Message("user", "Propose.")]
CONSTRAINT = Constraint('start: "{\\"a\\":" /[1-9]/ "}"', {"type": "object"})
TESTS = Path(__file__).resolve().parent.parent

Make = Callable[..., ManagedServer]


@pytest.fixture(scope="module")
def folder() -> Path:
    return cards.find("sprout")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Put a `vllm` in the way of the real one, and return what sets its behaviour."""
    package = tmp_path / "path" / "vllm" / "entrypoints" / "openai"
    package.mkdir(parents=True)
    (package / "api_server.py").write_text("import fake_vllm\nfake_vllm.main()\n")
    (package.parents[1] / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "path")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'path'}:{TESTS}")
    return lambda behaviour: monkeypatch.setenv("FAKE_VLLM", behaviour)


@pytest.fixture
def make(folder: Path, program: Callable[[str], None], tmp_path: Path) -> Iterator[Make]:
    """Return a maker of servers that are stopped after the test."""
    made: list[ManagedServer] = []

    def make(behaviour: str = "works", **options: Any) -> ManagedServer:
        program(behaviour)
        changes: dict[str, Any] = {"on_cpu": True, "place": tmp_path / "run"}
        settings = options.pop("settings", Settings())
        made.append(ManagedServer(folder, settings, **{**changes, **options}))
        return made[-1]

    yield make
    for server in made:
        server.stop()


def calls(server: ManagedServer) -> list[list[Any]]:
    text = (server.shelf.parent / "calls.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def record_of(server: ManagedServer) -> Record:
    record = Slot(server.shelf.parent).read()
    assert record is not None
    return record


def is_gone(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    return True


def wait_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < give_up, "what was waited for does not come"
        time.sleep(0.02)


# Start and end


def test_a_server_starts_behind_a_key_on_this_machine_and_ends_with_all_it_started(
    make: Make,
) -> None:
    server = make()
    assert (server.running, server.pid, server.sleeping) == (False, None, False)
    server.start()
    record = record_of(server)
    assert server.running
    assert server.owned
    assert server.pid == record.pid
    (child,) = psutil.Process(record.pid).children()
    command = child.cmdline()
    assert command[command.index("--host") + 1] == "127.0.0.1"
    assert record.key not in " ".join(command)
    assert len(record.key) > 30
    private = [server.shelf.parent / "server.json", server.shelf.parent, server.shelf.parent.parent]
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


def test_a_start_that_fails_says_why(make: Make) -> None:
    server = make("crashes")
    with pytest.raises(BackendError, match=r"did not start: ValueError: no room for the KV") as got:
        server.start()
    assert not server.running
    log = Path(got.value.hint.removeprefix("its log: "))
    assert "See root cause above" in log.read_text()


def test_a_start_that_hangs_is_given_up_and_leaves_nothing(make: Make) -> None:
    server = make("hangs", start_s=3)
    with pytest.raises(BackendError, match=r"within 3 s; the end of its log:\n  INFO loading"):
        server.start()
    assert not [p for p in psutil.Process().children(recursive=True) if "vllm" in p.cmdline()]


def test_a_server_of_another_model_is_no_start(make: Make) -> None:
    with pytest.raises(BackendError, match="did not answer within"):
        make("other", start_s=2).start()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_ends_with_its_parent(make: Make, tmp_path: Path, number: int) -> None:
    server = make()
    code = f"""
import time
from pathlib import Path
from localhpo.llm.vllm import ManagedServer
folder, place = Path({str(server.folder)!r}), Path({str(tmp_path / "run")!r})
server = ManagedServer(folder, on_cpu=True, place=place)
server.start()
print(server.pid, flush=True)
time.sleep(600)
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        (child,) = psutil.Process(pid).children()
        server.start()
        assert not server.owned
        parent.send_signal(number)
    wait_until(lambda: is_gone(pid) and is_gone(child.pid))
    assert server.has_ended(5)
    server.start()  # the place is free again
    assert server.owned


def test_without_vllm_the_error_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError) as caught:
        open_backend("vllm", model=str(folder))
    assert caught.value.hint == "pip install 'localhpo[vllm]'"


# A second study


def test_a_second_study_adopts_the_server_and_does_not_end_it(make: Make) -> None:
    first, second = make(), make()
    first.start()
    second.start()
    assert second.pid == first.pid
    assert not second.owned
    second.stop()
    assert first.running
    assert VllmBackend(first, owned=False).generate(ASKED, CONSTRAINT)[0].text == '{"a":3}'


def test_other_settings_are_another_server(make: Make) -> None:
    first, second = make(), make(settings=Settings(answers=4))
    first.start()
    second.start()
    assert second.owned
    assert second.pid != first.pid


@contextmanager
def misled(server: ManagedServer, **changes: Any) -> Iterator[None]:
    """Have the file say something else of the server that runs."""
    path = server.shelf.parent / "server.json"
    true = path.read_text()
    path.write_text(json.dumps({**json.loads(true), **changes}))
    yield
    path.write_text(true)


@pytest.mark.parametrize("changes", [{"key": "sesame"}, {"port": 9}])
def test_a_server_that_cannot_be_shown_to_be_it_is_not_adopted(
    make: Make, changes: dict[str, Any]
) -> None:
    first, second = make(), make()
    first.start()
    with misled(first, **changes):
        second.start()
    assert second.owned
    assert second.pid != first.pid
    assert first.running


def test_a_server_proves_itself_by_key_and_model(make: Make, program: Any) -> None:
    server = make()
    server.start()
    record = record_of(server)
    assert proves(record, server.name)
    assert not proves(record, "another@0123")
    server.stop()
    assert not proves(record, server.name)
    with pytest.raises(BackendError, match="did not answer"):
        make("open", start_s=2).start()  # it would answer anyone


def test_a_folder_of_somebody_else_is_refused(make: Make, tmp_path: Path) -> None:
    place = tmp_path / "shared"
    place.mkdir(mode=0o777)
    place.chmod(0o777)
    with pytest.raises(BackendError, match="belongs to you alone"):
        make(place=place).start()


def test_a_start_waits_for_one_that_is_under_way(make: Make, tmp_path: Path) -> None:
    server = make(start_s=1)
    server.start()
    path = server.shelf.parent / "server.json"
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
    with pytest.raises(BackendError, match="on a CPU vLLM gives nothing back"):
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
    with pytest.raises(BackendError, match="sleeps"):
        backend.generate(ASKED, CONSTRAINT)
    server.wake()
    server.wake()
    assert not server.sleeping
    assert backend.generate(ASKED, CONSTRAINT)
    asked = [path for path, _ in calls(server)]
    asleep = asked.index(f"/sleep?level={level}&mode=wait")
    assert asked[asleep + 1 : asleep + 1 + len(waking)] == waking


def test_a_sleep_that_did_not_come_is_told(make: Make) -> None:
    server = make("sleepless", on_cpu=False)
    server.start()
    with pytest.raises(BackendError, match="says that it is awake"):
        server.sleep()


def test_what_is_asked_of_a_gpu(make: Make) -> None:
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


# The backend


def test_a_request_is_bounded_seeded_and_holds_the_grammar(make: Make) -> None:
    server = make()
    backend = VllmBackend(server)
    answers = backend.generate(ASKED, CONSTRAINT, n=3, max_tokens=50, temperature=0.5, seed=7)
    assert [answer.seed for answer in answers] == [7, 8, 9]
    assert [answer.completion_tokens for answer in answers] == [3, 3, 3]
    assert calls(server)[-1] == [
        "/v1/completions",
        {
            "model": server.name,
            "prompt": list(b"Propose."),
            "return_token_ids": True,
            "n": 3,
            "max_tokens": 50,
            "temperature": 0.5,
            "seed": 7,
            "structured_outputs": {"grammar": CONSTRAINT.grammar},
        },
    ]


def test_what_spells_a_control_token_is_sent_as_words(make: Make) -> None:
    server = make()
    VllmBackend(server).count_tokens([Message("user", "a <eos> b")])
    _, body = calls(server)[-1]
    assert body["messages"] == [{"role": "user", "content": "a < eos> b"}]


def test_a_prompt_that_leaves_no_room_is_refused_before_it_is_sent(make: Make) -> None:
    backend = VllmBackend(make(settings=Settings(context_tokens=250)))
    with pytest.raises(BackendError, match="8 tokens of prompt and 243 of answer do not fit"):
        backend.generate(ASKED, CONSTRAINT, max_tokens=243)


def test_a_vllm_that_ignores_grammars_is_not_used(make: Make) -> None:
    server = make("ignores")
    with pytest.raises(ConstraintError, match="does not hold answers to a grammar"):
        VllmBackend(server)
    assert not server.running


def test_a_server_that_crashes_is_started_again_and_asked_once_more(make: Make) -> None:
    server = make("dies")
    backend = VllmBackend(server)
    before = server.pid
    assert backend.generate(ASKED, CONSTRAINT)[0].text == '{"a":3}'
    assert server.pid != before


def test_a_server_that_is_gone_is_noticed_when_tokens_are_counted(make: Make) -> None:
    server = make()
    backend = VllmBackend(server)
    assert server.pid is not None
    os.kill(psutil.Process(server.pid).children()[0].pid, signal.SIGKILL)
    assert backend.count_tokens([Message("user", "abc")]) == 3


def test_a_server_that_always_crashes_is_given_up(make: Make) -> None:
    backend = VllmBackend(make("dies always"))
    for _ in range(3):
        with pytest.raises(BackendError, match=r"broke|no server listens"):
            backend.generate(ASKED, CONSTRAINT)
    with pytest.raises(BackendError, match="has ended 4 times, at last because: it ended with"):
        backend.generate(ASKED, CONSTRAINT)


def test_closing_stops_the_server_that_is_its_own(make: Make) -> None:
    server = make()
    VllmBackend(server, owned=False).close()
    assert server.running
    VllmBackend(server).close()
    assert not server.running


# Adapters


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"r": 8}')
    (folder / "adapter_model.safetensors").write_bytes(b"first")
    return folder


def test_each_version_of_an_adapter_has_a_name_and_a_folder_of_its_own(
    make: Make, adapter: Path
) -> None:
    server = make(settings=Settings(adapter_rank=8))
    backend = VllmBackend(server)
    digests, asked = set(), []
    for weights in (b"first", b"second"):
        (adapter / "adapter_model.safetensors").write_bytes(weights)
        backend.use_adapter(adapter)
        backend.use_adapter(adapter)
        backend.generate(ASKED, CONSTRAINT)
        digests.add(backend.model.digest)
    backend.use_adapter(None)
    backend.generate(ASKED, CONSTRAINT)
    for path, body in calls(server):
        if "adapter" in path or (path == "/v1/completions" and body["prompt"] == list(b"Propose.")):
            asked.append((path.rpartition("/")[2], body.get("lora_name", body.get("model"))))
    first, second = (name for path, name in asked if path == "load_lora_adapter")
    assert first != second
    assert asked == [
        ("load_lora_adapter", first),
        ("completions", first),
        ("load_lora_adapter", second),
        ("unload_lora_adapter", first),
        ("completions", second),
        ("unload_lora_adapter", second),
        ("completions", server.name),
    ]
    shelved = {p.read_bytes() for p in server.shelf.glob("*/adapter_model.safetensors")}
    assert shelved == {b"first", b"second"}
    assert len(digests | {backend.model.digest}) == 3


def test_an_adapter_is_loaded_again_after_a_crash(make: Make, adapter: Path) -> None:
    server = make("dies", settings=Settings(adapter_rank=8))
    backend = VllmBackend(server)
    backend.use_adapter(adapter)
    assert backend.generate(ASKED, CONSTRAINT)
    loads = [body["lora_name"] for path, body in calls(server) if path == "/v1/load_lora_adapter"]
    assert len(loads) == 2
    assert len(set(loads)) == 1
    assert calls(server)[-1][1]["model"] == loads[0]


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("adapter_config.json", '{"r": 16}', "rank 16; the server takes up to 8"),
        ("adapter_config.json", "{}", "does not say the rank"),
        ("adapter_config.json", '{"r": "8"}', "must be a whole number"),
        ("adapter_model.bin", "x", "could run code"),
    ],
)
def test_an_adapter_that_cannot_be_loaded_is_refused(
    make: Make, adapter: Path, file: str, content: str, message: str
) -> None:
    backend = VllmBackend(make(settings=Settings(adapter_rank=8)))
    (adapter / file).write_text(content)
    with pytest.raises(CardError, match=message):
        backend.use_adapter(adapter)
    assert backend.generate(ASKED, CONSTRAINT)


def test_a_server_without_room_for_adapters_says_so(make: Make, adapter: Path) -> None:
    with pytest.raises(BackendError, match="takes no adapters"):
        VllmBackend(make()).use_adapter(adapter)


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
def test_a_reason_is_the_error_that_others_follow_from(log: str, said: str) -> None:
    assert reason(log, "it ended").startswith(said)
