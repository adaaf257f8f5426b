"""Kill -9 at moments that nobody chose, wherever hours are spent: the same command makes what it would have made."""

# ruff: noqa: F811  fixtures are imported

import json
from pathlib import Path

import pytest
import torch

import redirect
import train_facenet
import train_st_ed
from checkpoints_manager import save_checkpoint
from core.build import build_redirector
from core.config_default import Config
from core.redirection import following
from dataset_aligned import AlignedDataset
from preprocess import conversion
from preprocess.__main__ import main as preprocess
from preprocess.faces.mesh import Face
from tests import photos, test_redirect_video, test_train_facenet, test_train_st_ed
from tests.clips import write_clip
from tests.kills import Work, drill
from tests.test_interrupted_conversions import columbia
from tests.test_inversion import Pair, cache, write_aligned
from tests.test_synthetic_together import command
from tests.tiny import write_dataset

pytestmark = pytest.mark.slow
setup = test_train_st_ed.setup  # fixtures: folders with data and config.json
estimators = test_train_facenet.setup
QUIET = ["--no-compute-full-result", "--print-freq-test", "1000", "--save-freq-images", "1000"]


def train() -> int:
    return train_st_ed.main(["config.json", "--num-training-steps", "24", "--print-freq-test", "8"])


def save() -> int:
    return train_st_ed.main(["config.json", "--num-training-steps", "40", "--save-interval", "1", *QUIET])


def evaluate() -> int:
    return train_st_ed.main(["config.json", "--skip-training", "--load-step", "6"])


def make_redirected() -> int:
    flags = ["--store-redirect-dataset", "--skip-training", "--load-step", "6", "--no-compute-full-result"]
    return train_st_ed.main(["config.json", *flags])


def train_estimator() -> int:
    flags = ["--estimator-num-steps", "40", "--estimator-test-interval", "10", "--estimator-save-interval", "3"]
    return train_facenet.main(["config.json", *flags])


def invert() -> int:
    cache(AlignedDataset(Path("faces.h5"), name="faces"), Path("codes"), Pair(10_000))
    return 0


def convert() -> int:
    conversion._now = lambda: "2026-01-02T03:04:05Z"  # the date of a file is that of its last minute
    arguments = ["columbia", "--raw", "raw", "--landmarks", "landmarks", "--min-coverage", "0.9", "--workers", "1"]
    return preprocess([*arguments, "--out", "out/out.h5"])


def draw() -> int:
    return preprocess(command(Path("data")))


def redirect_video() -> int:
    face = Face(0.9, test_redirect_video.LANDMARKS)
    following.find_faces = lambda image: [face]
    following.find_largest = lambda image: face
    following.mesh.follow = lambda image, _: face
    options = ["--checkpoint", "run", "--focal", str(test_redirect_video.FOCAL), "--gaze", "0", "15"]
    return redirect.main(["in.mp4", *options, "-o", "out.mp4"])


def trained(folder: Path, persons: int = 4) -> Path:
    """The set-up with a redirector that was trained for six steps."""
    assert train_st_ed.main(["config.json", *QUIET]) == 0
    names = [f"{i:05d}" for i in range(persons)]
    write_dataset(folder / "gc.h5", persons=persons, samples=6)
    split = {"train": names[: persons // 2], "val": names[persons // 2 : -1], "test": names[-1:]}
    (folder / "gazecapture_split.json").write_text(json.dumps(split))
    return folder


def test_training(setup: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    drill(Work(train, setup, "run/.owner"), 4, tmp_path_factory.mktemp("drill"))


def test_saving(setup: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Each kill within milliseconds of the first bytes of a checkpoint."""
    drill(Work(save, setup, "run/checkpoints/.*.tmp", within=0.02), 4, tmp_path_factory.mktemp("drill"), seed=1)


def test_evaluating(setup: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    drill(Work(evaluate, trained(setup, 20), "run/.owner"), 4, tmp_path_factory.mktemp("drill"), seed=2)


def test_redirecting_a_data_set(setup: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    work = Work(make_redirected, trained(setup, 40), "run/.*.parts")
    drill(work, 4, tmp_path_factory.mktemp("drill"), seed=3)


def test_training_an_estimator(estimators: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    drill(Work(train_estimator, estimators, "gaze/.owner"), 3, tmp_path_factory.mktemp("drill"), seed=4)


def test_inverting(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    write_aligned(tmp_path / "faces.h5", samples=60)
    drill(Work(invert, tmp_path, "codes/*"), 3, tmp_path_factory.mktemp("drill"), seed=5)


def test_converting(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    columbia(tmp_path)
    drill(Work(convert, tmp_path, "out"), 2, tmp_path_factory.mktemp("drill"), seed=6)


def test_drawing(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    drill(Work(draw, tmp_path, "data/.owner"), 3, tmp_path_factory.mktemp("drill"), seed=7)


def test_a_video(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    write_clip(tmp_path / "in.mp4", [photos.photograph(photos.make_person())] * 30)
    config = Config(redirector="st-ed-flow", **photos.TINY)
    torch.manual_seed(0)
    parts = dict(build_redirector(config).named_children())
    save_checkpoint(tmp_path / "run", 3, parts, {}, {"config": config.to_json()})
    drill(Work(redirect_video, tmp_path, ".out.mp4.*.tmp"), 3, tmp_path_factory.mktemp("drill"), seed=8)
