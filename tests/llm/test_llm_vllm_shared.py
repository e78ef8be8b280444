"""Several processes share a server, which ends with the last of them, even after crashes.

The users are real processes, killed as the kernel kills; the server is `fake_vllm`
under the real supervisor.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from localhpo.errors import BackendError
from localhpo.llm import AnswerConstraint, Message
from localhpo.llm.placement import MemoryRequest, ModelPlacer
from localhpo.llm.protocol import GenerationRequest
from localhpo.llm.vllm import ManagedServer, VllmBackend
from localhpo.llm.vllm.lease import Lease

Make = Callable[..., ManagedServer]

ASKED = [Message("user", "Propose.")]
CONSTRAINT = AnswerConstraint('start: "{\\"a\\":" /[1-9]/ "}"', {"type": "object"})

USER = """
import os, sys, time
from pathlib import Path
from localhpo.llm.vllm import ManagedServer

server = ManagedServer(Path(sys.argv[1]), on_cpu=True, runtime_folder=Path(sys.argv[2]))
server.start()
if sys.argv[3] == "forks" and os.fork() == 0:
    server.stop()  # it has no part in it
    time.sleep(60)
    os._exit(0)
print(server.pid, flush=True)
for line in sys.stdin:
    server.stop()
    print("stopped", flush=True)
