"""All pictures of one person, patches and aligned faces, from a seed and a few settings."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy import ndarray

from preprocess.synthetic.aligned import aligned_view, camera_rotation, five_points, to_patch
from preprocess.synthetic.domains import DOMAINS
from preprocess.synthetic.look import Look
from preprocess.synthetic.scene import Framing, Scene, make_view, scene_labels


def _drawn() -> Look[Any, Any]:
    from preprocess.synthetic.drawn.look import DRAWN

    return DRAWN


def _rendered() -> Look[Any, Any]:
    from preprocess.synthetic.rendered.look import RENDERED

    return RENDERED


# Loaded by those who draw them: scipy and the heads of the rendered one take half a second in each process.
LOOKS: dict[str, Callable[[], Look[Any, Any]]] = {"drawn": _drawn, "rendered": _rendered}
FRAMINGS = ("exact", "detected")
# Zoom, and pixels down. In patches of photographs the detector finds what it framed itself (0.99, 0.0 px); in rendered
# ones about its own centre for rendered faces, (0.985, 1.0), it found them too small and too high (0.946, -0.6 px).
_CENTRES = {"drawn": (0.985, 1.0), "rendered": (1.03, 1.6)}
_CAMERA_STREAM, _POSE_STREAM, _FRAMING_STREAM = 1, 2, 3  # of random numbers, apart from the scene's own


@dataclass(frozen=True)
class Style:
    """How pictures are made, the same for a whole data set.

    variation: of light and background, 0 to 1.  group_size: samples in turn that differ in gaze and head alone.
    framing: of FRAMINGS.
    still_heads: share of a group's samples that keep the head of its first, and turn the eyes alone.
    """

    look: str
    variation: float
    group_size: int
    framing: str
    still_heads: float = 0.0


def draw_framing(rng: np.random.Generator, look: str) -> Framing:
    """A patch as detected landmarks place it: as far from the exact one as they do in practice.

    MediaPipe and PnP on 150 rendered faces of 30 persons: zoom 0.98 +- 0.03, roll 1.8 degrees, shifts of 1.4 pixels
    (standard deviations) about one pixel down; people differ more than they do. Centres: see _CENTRES.
    """
    usual, lower = _CENTRES[look]
    zoom, roll, right, down = rng.normal(size=4).clip(-2.5, 2.5) * (0.045, np.deg2rad(1.8), 1.5, 1.5)
    return Framing(float(usual + zoom), float(roll), (float(right), float(lower + down)))


def draw_scenes(key: list[int], domain_index: int, samples: int, style: Style) -> Iterator[Scene]:
    """Scenes of one person, group by group; key: of random numbers."""
    look, domain = LOOKS[style.look](), DOMAINS[domain_index]
    shared = Scene()
    for i in range(samples):
        if i % style.group_size == 0:
            shared = look.draw_scene(np.random.default_rng([*key, i + 1]), domain, style.variation)
            if style.framing == "detected":
                rng = np.random.default_rng([*key, i + 1, _FRAMING_STREAM])
                shared = replace(shared, framing=draw_framing(rng, style.look))
            yield shared
        else:
            rng = np.random.default_rng([*key, i + 1, _POSE_STREAM])
            gaze, head = look.draw_pose(rng, domain)
            noise_seed = int(rng.integers(2**31))
            if style.still_heads and rng.random() < style.still_heads:
                gaze, head = gaze - head + shared.head, np.array(shared.head)
            yield replace(shared, gaze=tuple(gaze.tolist()), head=tuple(head.tolist()), noise_seed=noise_seed)


def groups_of(samples: int, group_size: int) -> ndarray:
    """(samples,) int32: which group each sample of a person is in."""
    return np.arange(samples, dtype=np.int32) // group_size


def draw_person(seed: int, domain_index: int, person_index: int, look: Look[Any, Any]) -> tuple[list[int], Any]:
    """A person, and the key of random numbers that all scenes of that person go by."""
    key = [seed, domain_index, person_index]
    return key, look.draw_person(np.random.default_rng([*key, 0]))


def render_person(
    seed: int, domain_index: int, person_index: int, samples: int, image_size: int, style: Style
) -> tuple[ndarray, ndarray]:
    """All patches of one person, from the arguments alone.

    Returns pixels (samples, image_size, image_size, 3) RGB uint8 and labels (samples, 8) float32.
    """
    look = LOOKS[style.look]()
    key, person = draw_person(seed, domain_index, person_index, look)
    pixels = np.empty((samples, image_size, image_size, 3), np.uint8)
    labels = np.empty((samples, 8), np.float32)
    for i, scene in enumerate(draw_scenes(key, domain_index, samples, style)):
        pixels[i], labels[i] = look.patch(person, scene, image_size), scene_labels(scene, look.eyes(person))
    return pixels, labels


def render_aligned_person(
    seed: int, domain_index: int, person_index: int, samples: int, aligned_size: int, style: Style
) -> dict[str, ndarray]:
    """All aligned faces of one person, from the arguments alone; the scenes are those of `render_person`.

    Returns pixels (samples, aligned_size, aligned_size, 3) RGB uint8, labels (samples, 8) float32, and float64
    homography (samples, 3, 3) and points (samples, 5, 2).
    """
    look = LOOKS[style.look]()
    key, person = draw_person(seed, domain_index, person_index, look)
    person, eyes = look.complete(person), look.eyes(person)
    landmarks_in = look.landmarks(person)
    pixels = np.empty((samples, aligned_size, aligned_size, 3), np.uint8)
    labels, homography = np.empty((samples, 8), np.float32), np.empty((samples, 3, 3))
    points = np.empty((samples, 5, 2))
    for i, scene in enumerate(draw_scenes(key, domain_index, samples, style)):
        landmarks = landmarks_in(scene)
        first = i - i % style.group_size  # of its group, whose camera is one
        camera = camera_rotation(np.random.default_rng([*key, first + 1, _CAMERA_STREAM]))
        seen = make_view(scene, aligned_size, eyes, look.kappa(person))
        view_at = partial(aligned_view, seen, landmarks, camera)
        pixels[i] = look.aligned(person, scene, view_at, aligned_size)
        view = view_at(aligned_size)
        homography[i], points[i] = to_patch(view), five_points(view.project(landmarks))
        labels[i] = scene_labels(scene, eyes)
    return {"pixels": pixels, "labels": labels, "homography": homography, "points": points}
