"""The same command gives the same again, to the last byte; another seed changes whatever is drawn."""

# ruff: noqa: F811  the fixture setup is imported

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from core import build
from core.batches import IndexSampler, PairSampler, evaluation_pairs, labeled_subset
from core.command import UserError
from core.config_default import Config
from core.config_reader import load_config
from core.evaluator import perturbations
from core.report import sample_pairs
from core.runtime import require_deterministic, step_generator
from core.trainer import RedirectionTrainer
from core.variation import varied
from dataset import GazeDataset
from tests.test_train_st_ed import final_weights, setup  # noqa: F401  a fixture
from tests.tiny import random_batch, tiny_redirector, tiny_trainer, write_dataset
from train_st_ed import main

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    yield
    torch.use_deterministic_algorithms(False)


def content(folder: Path) -> dict[str, object]:
    """All files by name but TensorBoard's, which have the time; of the metrics all but the images a second."""
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found: dict[str, object] = {name: read for name, read in files.items() if not name.startswith("tensorboard/")}
    rows = [json.loads(line) for line in files["metrics.jsonl"].splitlines()]
    found["metrics.jsonl"] = [{name: row[name] for name in row if name != "train/images_per_s"} for row in rows]
    return found


@pytest.mark.slow
def test_two_processes_write_the_same_bytes(setup: Path) -> None:
    command = [sys.executable, str(ROOT / "train_st_ed.py"), "config.json", "--deterministic", "--num-threads", "1"]
    for order in "12":  # of sets
        environment = os.environ | {"PYTHONHASHSEED": order, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(command, cwd=setup, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        (setup / "run").rename(setup / order)
    first, second = content(setup / "1"), content(setup / "2")
    assert {"checkpoints/6.pt", "report/6/report.json", "samples/00003/walk_gaze.mp4"} <= first.keys()
    assert [name for name in first.keys() | second.keys() if first.get(name) != second.get(name)] == []


def test_another_seed_gives_other_weights(setup: Path) -> None:
    assert main(["config.json", "--no-compute-full-result"]) == 0
    assert main(["config.json", "--no-compute-full-result", "--save-path", "other", "--seed", "1"]) == 0
    first, other = final_weights(setup / "run"), final_weights(setup / "other")
    assert [name for name in first if first[name].ndim > 1 and torch.equal(first[name], other[name])] == []


@pytest.fixture
def data(tmp_path: Path) -> GazeDataset:
    return GazeDataset(write_dataset(tmp_path / "gc.h5", persons=4, samples=9, size=8))


def _coins(seed: int, _: GazeDataset) -> torch.Tensor:
    return tiny_trainer(seed)._coins(3, 1, 64, stream=1)


def _masks(seed: int, _: GazeDataset) -> torch.Tensor:
    return torch.cat([*tiny_trainer(seed).mixing_mask(3, 64).values()])


def _perturbations(seed: int, _: GazeDataset) -> torch.Tensor:
    drawn = perturbations(tiny_redirector(), seed, np.arange(4), torch.device("cpu"))
    return torch.cat([value.flatten() for value in drawn.values()])


def _variation(seed: int, _: GazeDataset) -> torch.Tensor:
    return varied(random_batch(), step_generator(seed, 3, stream=2))["image_a"]


def _config(seed: int) -> Config:
    flags = ["--num-2d-units", "2", "--num-1d-units", "1", "--densenet-blocks", "3", "--growth-rate", "2"]
    flags += ["--image-size", "64", "--size-0d-unit", "64", "--save-path", "x", "--gazecapture-file", "x.h5"]
    return load_config([*flags, "--seed", str(seed)])


def _redirector(seed: int, _: GazeDataset) -> torch.Tensor:
    return next(build.build_redirector(_config(seed)).parameters())


def _discriminator(seed: int, _: GazeDataset) -> torch.Tensor:
    config = _config(seed)
    return next(build.build_discriminator(config, build.build_redirector(config)).parameters())


DRAWN: dict[str, Callable[[int, GazeDataset], object]] = {
    "the order of images": lambda seed, d: IndexSampler(d, batch_size=9, seed=seed, num_steps=4).batch(2),
    "the pairs": lambda seed, d: PairSampler(d, batch_size=9, seed=seed, num_steps=4).batch(2),
    "the pairs of an evaluation": lambda seed, d: evaluation_pairs(d, seed=seed, fraction=0.5),
    "the persons in the pictures": lambda seed, d: sample_pairs(d, 2, seed),
    "the labelled images": lambda seed, d: labeled_subset(len(d), 9, seed),
    "the mixing masks": _masks,
    "which images are mirrored": _coins,
    "how pairs are varied": _variation,
    "the perturbations": _perturbations,
    "the redirector's weights": _redirector,
    "the discriminator's weights": _discriminator,
}


@pytest.mark.parametrize("what", DRAWN)
def test_a_seed_decides_what_is_drawn_and_another_changes_it(what: str, data: GazeDataset) -> None:
    def draw(seed: int) -> np.ndarray:
        drawn = DRAWN[what](seed, data)
        return drawn.detach().numpy() if isinstance(drawn, torch.Tensor) else np.asarray(drawn)

    torch.rand(3), np.random.random(3)  # whatever was drawn before
    first, again, other = draw(0), draw(0), draw(1)
    assert np.array_equal(first, again) and not np.array_equal(first, other)


@pytest.mark.parametrize("command", ["train_st_ed.py", "train_facenet.py"])
def test_deterministic_reaches_pytorch(
    command: str,
    setup: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import train_facenet

    run = main if command == "train_st_ed.py" else train_facenet.main
    flags = ["--no-compute-full-result", "--estimator-num-steps", "2", "--estimator-batch-size", "4"]
    flags += ["--gazenet-savepath", "new"] * (command == "train_facenet.py") + ["--estimator-init", "none"]
    run(["config.json", *flags])
    assert not torch.are_deterministic_algorithms_enabled()
    run(["config.json", *flags, "--deterministic"])
    assert torch.are_deterministic_algorithms_enabled() and not torch.backends.cudnn.benchmark


@pytest.mark.parametrize("redirector", ["st-ed-flow", "redirtrans-gan"])
def test_what_no_gpu_does_deterministically_is_refused_before_anything_is_made(redirector: str) -> None:
    with pytest.raises(UserError, match=f"deterministic: .*{redirector}.*--no-deterministic or --device cpu"):
        require_deterministic(redirector, torch.device("cuda"))
    require_deterministic(redirector, torch.device("cpu"))
    require_deterministic("st-ed", torch.device("cuda"))


def test_an_operation_without_a_deterministic_way_is_said_in_a_sentence(
    setup: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(
        RedirectionTrainer, "_prepare", lambda *_: torch.zeros(2).put_(torch.tensor([0]), torch.ones(1))
    )
    assert main(["config.json", "--deterministic"]) == 1
    said = capsys.readouterr().err
    assert "put_ does not have a deterministic implementation" in said and "Traceback" not in said
