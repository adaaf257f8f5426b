"""Training a small encoder and generator: it learns, its file loads, it goes on exactly, it depends on the seed."""

import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import default_collate

from core.autoencoder import train as training
from core.autoencoder.train import mean_image, measure_autoencoder, train_autoencoder, training_state
from core.autoencoder.trainer import ESTIMATOR_FROM, AutoencoderSettings, AutoencoderTrainer, l1_near_eyes
from dataset_aligned import AlignedDataset
from models.load_pretrained_model import load_e4e
from tests.tiny import PoolEstimator, write_dataset
from utils import image_to_float, read_torch_file

CPU = torch.device("cpu")
TINY = AutoencoderSettings(size=32, style_dim=8, max_channels=8, width=4, num_steps=6, batch_size=6)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> AlignedDataset:
    folder = tmp_path_factory.mktemp("pair")
    return AlignedDataset(write_dataset(folder / "faces.h5", size=32), name="gc/train")


@pytest.fixture(scope="module")
def trained(data: AlignedDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "pairs" / "pair.pt"
    assert train(data, path)
    return path


def train(data: AlignedDataset, path: Path, settings: AutoencoderSettings = TINY, **options: Any) -> bool:
    return train_autoencoder(data, PoolEstimator(), settings, path, patch_size=16, device=CPU, **options)


def weights(path: Path) -> dict[str, Tensor]:
    return read_torch_file(path)["state_dict"]


def equal(a: Path, b: Path) -> bool:
    first, second = weights(a), weights(b)
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def batch_of(data: AlignedDataset, count: int = 6) -> dict[str, Tensor]:
    return default_collate([data[i] for i in range(count)])


# The training


def test_training_learns_to_reconstruct(tmp_path: Path):
    data = AlignedDataset(write_dataset(tmp_path / "faces.h5", persons=2, size=32))
    wider = {"max_channels": 16, "style_dim": 16, "learning_rate": 3e-3, "generator_learning_rate": 2e-2}
    settings = replace(TINY, num_steps=80, batch_size=12, feature=0.0, angle=0.0, mirror=False, **wider)
    trainer = AutoencoderTrainer(settings, PoolEstimator(), 16, CPU)
    batch = batch_of(data, 12)
    first, *_, last = [trainer.train_step(batch) for _ in range(80)]
    assert last["l1"] < 0.5 * first["l1"]
    assert last["probe"] < 0.1 * first["probe"]
    trainer.parts.eval()
    measured = measure_autoencoder(trainer.reconstruct, data, mean_image(data), CPU)
    assert measured["l1"] < 0.5 * measured["mean_image_l1"]


@pytest.mark.parametrize("term", ["l1", "eyes", "feature", "angle"])
def test_each_term_alone_reaches_both_parts(data: AlignedDataset, term: str):
    silent = dict.fromkeys(("l1", "eyes", "feature", "angle", "probe"), 0.0)
    trainer = AutoencoderTrainer(replace(TINY, **(silent | {term: 1.0})), PoolEstimator(), 16, CPU)
    trainer.step = TINY.num_steps - 1
    before = {name: value.clone() for name, value in trainer.parts.state_dict().items()}
    trainer.train_step(batch_of(data))
    for part in ("encoder.input_layer.0.weight", "decoder.convs.0.conv.weight"):
        assert not torch.equal(trainer.parts.state_dict()[part], before[part])
    assert torch.equal(trainer.parts.state_dict()["probe.weight"], before["probe.weight"])


def test_the_estimator_looks_at_reconstructions_only_later(data: AlignedDataset):
    trainer = AutoencoderTrainer(replace(TINY, num_steps=100), PoolEstimator(), 16, CPU)
    assert trainer.train_step(batch_of(data)).keys() == {"loss", "l1", "eyes", "probe"}
    trainer.step = int(100 * ESTIMATOR_FROM) + 1
    assert trainer.train_step(batch_of(data)).keys() == {"loss", "l1", "eyes", "probe", "feature", "angle"}


def test_without_an_estimator_pixels_are_all(data: AlignedDataset):
    trainer = AutoencoderTrainer(TINY, None, 16, CPU)
    trainer.step = TINY.num_steps - 1
    values = trainer.train_step(batch_of(data))
    assert values.keys() == {"loss", "l1", "eyes"}
    assert values["loss"] == pytest.approx(TINY.l1 * values["l1"] + TINY.eyes * values["eyes"])


def test_a_loss_that_is_not_finite_moves_nothing(data: AlignedDataset):
    trainer = AutoencoderTrainer(TINY, None, 16, CPU)
    with torch.no_grad():
        trainer.generator.to_rgb1.bias[0, 0] = float("nan")
    before = trainer.encoder.input_layer[0].weight.clone()
    with pytest.raises(FloatingPointError, match="not finite at step 0.*l1=nan"):
        trainer.train_step(batch_of(data))
    assert torch.equal(trainer.encoder.input_layer[0].weight, before)


# What it is made of


def test_only_pixels_near_the_eyes_count_there():
    points = torch.tensor([[[10.0, 12.0], [22.0, 12.0], [16.0, 18.0], [12.0, 24.0], [20.0, 24.0]]])
    image = torch.zeros(1, 3, 32, 32)
    assert l1_near_eyes(image + 0.5, image, points) == pytest.approx(0.5)
    errors = {}
    for name, (column, row) in {"eye": (22, 12), "mouth": (12, 24)}.items():
        other = image.clone()
        other[0, :, row, column] = 1
        errors[name] = l1_near_eyes(other, image, points).item()
    # A Gaussian of 2 px over two eyes: the pixel in its middle has 1 / (2 * 2 pi * 4) of the weight.
    assert errors["eye"] == pytest.approx(0.0199, abs=2e-4)
    assert errors["mouth"] < 1e-6


# The file


def test_the_file_loads_and_draws_the_same(data: AlignedDataset, trained: Path):
    trainer = AutoencoderTrainer(TINY, PoolEstimator(), 16, CPU)
    trainer.load({"parts": trainer.parts.state_dict() | weights(trained), **blank(trainer)}, "here")
    trainer.parts.eval()
    encoder, generator, latent_avg = load_e4e(trained)
    image = image_to_float(batch_of(data)["image"])
    assert latent_avg.shape == (generator.num_rows, TINY.style_dim) == (8, 8)
    with torch.no_grad():
        expected = trainer.reconstruct(image)
        for noise in ("none", "stored", "random"):  # its noise has no weight
            torch.testing.assert_close(generator.synthesis(encoder(image) + latent_avg, noise), expected)
    assert expected.std(dim=0).mean() > 1e-3


def blank(trainer: AutoencoderTrainer) -> dict[str, Any]:
    return {"optimizer": trainer.optimizer.state_dict(), "step": 0}


def test_the_file_says_what_it_is_of(trained: Path):
    content = read_torch_file(trained)
    assert content["facts"]["recipe"] == asdict(TINY)  # the name in files that are there
    assert set(content["facts"]) == {"recipe", "data", "file", "samples", "estimator", "patch_size"}
    assert content["facts"].items() >= {"data": "gc/train", "samples": 24, "file": "faces.h5"}.items()
    assert content["opts"]["output_size"] == 32
    assert not training_state(trained).exists()


def test_equal_seeds_give_equal_weights(data: AlignedDataset, trained: Path, tmp_path: Path):
    random = torch.random.get_rng_state()
    train(data, tmp_path / "same.pt")
    assert torch.equal(torch.random.get_rng_state(), random)
    train(data, tmp_path / "other.pt", replace(TINY, seed=1))
    assert equal(tmp_path / "same.pt", trained)
    assert not equal(tmp_path / "other.pt", trained)


def test_held_out_figures_are_measured_and_kept(
    data: AlignedDataset, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    train(data, tmp_path / "pair.pt", replace(TINY, num_steps=1), held_out=data)
    measured = read_torch_file(tmp_path / "pair.pt")["held_out"]
    assert measured["samples"] == 24
    assert f"mean image {measured['mean_image_l1']:.4f}" in capsys.readouterr().out
    encoder, generator, latent_avg = load_e4e(tmp_path / "pair.pt")
    again = measure_autoencoder(lambda x: generator.synthesis(encoder(x) + latent_avg), data, mean_image(data), CPU)
    assert again == pytest.approx(measured, rel=1e-4)


def test_measures_do_not_depend_on_the_batch(data: AlignedDataset):
    mean = torch.zeros(3, 32, 32)
    options = {"estimator": PoolEstimator(), "patch_size": 16}
    results = [measure_autoencoder(lambda x: x + 0.25, data, mean, CPU, batch_size=n, **options) for n in (24, 7)]
    assert results[0] == pytest.approx(results[1], rel=1e-5)
    assert results[0]["l1"] == pytest.approx(0.25)
    images = torch.stack([image_to_float(data[i]["image"]) for i in range(24)])
    assert results[0]["mean_image_l1"] == pytest.approx(images.abs().mean().item(), rel=1e-5)
    same = measure_autoencoder(nn.Identity(), data, mean, CPU, **options)
    assert same["gaze_deg"] == same["image_gaze_deg"] > 0
    torch.testing.assert_close(mean_image(data), images.mean(dim=0))


# Stopping and going on


def test_a_stopped_training_goes_on_exactly(
    data: AlignedDataset, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, stop = tmp_path / "pair.pt", []
    once = AutoencoderTrainer.train_step

    def step(self: AutoencoderTrainer, batch: dict[str, Tensor]) -> dict[str, float]:
        values = once(self, batch)
        stop.extend([2] if self.step == 4 else [])
        return values

    monkeypatch.setattr(AutoencoderTrainer, "train_step", step)
    assert not train(data, path, stop=stop)
    assert [file.name for file in tmp_path.iterdir()] == ["pair.pt.training"]
    assert read_torch_file(training_state(path))["step"] == 4
    stop.clear()
    assert train(data, path)
    assert equal(path, trained)
    assert [file.name for file in tmp_path.iterdir()] == ["pair.pt"]


def test_a_killed_training_goes_on_from_what_it_saved_last(
    data: AlignedDataset, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path, once = tmp_path / "pair.pt", AutoencoderTrainer.train_step
    monkeypatch.setattr(training, "SAVE_EVERY", 2)

    def die(self: AutoencoderTrainer, batch: dict[str, Tensor]) -> dict[str, float]:
        if self.step == 5:
            raise KeyboardInterrupt
        return once(self, batch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(AutoencoderTrainer, "train_step", die)
        train(data, path)
    assert read_torch_file(training_state(path))["step"] == 4
    assert train(data, path)
    assert equal(path, trained)


def test_a_finished_pair_stays_as_it_is(data: AlignedDataset, trained: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(AutoencoderTrainer, "train_step", None)
    assert train(data, trained)


def test_what_is_of_another_training_is_refused(data: AlignedDataset, trained: Path, tmp_path: Path):
    with pytest.raises(ValueError, match=r"pair.pt: was trained with other values of width, seed\. Use those"):
        train(data, trained, replace(TINY, width=8, seed=3))
    with pytest.raises(ValueError, match="other values of estimator"):
        train_autoencoder(data, None, TINY, trained, patch_size=16, device=CPU)
    shutil.copy(trained, training_state(tmp_path / "pair.pt"))
    with pytest.raises(ValueError, match="pair.pt.training: was trained with other values of num_steps"):
        train(data, tmp_path / "pair.pt", replace(TINY, num_steps=9))
    torch.save({"state_dict": {}}, tmp_path / "published.pt")
    with pytest.raises(ValueError, match="published.pt: not of an autoencoder that was trained here"):
        train(data, tmp_path / "published.pt")


def test_images_of_another_size_are_refused(data: AlignedDataset, tmp_path: Path):
    with pytest.raises(ValueError, match="faces.h5: images of 32 px, but the autoencoder is to be of 64 px"):
        train(data, tmp_path / "pair.pt", replace(TINY, size=64))
    assert not list(tmp_path.iterdir())