"""


class User:
    """A process that uses the server, from construction on."""

    def __init__(self, folder: Path, place: Path, *, forks: bool = False) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(folder), str(place), "forks" if forks else "-"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def says(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def stop(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("stop\n")
        self.process.stdin.flush()
        assert self.says() == "stopped"

    def end(self, number: int = signal.SIGKILL) -> None:
        with self.process:
            self.process.send_signal(number)


@pytest.fixture
def user(make: Make, tmp_path: Path) -> Iterator[Callable[..., User]]:
    folder = make().folder
    users: list[User] = []

    def start(**options: bool) -> User:
        users.append(User(folder, tmp_path / "run", **options))
        return users[-1]

    yield start
    for one in users:
        one.end()


def lives(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def family(pid: int) -> list[int]:
    return [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]


def wait_until_gone(pids: list[int]) -> None:
    give_up = time.monotonic() + 30
    while any(lives(pid) for pid in pids):
        assert time.monotonic() < give_up, "something of the server is left"
        time.sleep(0.02)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_server_ends_with_its_last_user(
    make: Make, user: Callable[..., User], number: int
) -> None:
    first, server = user(), make()
    pid = int(first.says())
    backend = VllmBackend(server)
    assert server.pid == pid
    assert server.shared
    all_of_it = family(pid)
    first.end(number)
    assert backend.generate(GenerationRequest(ASKED, CONSTRAINT))[0].text == '{"a":3}'
    assert not server.shared
    backend.close()
    assert not any(map(lives, all_of_it))
    server.start()  # the place is free again
    assert server.pid not in (None, pid)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0)])
def test_a_server_ends_when_all_users_were_killed(
    user: Callable[..., User], order: tuple[int, ...]
) -> None:
    users = [user() for _ in range(3)]  # at once: one starts it, the others wait for it
    (pid,) = {int(one.says()) for one in users}
    all_of_it = family(pid)
    for one in order[:2]:
        users[one].end()
        time.sleep(0.5)  # many times as long as the supervisor takes to see it
        assert all(map(lives, all_of_it))
    users[order[2]].end()
    wait_until_gone(all_of_it)


def test_a_stop_leaves_a_server_to_the_others(user: Callable[..., User]) -> None:
    first = user()
    pid = int(first.says())
    all_of_it = family(pid)
    second = user()
    assert int(second.says()) == pid
    first.stop()
    assert all(map(lives, all_of_it))
    third = user()
    assert int(third.says()) == pid
    second.end()
    third.stop()
    assert not any(map(lives, all_of_it))


def test_a_detached_server_is_reaped(make: Make) -> None:
    first, second = make(), make()
    first.start()
    second.start()
    pid = first.pid
    first.stop()
    second.stop()
    assert pid not in [child.pid for child in psutil.Process().children()]


def test_a_kill_during_a_start_leaves_no_server(
    program: Callable[[str], None], user: Callable[..., User], tmp_path: Path
) -> None:
    program("hangs")
    starting = user()
    give_up = time.monotonic() + 30
    while not (logs := list((tmp_path / "run").glob("*/server.log"))) or not logs[0].read_text():
        assert time.monotonic() < give_up
        time.sleep(0.02)
    all_of_it = family(starting.process.pid)[1:]
    assert len(all_of_it) == 2
    starting.end()
    wait_until_gone(all_of_it)


def test_a_forked_child_does_not_keep_the_server(
    user: Callable[..., User],
) -> None:
    parent = user(forks=True)
    all_of_it = family(int(parent.says()))
    (child,) = set(family(parent.process.pid)[1:]) - set(all_of_it)
    try:
        parent.process.kill()
        wait_until_gone(all_of_it)
        assert lives(child)
    finally:
        os.kill(child, signal.SIGKILL)


def test_all_users_of_a_crashed_server_share_the_next_one(make: Make) -> None:
    backends = [VllmBackend(make()) for _ in range(2)]
    servers = [backend.server for backend in backends]
    crashed = servers[0].pid
    assert crashed is not None
    psutil.Process(crashed).children()[0].kill()
    for backend in backends:
        assert backend.generate(GenerationRequest(ASKED, CONSTRAINT))[0].text == '{"a":3}'
    assert servers[0].pid == servers[1].pid != crashed


def test_a_killed_supervisor_ends_the_server(make: Make) -> None:
    server = make()
    server.start()
    assert server.pid is not None
    all_of_it = family(server.pid)
    os.kill(server.pid, signal.SIGKILL)
    wait_until_gone(all_of_it)
    server.start()
    assert server.pid not in (None, *all_of_it)


def test_another_model_name_is_another_server(make: Make, tmp_path: Path) -> None:
    first = make()
    copy = tmp_path / "other"
    shutil.copytree(first.folder, copy)
    card = (copy / "card.toml").read_text()
    (copy / "card.toml").write_text(card.replace('name = "sprout"', 'name = "other"'))
    second = ManagedServer(copy, on_cpu=True, runtime_folder=tmp_path / "run")
    first.start()
    try:
        second.start()
        assert second.pid != first.pid
        assert second.http.list_models()[0]["id"] == second.name != first.name
    finally:
        second.stop()


# Sleep


def test_a_shared_server_does_not_sleep(make: Make) -> None:
    first, second = make(on_cpu=False), make(on_cpu=False)
    first.start()
    second.start()
    with pytest.raises(BackendError, match="another study uses"):
        first.sleep()
    assert not second.sleeping
    second.stop()
    first.sleep()
    assert first.sleeping


def test_a_sleeping_server_is_adopted_after_it_wakes(make: Make) -> None:
    first, second = make(on_cpu=False), make(on_cpu=False)
    first.start()
    first.sleep()
    said: list[str] = []

    def say(message: str) -> None:
        said.append(message)
        first.wake()

    second.start(ModelPlacer(notify=say))
    assert second.pid == first.pid
    assert said == [f"waiting for the server of {second.name}: another study has put it to sleep"]


def test_another_server_is_started_if_one_sleeps_for_long(make: Make) -> None:
    first, second = make(on_cpu=False), make(on_cpu=False, start_s=5.0)
    first.start()
    first.sleep()
    began = time.monotonic()
    second.start(ModelPlacer())
    assert time.monotonic() - began > 5.0
    assert second.pid != first.pid
    assert first.sleeping


def test_with_reserved_memory_a_sleeping_server_is_not_waited_for(make: Make) -> None:
    first, second = make(on_cpu=False), make(on_cpu=False)
    first.start()
    first.sleep()
    second.start()
    assert second.pid != first.pid


def test_a_server_that_sleeps_after_an_error_is_not_shared(make: Make) -> None:
    first, second = make("dozes", on_cpu=False), make("dozes", on_cpu=False)
    first.start()
    with pytest.raises(BackendError, match="broke"):
        first.sleep()
    assert first.sleeping
    second.start(ModelPlacer(notify=lambda message: first.wake()))
    assert second.pid == first.pid


# Room


def test_a_server_waits_for_memory_and_uses_the_given_device(make: Make, tmp_path: Path) -> None:
    server, said = make(on_cpu=False), []
    answers = iter([None, None, ("3",)])
    server.start(ModelPlacer(reserve=lambda wanted: next(answers), notify=said.append))
    assert len(said) == 1 and "not enough free memory" in said[0]

    def device() -> str:
        assert server.pid is not None
        return psutil.Process(server.pid).environ()["CUDA_VISIBLE_DEVICES"]

    assert device() == "3"
    server.stop()
    server.start()  # by who has the room
    assert device() == "3"


def test_a_server_started_meanwhile_is_adopted(make: Make) -> None:
    first, second = make(on_cpu=False), make(on_cpu=False)

    second.start(ModelPlacer(reserve=lambda wanted: None, notify=lambda message: first.start()))
    assert second.pid == first.pid


def test_a_failing_placer_frees_the_slot(make: Make) -> None:
    first, second = make(), make()

    def reserve(request: MemoryRequest) -> None:
        raise RuntimeError("no broker")

    with pytest.raises(RuntimeError, match="no broker"):
        first.start(ModelPlacer(reserve=reserve))
    second.start()
    assert second.running


def test_a_server_is_shared_again_after_a_failed_sleep(make: Make) -> None:
    first, second = make("sleepless", on_cpu=False), make("sleepless", on_cpu=False)
    first.start()
    with pytest.raises(BackendError, match="did not go to sleep"):
        first.sleep()
    second.start()
    assert second.pid == first.pid


# The lock itself


def test_leases_are_shared_unless_one_is_exclusive(tmp_path: Path) -> None:
    first, second = Lease.take(tmp_path), Lease.take(tmp_path)
    assert first and second
    assert first.shared and second.shared
    assert not first.make_exclusive()
    assert second.shared  # the attempt changed nothing
    second.close()
    second.close()
    assert not first.shared and not second.shared
    assert first.make_exclusive()
    assert Lease.take(tmp_path) is None
    first.make_shared()
    third = Lease.take(tmp_path)
    assert third is not None
    first.release()
    assert first.shared and not third.shared
    for lease in (first, third):
        lease.close()
