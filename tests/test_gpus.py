"""Which GPUs a job sees, and what it says where there are none; whose switches are left as they were."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import ROOT
from models import write_model
from reid_done_right import gpus, load_embedder, running
from reid_done_right.artifacts import InputError
from reid_done_right.evaluation.torch_backend import TorchBackend, nearest
from reid_done_right.models import embedder as embedding
from reid_done_right.models.embedder import Embedder
from reid_done_right.models.resnet import ResNet
from reid_done_right.params import Params
from reid_done_right.plan import plan, write_settings
from test_gradients import pictures
from tiny import changed


@pytest.fixture
def four(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have PyTorch say that it sees four GPUs, of those that are visible, and that CUDA starts; locks lie in `tmp_path`."""

    def count() -> int:
        listed = os.environ.get(gpus.VISIBLE)
        return 4 if listed is None else len([name for name in listed.split(",") if name.isdecimal()])

    monkeypatch.setattr(torch.cuda, "device_count", count)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count() > 0)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name in (gpus.VISIBLE, gpus.DEVICE, "WORLD_SIZE", *gpus.SCHEDULERS):
        monkeypatch.delenv(name, raising=False)


def seen() -> str | None:
    return os.environ.get(gpus.VISIBLE)


def settings_of(resources: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    params = Params.model_validate(changed({"resources": resources}))
    write_settings(plan(params), folder)
    return {path.parent.name: json.loads(path.read_text()) for path in folder.glob("*/*.json")}


def stage(folder: Path, seeing: list[str | None], stated: int | None, **how: Any) -> None:
    """Run stage `embed` through the store with a function that notes which GPUs it sees."""

    def note(*, settings: Mapping[str, Any], index: Path, embedder: Path, out: Path) -> None:
        seeing.append(seen())
        out.write_text("made")

    for name in ("index", "embedder"):
        (folder / name).write_text(name)
    content = {"stage": "embed", "job": "a", "parameters": {"threads": 1, "number": len(seeing)}}
    content |= {} if stated is None else {"gpu": stated}
    (folder / "settings.json").write_text(json.dumps(content))
    places = {name: folder / name for name in ("index", "embedder", "out")}
    running.run("embed", lambda: note, folder / "settings.json", places, **how)


# --- what a job sees


def test_settings_state_the_gpus_that_resources_ask_for(tmp_path: Path) -> None:
    found = settings_of({"train": {"gpu": 2}, "embed": {"gpu": 1}}, tmp_path)
    assert {name: of["gpu"] for name, of in found.items() if "gpu" in of} == {
        "train": 2,
        "embed": 1,
        "embed_distractors": 1,
    }


@pytest.mark.usefixtures("four")
def test_job_without_a_gpu_sees_none_and_a_job_with_one_sees_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    seeing: list[str | None] = []
    for stated, device in ((None, None), (0, None), (1, None), (2, None), (1, "cpu"), (0, "cuda")):
        stage(tmp_path, seeing, stated, device=device)
    assert seeing == ["", "", "0", "0,1", "", "0"]
    assert seen() is None
    monkeypatch.setenv(gpus.DEVICE, "cpu")
    stage(tmp_path, seeing, 1)
    assert seeing[-1] == ""


def test_job_that_asks_for_a_gpu_names_the_driver_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    message = r"asks for 1 GPU and finds none: PyTorch .* needs NVIDIA's driver 580 or newer .*REID_DEVICE=cpu"
    with pytest.raises(InputError, match=message):
        stage(tmp_path, [], 1)
    monkeypatch.setattr(torch.version, "cuda", None)
    with pytest.raises(InputError, match="this PyTorch is built for CPUs"):
        stage(tmp_path, [], 1)


@pytest.mark.usefixtures("four")
def test_driver_too_old_for_cuda_is_an_error_and_frees_the_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(InputError, match="finds none"), gpus.assigned(4):
            pass
    monkeypatch.delenv(gpus.VISIBLE, raising=False)
    with gpus.assigned(4):
        assert seen() == "0,1,2,3"


@pytest.mark.usefixtures("four")
def test_jobs_at_the_same_time_have_different_gpus() -> None:
    with gpus.assigned(2):
        assert seen() == "0,1"
        os.environ.pop(gpus.VISIBLE)  # as in another process
        with gpus.assigned(1):
            assert seen() == "2"
    with gpus.assigned(1):
        assert seen() == "0"


@pytest.mark.usefixtures("four")
def test_job_waits_until_enough_gpus_are_free(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = gpus.assign(2)
    os.environ.pop(gpus.VISIBLE)
    waited: list[float] = []

    def end_the_first(seconds: float) -> None:
        waited.append(seconds)
        if len(waited) == 2:
            for lock in first:
                os.close(lock)

    monkeypatch.setattr("time.sleep", end_the_first)
    with gpus.assigned(3):
        assert seen() == "0,1,2" and len(waited) == 2
    assert capsys.readouterr().err == "reid: waits for 3 of 4 GPUs, which other jobs have\n"
    os.environ.pop(gpus.VISIBLE, None)


@pytest.mark.usefixtures("four")
def test_lock_goes_on_to_the_program_that_the_process_becomes(tmp_path: Path) -> None:
    """As to torchrun: the lock is held until that ends."""
    (lock,) = gpus.assign(1)
    os.environ.pop(gpus.VISIBLE)
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False, text=True, env=dict(os.environ)
    )
    os.close(lock)
    with gpus.assigned(1):
        assert seen() == "1"
    child.communicate("\n")
    with gpus.assigned(1):
        assert seen() == "0"


@pytest.mark.usefixtures("four")
def test_assignment_of_slurm_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpus.VISIBLE, "0")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    with gpus.assigned(1), gpus.assigned(1):  # of two jobs, each of which has its own GPU under this number
        assert seen() == "0"
    monkeypatch.setenv(gpus.VISIBLE, "2,3")  # two for one job: its own trainings share them out
    with gpus.assigned(1):
        assert seen() == "2"
        os.environ[gpus.VISIBLE] = "2,3"
        with gpus.assigned(1):
            assert seen() == "3"
    with pytest.raises(InputError, match="asks for 3 GPUs and finds 2"), gpus.assigned(3):
        pass
    assert seen() == "2,3"


