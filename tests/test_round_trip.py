"""Rendered people in larger photographs: a redirector that is right must give the photograph that was asked for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import round_trip
from benchmarks.round_trip import Scene, error, make_scene, measure
from core.redirection.equalizing import Equalized
from core.redirection.photo import redirect_faces
from core.redirection.photo_files import Photo
from models.redirector import Decoded, Encoding
from preprocess.normalization import warp_image
from tests import photos
from tests.tiny import tiny_flow, tiny_redirector


class Knows(photos.Told):
    """Decodes the patch that is wanted where the gaze was rotated, as paint over the source."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(shares=(0.0, 0.0, 1.0))
        patch = warp_image(scene.after, scene.face.to_patch, 128)
        self.wanted = Equalized(patch, 128).tensor(torch.device("cpu"))

    def decode_parts(self, encoding: Encoding) -> Decoded:
        plain = super().decode_parts(encoding)
        return Decoded(self.wanted, {**plain.parts, "paint": self.wanted})

    def decode(self, encoding: Encoding) -> Tensor:
        return encoding.remainder["image"]


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene(photos.make_person(), np.random.default_rng(0), "gaze", (0.0, 20.0))


def test_the_wanted_scene_has_no_error_and_differs_in_the_eyes_alone(scene: Scene):
    assert error(scene.after, scene) == 0 < 2 < error(scene.before, scene)
    x, y = np.rint(scene.face.corners.mean(axis=0)).astype(int)
    below = np.s_[y + 40 :, :]
    assert np.abs(scene.after[below].astype(int) - scene.before[below]).mean() < 0.5


@pytest.mark.parametrize("back", ["patch", "pixels"])
def test_a_redirector_that_is_right_halves_the_error_of_the_eyes(scene: Scene, back):
    redirector = Knows(scene)
    redirector.carries_pixels = back == "pixels"
    loaded = photos.loaded(redirector, size=128)
    done = redirect_faces(loaded, Photo(scene.before), [scene.face], scene.edit, back=back)
    assert error(done.pixels, scene) < error(scene.before, scene) / 2


def test_a_row_a_step_and_a_column_a_way_back(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(round_trip, "STEPS", ((0.0, 10.0),))
    person = photos.make_person()
    (line,), (picture,) = measure(photos.loaded(tiny_flow()), "gaze", [person])
    assert line.startswith("| gaze 0 10 | ") and line.count("|") == 5
    assert picture.shape == (photos.SIDE, 4 * photos.SIDE, 3)
    (line,), _ = measure(photos.loaded(tiny_redirector()), "gaze", [person])
    assert line.count("|") == 4


def test_a_folder_that_is_no_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert round_trip.main([str(tmp_path)]) == 2
    assert "Name a run folder" in capsys.readouterr().err
