"""What needs a GPU: `python -m pytest -m gpu -n 0`, some 4 minutes, most of them compiling: benchmarks/speed.md."""

# ruff: noqa: F811  the fixture setup is imported

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from core.batches import mirrored
from core.trainer import RedirectionTrainer
from models.recrop import equalize
from tests.test_recrop import PICTURES, to_batch
from tests.test_train_st_ed import equal, final_weights, setup  # noqa: F401  a fixture
from tests.tiny import random_batch, tiny_trainer
from train_st_ed import main
from utils import batch_to_device

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")]
GPU = torch.device("cuda")


@pytest.fixture
def exact() -> Iterator[None]:
    """Convolutions in float32, not in TF32."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before


def on_the_gpu(**given: bool) -> RedirectionTrainer:
    trainer = tiny_trainer(device=GPU, **given)
    for module in (trainer.redirector, trainer.adversary.discriminator, trainer.objective.estimator):
        if module is not None:
            module.to(GPU)
    return trainer


def test_a_step_gives_the_cpus_terms(exact: None) -> None:
    on_cpu, on_gpu = tiny_trainer(), on_the_gpu()
    for step in range(3):
        wanted = on_cpu.train_step(random_batch(seed=step), step)
        found = on_gpu.train_step(batch_to_device(random_batch(seed=step), GPU), step)
        for name, value in wanted.items():
            assert found[name].item() == pytest.approx(value.item(), rel=1e-3, abs=1e-4), (step, name)


def test_a_step_waits_for_nothing() -> None:
    trainer, batch = on_the_gpu(mirror=True, vary=True), batch_to_device(random_batch(), GPU)
    trainer.train_step(batch, 0)
    torch.cuda.set_sync_debug_mode("error")
    try:
        trainer.train_step(batch, 1)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    trainer.updates.require()


def test_what_is_not_finite_ends_the_run_and_changes_nothing() -> None:
    trainer, batch = on_the_gpu(), batch_to_device(random_batch(), GPU)
    before = {name: parameter.clone() for name, parameter in trainer.redirector.named_parameters()}
    trainer.train_step({**batch, "image_b": batch["image_b"] * torch.nan}, 0)
    trainer.train_step(batch, 1)
    assert all(torch.equal(before[name], value) for name, value in trainer.redirector.named_parameters())
    with pytest.raises(FloatingPointError, match="step 0 "):
        trainer.updates.require()


def test_batches_are_mirrored_there() -> None:
    batch, coins = random_batch(), torch.tensor([True, False, True, False])[:, None]
    wanted, found = mirrored(batch, coins), mirrored(batch_to_device(batch, GPU), coins.to(GPU))
    assert all(torch.equal(value, found[name].cpu()) for name, value in wanted.items())


@pytest.mark.parametrize("name", PICTURES)
def test_equalised_pixels_are_the_cpus_to_the_bit(name: str) -> None:
    pixels = to_batch(PICTURES[name].astype("uint8"))
    assert torch.equal(equalize(pixels), equalize(pixels.to(GPU)).cpu())


@pytest.mark.parametrize(
    "flags", [[], ["--precision", "bfloat16"], ["--compile"], ["--precision", "bfloat16", "--compile"]]
)
def test_the_command_trains_resumes_and_reports(flags: list[str], setup: Path) -> None:
    flags = ["config.json", "--device", "cuda", *flags]
    assert main([*flags, "--num-training-steps", "4"]) == 0
    assert main([*flags, "--num-training-steps", "6"]) == 0
    report = json.loads(next(setup.glob("run/report/*/report.json")).read_text())
    assert report["datasets"]["gc/test"]["l1"]["mean"] > 0


def test_a_deterministic_run_is_the_same_again(setup: Path) -> None:
    flags = ["config.json", "--device", "cuda", "--deterministic", "--no-compute-full-result"]
    assert main([*flags, "--save-path", "first"]) == 0
    assert main([*flags, "--save-path", "second"]) == 0
    assert equal(final_weights(setup / "first", 6), final_weights(setup / "second", 6))
