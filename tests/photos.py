"""Rendered people in larger photographs, for what puts a face back, and redirectors that do what they are told."""

import functools
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy import ndarray
from torch import Tensor

import core.redirection.faces as faces_room
from checkpoints_manager import save_checkpoint
from core.build import build_redirector
from core.config_default import Config
from core.redirection.faces import PhotoFace, place
from core.redirection.load import Loaded
from models.redirector import Decoded, Encoding, Factor, Redirector
from preprocess.faces.search import Found
from preprocess.synthetic.aligned import AlignedView
from preprocess.synthetic.rendered.person import Person, build_person
from preprocess.synthetic.rendered.render import aligned
from preprocess.synthetic.rendered.scene import RenderedScene
from preprocess.synthetic.rendered.traits import draw_traits
from preprocess.synthetic.scene import View, make_view
from tests.raw_trees import Camera, Shot, lay_out, write_image

TINY: dict[str, Any] = {
    "image_size": 64, "growth_rate": 2, "densenet_blocks": 3, "fc_embedding_width": 16, "size_0d_unit": 8,
    "num_1d_units": 0, "num_2d_units": 2, "size_2d_unit": 4, "flow_width": 4, "projector_width": 8,
    "deprojector_width": 8,
}  # fmt: skip


SIDE = 480
CAMERA = Camera.plain(900.0, SIDE, SIDE)
SHOT = lay_out(CAMERA, distance=600, gaze=(4, -8), head=(6, -14), at=(0.05, -0.04), roll=11)


@functools.cache
def make_person(seed: int = 0) -> Person:
    """Somebody without glasses; to be looked at, not changed."""
    traits = draw_traits(np.random.default_rng(seed))
    return build_person(replace(traits, glasses=None), np.random.default_rng(seed))


def photograph(person: Person, shot: Shot = SHOT, size: int = SIDE) -> ndarray:
    """(size, size, 3) RGB uint8: the person before the shot's camera, 600 mm away."""
    labels = [float(angle) for angle in shot.labels]
    scene = RenderedScene(gaze=(labels[0], labels[1]), head=(labels[2], labels[3]), noise=0.0)

    def view_at(side: int) -> AlignedView:
        ratio = side / shot.camera.width
        shift = (ratio - 1) / 2
        scaled = np.array([[ratio, 0, shift], [0, ratio, shift], [0, 0, 1]])
        plain: View = make_view(scene, side, person.eyes, person.kappa)
        plane = scaled @ shot.camera.matrix @ shot.to_normalized.T
        return AlignedView(side, plain.rotation, plain.gaze_directions, plain.pupil_axes, plane)

    return aligned(person, scene, view_at, size)


def face_of(shot: Shot = SHOT) -> PhotoFace:
    found = place(shot.landmarks_with_lids(), shot.camera.matrix, (shot.camera.height, shot.camera.width))
    assert isinstance(found, PhotoFace)
    return found


def loaded(redirector: Redirector, size: int = 64) -> Loaded:
    """A redirector as `load` gives it."""
    return Loaded(redirector.eval().requires_grad_(False), Config(image_size=size), torch.device("cpu"))


class Told(Redirector):
    """Carries pixels by constant flows and shares, whatever is asked for; its picture is the source."""

    factors = (Factor("head", 2, 2), Factor("gaze", 2, 2))
    carries_pixels = True

    def __init__(
        self,
        flow: tuple[float, float] = (0.0, 0.0),
        mirror_flow: tuple[float, float] = (0.0, 0.0),
        shares: tuple[float, float, float] = (1.0, 0.0, 0.0),
        paint: float = 0.0,
    ) -> None:
        super().__init__()
        self.told = {"flow": flow, "mirror_flow": mirror_flow, "shares": shares}
        self.paint = paint

    def encode(self, image: Tensor) -> Encoding:
        angles = {factor.name: torch.zeros(len(image), 2) for factor in self.factors}
        embeddings = {factor.name: torch.zeros(len(image), *factor.shape) for factor in self.factors}
        return Encoding(angles, embeddings, {"image": image})

    def decode_parts(self, encoding: Encoding) -> Decoded:
        image = encoding.remainder["image"]
        maps = {
            name: torch.tensor(values).view(1, -1, 1, 1).expand(len(image), -1, *image.shape[-2:])
            for name, values in self.told.items()
        }
        return Decoded(image, {**maps, "warp": image, "paint": image + self.paint})

    def decode(self, encoding: Encoding) -> Tensor:
        return self.decode_parts(encoding).image


def shifted(image: ndarray, columns: float, rows: float) -> ndarray:
    """Each pixel from `columns` and `rows` further on."""
    matrix = np.array([[1, 0, columns], [0, 1, rows]], np.float64)
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, image.shape[1::-1], flags=flags)


def opened(landmarks: ndarray) -> ndarray:
    """Landmarks (68, 2) with lids 10 pixels apart."""
    landmarks = landmarks.copy()
    landmarks[[37, 38, 43, 44], 1] -= 5
    landmarks[[40, 41, 46, 47], 1] += 5
    return landmarks


def make_tree(folder: Path, pixels: ndarray, monkeypatch: pytest.MonkeyPatch, faces: int = 1) -> Path:
    """`in.png`, in which SHOT's face is found, several times if asked for, and a run folder of each redirector."""
    write_image(folder / "in.png", pixels)
    found = [SimpleNamespace(landmarks=opened(SHOT.landmarks_with_lids()))] * faces
    monkeypatch.setattr(faces_room, "search", lambda image: Found(found if image.std() > 1 else [], []))
    for kind in ("st-ed", "redirtrans", "st-ed-flow"):
        config = Config(redirector=kind, **TINY)
        redirector = build_redirector(config)
        save_checkpoint(folder / kind, 3, dict(redirector.named_children()), {}, {"config": config.to_json()})
    return folder


def command(tree: Path, *more: str, photo: str = "in.png", checkpoint: str = "st-ed-flow") -> list[str]:
    """What redirect.py is given; `-o` is out.png."""
    out = [] if "-o" in more else ["-o", str(tree / "out.png")]
    focal = str(CAMERA.matrix[0, 0])
    return [str(tree / photo), "--checkpoint", str(tree / checkpoint), "--focal", focal, *out, *more]
