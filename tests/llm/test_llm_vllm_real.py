"""Tests with the real vLLM: tokens and answers as in process, adapters, a whole run.

Runs on a CPU with the built-in model. Sleep needs a GPU and is not tried here.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from vllm_server import RealServer, running, skip_without_vllm

from localhpo import grammar, runtime
from localhpo.errors import BackendError
from localhpo.llm import AnswerConstraint, Message, open_backend
from localhpo.llm.models import registry as model_registry
from localhpo.llm.protocol import GenerationRequest
from localhpo.llm.vllm import ManagedServer, Settings, VllmBackend
from localhpo.llm.vllm.server_registry import ServerSlot
from localhpo.space import Float, Int, Space

pytestmark = pytest.mark.slow

SPACE = Space([Float("learning_rate", 1e-4, 1e-1, log=True), Int("max_depth", 3, 11)])
CONSTRAINT = AnswerConstraint(grammar.lark_grammar(SPACE), grammar.json_schema(SPACE))
PROMPT = [Message("user", "minimize loss\nlearning_rate float\nmax_depth int <eos>\n" * 8)]


def greedy(backend: Any) -> str:
    (answer,) = backend.generate(GenerationRequest(PROMPT, CONSTRAINT, temperature=0.0))
    return str(answer.text)


@pytest.fixture
def served(vllm_server: RealServer) -> Iterator[VllmBackend]:
    with vllm_server.adopted() as backend:
        yield backend


def in_process(folder: str) -> Any:
    return open_backend("transformers", model=folder, device="cpu")


def test_prompt_and_answer_match_the_in_process_backend(served: VllmBackend) -> None:
    local = in_process("sprout")
    assert served.model.digest == local.model.digest
    assert served.model.prompt == local.model.prompt == "compact"
    assert served.count_tokens(PROMPT) == local.count_tokens(PROMPT)
    assert greedy(served) == greedy(local)


def test_a_prompt_is_read_once_for_all_answers(served: VllmBackend) -> None:
    def hits() -> float:
        lines = asked(served.server, key_of(served.server), "/metrics").text.splitlines()
        counts = [line.split()[-1] for line in lines if line.startswith("vllm:prefix_cache_hits_t")]
        return sum(map(float, counts))

    before = hits()
    answers = served.generate(GenerationRequest(PROMPT, CONSTRAINT, n=8, seed=5))
    served.generate(GenerationRequest(PROMPT, CONSTRAINT, n=8, seed=6))
    read = served.count_tokens(PROMPT)
    assert hits() - before > 8 * (read - 256)  # whole blocks alone are kept
    assert len({answer.text for answer in answers}) == 8
    (alone,) = served.generate(GenerationRequest(PROMPT, CONSTRAINT, seed=answers[3].seed))
    assert alone.text == answers[3].text


def test_a_prompt_that_nearly_fills_the_context_is_read(served: VllmBackend) -> None:
    long = [Message("user", PROMPT[0].content * 20)]
    read = served.count_tokens(long)
    assert 2_048 < read < served.model.context_length - 512  # more than vLLM reads in one step
    before = served.server.pid
    answers = served.generate(GenerationRequest(long, CONSTRAINT, n=8, seed=7, max_tokens=256))
    assert len({answer.text for answer in answers}) > 1
    assert served.server.pid == before  # its engine did not end


def key_of(server: ManagedServer) -> str:
    record = ServerSlot(server.adapter_folder.parent).read()
    assert record is not None
    return record.key


def asked(server: ManagedServer, key: str, path: str) -> httpx.Response:
    host = server.http.url.removesuffix("/v1")
    return httpx.get(f"{host}{path}", trust_env=False, headers={"Authorization": f"Bearer {key}"})


def test_every_path_needs_the_key(served: VllmBackend) -> None:
    for path in ("/metrics", "/health", "/version", "/v1/models", "/docs"):
        assert asked(served.server, "sesame", path).status_code == 401
        assert asked(served.server, key_of(served.server), path).status_code == 200
    assert served.server.http.is_healthy("/health")


def test_a_cpu_cannot_sleep(vllm_server: RealServer) -> None:
    assert not vllm_server.server.can_sleep
    with pytest.raises(BackendError, match="on a CPU vLLM frees nothing"):
        vllm_server.server.sleep()


# Adapters


@pytest.fixture(scope="module")
def with_adapters(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VllmBackend]:
    skip_without_vllm()
    place = tmp_path_factory.mktemp("vllm-with-adapters")
    server = ManagedServer(
        model_registry.find_model("sprout"), Settings(adapter_rank=8), runtime_folder=place
    )
    with running(server):
        yield VllmBackend(server)


def write_adapter(folder: Path, merged: Path, seed: int) -> None:
    """Write a random LoRA adapter of the built-in model, and the model into which it is merged."""
    import torch
    from safetensors.torch import load_file, save_file

    base = model_registry.find_model("sprout")
    shutil.copytree(base, merged, ignore=shutil.ignore_patterns("card.toml"))
    random = torch.Generator().manual_seed(seed)
    weights = {name: w.float() for name, w in load_file(base / "model.safetensors").items()}
    adapter = {}
    for name in [n for n in weights if n.endswith(("o_proj.weight", "down_proj.weight"))]:
        out_size, in_size = weights[name].shape
        a = torch.randn(8, in_size, generator=random) * 0.1
        b = torch.randn(out_size, 8, generator=random) * 0.1
        weights[name] += 2.0 * b @ a  # lora_alpha / r
        module = f"base_model.model.{name.removesuffix('.weight')}"
        adapter |= {f"{module}.lora_A.weight": a, f"{module}.lora_B.weight": b}
    folder.mkdir(exist_ok=True)
    save_file(adapter, folder / "adapter_model.safetensors")
    save_file(weights, merged / "model.safetensors", metadata={"format": "pt"})
    settings = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": 8, "lora_alpha": 16, "bias": "none",
        "target_modules": ["o_proj", "down_proj"], "base_model_name_or_path": "sprout",
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(settings))


def test_adapters_change_while_it_runs_and_survive_restarts(
    with_adapters: VllmBackend, tmp_path: Path
) -> None:
    backend = with_adapters
    plain = greedy(backend)
    assert plain == greedy(in_process("sprout"))
    seen = {plain}
    adapted = ""
    for seed in range(1, 20):  # all in one folder: the second must not be answered from the first
        merged = tmp_path / f"merged-{seed}"
        write_adapter(tmp_path / "adapter", merged, seed=seed)
        wanted = greedy(in_process(str(merged)))
        if wanted in seen:
            continue  # its answer would not tell it from those before
        backend.use_adapter(tmp_path / "adapter")
        adapted = greedy(backend)
        assert adapted == wanted
        seen.add(adapted)
        if len(seen) == 3:
            break
    assert len(seen) == 3
    before = backend.server.pid
    assert before is not None
    for child in psutil.Process(before).children(recursive=True):
        if "EngineCore" in " ".join(child.cmdline()):
            os.kill(child.pid, signal.SIGKILL)
    assert greedy(backend) == adapted
    assert backend.server.pid != before
    backend.server.stop()
    backend.server.start()
    assert greedy(backend) == adapted
    backend.use_adapter(None)
    assert greedy(backend) == plain


# The main job


def test_a_run_starts_and_ends_its_server(tmp_path: Path) -> None:
    skip_without_vllm()
    command = ["run", "breast-cancer-xgboost", "--trials", "3", "--backend", "vllm", "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "localhpo", *command],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [trial["state"] for trial in result["trials"]] == ["complete"] * 3
    assert result["best"]["score"] > 0.8
    (log,) = (tmp_path / "run").rglob("server.log")
    assert "/v1/completions" in log.read_text()
    assert not (log.parent / "server.json").exists()
    assert json.loads((log.parent / "result.json").read_text())["verdict"] == "stopped"


def test_two_runs_share_a_server(tmp_path: Path) -> None:
    skip_without_vllm()
    state_file = runtime.folder() / "machine.json"

    def start(home: str, trials: int) -> subprocess.Popen[str]:
        options = ["--trials", str(trials), "--backend", "vllm", "--creator", "agent", "--json"]
        return subprocess.Popen(
            [sys.executable, "-m", "localhpo", "run", "breast-cancer-xgboost", *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "LOCALHPO_HOME": str(tmp_path / home)},
        )

    def servers() -> list[int]:
        return [row["server"] for row in json.loads(state_file.read_text()) if row["server"]]

    with start("first", 1_000) as first:
        wait_until(lambda: state_file.exists() and len(servers()) == 1, first)
        with start("second", 3) as second:
            wait_until(lambda: len(servers()) == 2, second)
            (pid,) = set(servers())
            of_server = psutil.Process(pid).children(recursive=True)
            first.kill()
            said, _ = second.communicate(timeout=600)
    assert second.returncode == 0
    assert [trial["state"] for trial in json.loads(said)["trials"]] == ["complete"] * 3
    assert len(list((tmp_path / "run").rglob("server.log"))) == 1
    assert len(of_server) > 1  # server and engine
    assert not psutil.wait_procs(of_server, timeout=10)[1]


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    give_up = time.monotonic() + 900
    while not condition():
        assert process.poll() is None, "the run has ended"
        assert time.monotonic() < give_up, "what was waited for does not come"
        time.sleep(0.1)