@pytest.mark.usefixtures("four")
def test_processes_of_torchrun_see_what_their_parent_was_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpus.VISIBLE, "1,3")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with gpus.assigned(2):
        assert seen() == "1,3"


def test_unknown_device_in_the_environment_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(gpus.DEVICE, "gpu")
    with pytest.raises(InputError, match="REID_DEVICE=gpu: expected cpu"):
        gpus.wanted(1)


@pytest.mark.parametrize(("gpu", "limited"), [(0, True), (1, False)])
def test_memory_is_limited_without_a_gpu_only(gpu: int, limited: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    monkeypatch.setenv(running.MEMORY, "100000")
    monkeypatch.setattr("resource.setrlimit", lambda *given: asked.append(given))
    with running._limited_memory("train", gpu):
        pass
    assert bool(asked) is limited


def test_gpu_out_of_memory_is_one_line_with_advice() -> None:
    with (
        pytest.raises(InputError, match="embed: needs more than the GPU's memory; lower at_once"),
        running._limited_memory("embed", 1),
    ):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")


def test_tests_hide_gpus_from_those_that_are_not_about_them() -> None:
    shown = subprocess.run(
        [sys.executable, "-c", "import conftest, os; print(repr(os.environ.get('CUDA_VISIBLE_DEVICES')))"],
        env={name: value for name, value in os.environ.items() if name not in (gpus.VISIBLE, "REID_TEST_GPU")},
        cwd=ROOT / "tests",
        capture_output=True,
        text=True,
    )
    assert shown.stdout == "''\n", shown.stderr


# --- a user's process


@pytest.fixture
def tf32() -> Any:
    """Have switches as a user may have set them."""
    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32, convolutions.benchmark
    products.allow_tf32 = convolutions.allow_tf32 = convolutions.benchmark = True
    yield
    products.allow_tf32, convolutions.allow_tf32, convolutions.benchmark = before


@pytest.mark.usefixtures("tf32")
def test_ranking_on_a_device_multiplies_in_float32_and_restores_the_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    during: list[bool] = []
    multiply, mm = torch.Tensor.__matmul__, torch.mm

    def noted(function: Any) -> Any:
        def product(*given: Any, **named: Any) -> Any:
            during.append(torch.backends.cuda.matmul.allow_tf32)
            return function(*given, **named)

        return product

    monkeypatch.setattr(torch.Tensor, "__matmul__", noted(multiply))
    monkeypatch.setattr(torch, "mm", noted(mm))
    rows = np.eye(4, dtype=np.float32)
    nearest([rows], [rows], 2, rows=4, device="cpu")
    there = TorchBackend("cpu")
    there.multiply(there.put(rows), there.put(rows), there.empty(16).reshape(4, 4))
    assert during == [False, False]
    assert torch.backends.cuda.matmul.allow_tf32


@pytest.mark.usefixtures("tf32")
def test_photos_are_embedded_as_stages_do_and_switches_restored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_model(tmp_path / "m.safetensors")
    made = load_embedder(tmp_path / "m.safetensors", device="cpu")
    made.device = torch.device("cuda")
    during: list[tuple[bool, bool, bool]] = []

    def embed(*given: Any) -> Any:
        products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
        during.append((products.allow_tf32, convolutions.allow_tf32, convolutions.benchmark))
        return np.eye(1, made.dimension, dtype=np.float32)

    monkeypatch.setattr("reid_done_right.photos.run", embed)
    monkeypatch.setattr("reid_done_right.photos.Pixels.of", lambda *given: None)
    made.embed_images([np.zeros((64, 32, 3), np.uint8)])
    assert during == [(False, False, False)]
    assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32 and torch.backends.cudnn.benchmark


# --- memory


class Small(Embedder):
    """An embedder on a device that has room for three images."""

    def forward(self, images: torch.Tensor, extent: torch.Tensor | None = None) -> torch.Tensor:
        if len(images) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(images, extent)


def test_embedding_halves_its_batches_where_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Small(ResNet("basic", [1, 1, 1, 1], width=4), 8, "max")
    images, rows = pictures(), np.arange(14)
    monkeypatch.setitem(embedding.PIXELS, "cpu", 10**6)
    with pytest.warns(UserWarning, match="out of memory: from now on 3 images are embedded at once"):
        found = embedding.embed(made, images, rows, 32)
    np.testing.assert_allclose(
        found, embedding.embed(made, images, rows, 32), atol=0
    )  # it remembers, without a warning
    monkeypatch.setattr(Small, "forward", Embedder.forward)
    np.testing.assert_allclose(found, embedding.embed(made, images, rows, 32), atol=1e-5)


def test_embedding_that_never_fits_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*given: Any) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Small, "forward", full)
    made = Small(ResNet("basic", [1, 1, 1, 1], width=4), 8, "max")
    with pytest.warns(UserWarning, match="out of memory"), pytest.raises(torch.OutOfMemoryError):
        embedding.embed(made, pictures(), np.arange(2), 32)
