"""Data that make no sense are refused or doubted before a training begins."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from core.command import UserError
from core.sense import require_pairs, require_sense
from dataset import GazeDataset
from tests.tiny import write_dataset


def changed(path: Path, change: Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]) -> GazeDataset:
    """A data set whose pixels and labels of each person are changed."""
    with h5py.File(write_dataset(path / "gc.h5", persons=2, samples=5), "a") as file:
        for group in file.values():
            pixels, labels = change(group["pixels"][()], group["labels"][()])
            del group["pixels"], group["labels"]
            group["pixels"], group["labels"] = pixels, labels
    return GazeDataset(path / "gc.h5", name="gc/train")


def test_good_data_are_taken_without_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require_sense(changed(tmp_path, lambda pixels, labels: (pixels, labels)), is_learned=True)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("labels_of", [np.degrees, lambda labels: labels + 4])
def test_degrees_and_what_is_beyond_pi_are_refused(
    tmp_path: Path, labels_of: Callable[[np.ndarray], np.ndarray]
) -> None:
    with pytest.raises(UserError, match=r"gc\.h5: .* of 10 labels are beyond .*expected radians.*preprocess verify"):
        require_sense(changed(tmp_path, lambda pixels, labels: (pixels, labels_of(labels))), is_learned=False)


def test_labels_that_overflow_are_refused(tmp_path: Path) -> None:
    data = changed(tmp_path, lambda pixels, labels: (pixels, labels.astype(np.float64) * 1e300))
    with pytest.raises(UserError, match="person '00000' has labels that are not finite, 5 of 5"):
        require_sense(data, is_learned=True)


def first_beyond(pixels: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    labels[0, 2] = 1.6
    return pixels, labels


DOUBTS = {
    "constant": (lambda p, y: (p, y * (1, 0, 1, 1)), "the same gaze yaw in all labels"),
    "black": (lambda p, y: (p * 0, y), "10 of 10 images looked at show nothing"),
    "of one colour": (lambda p, y: (p * 0 + np.uint8([90, 5, 200]), y), "10 of 10 images looked at show nothing"),
    "some beyond": (first_beyond, "2 of 10 labels are beyond 90 degrees of pitch"),
}


@pytest.mark.parametrize("kind", DOUBTS)
def test_what_is_doubtful_is_said_once(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    change, doubt = DOUBTS[kind]
    require_sense(changed(tmp_path, change), is_learned=True)
    said = capsys.readouterr().out
    assert said.count("warning: gc/train: ") == 1 and doubt in said


def test_an_angle_that_is_the_same_in_all_is_doubtful_of_what_is_learned_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Columbia's heads are never raised: no reason to make that test set anew."""
    require_sense(changed(tmp_path, lambda pixels, y: (pixels, y * (1, 1, 0, 1))), is_learned=False)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("still", ["gaze", "head"])
def test_a_test_set_of_which_nothing_turns_is_doubtful(
    tmp_path: Path, still: str, capsys: pytest.CaptureFixture[str]
) -> None:
    turns = (0, 0, 1, 1) if still == "gaze" else (1, 1, 0, 0)
    require_sense(changed(tmp_path, lambda pixels, y: (pixels, y * turns)), is_learned=False)
    assert f"the same {still} pitch, {still} yaw in all labels" in capsys.readouterr().out


def test_persons_of_one_image_each_make_no_pairs(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gc\.h5: each of its 3 persons has one image"):
        require_pairs(GazeDataset(write_dataset(tmp_path / "gc.h5", persons=3, samples=1)))
    require_pairs(GazeDataset(write_dataset(tmp_path / "gc.h5", persons=3, samples=2)))
