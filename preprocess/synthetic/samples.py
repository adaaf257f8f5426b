"""The statistics of the synthetic files: poses, light and backgrounds, and the labels that go with them."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy import ndarray

from preprocess.synthetic.head import build_person
from preprocess.synthetic.person import draw_identity
from preprocess.synthetic.render import render
from preprocess.synthetic.scene import Scene, direction_to_pitchyaw, eye_directions, head_rotation

VARIATIONS = {"calm": 0.2, "full": 1.0}
EYE_IN_HEAD_LIMIT = np.deg2rad([22.0, 32.0])


@dataclass(frozen=True)
class Domain:
    """The statistics of one file. Ranges are (low, high); angles in degrees as (pitch range, yaw range)."""

    name: str
    person_id: Callable[[int], str]
    head: tuple[tuple[float, float], tuple[float, float]] = ((-20, 20), (-30, 30))
    gaze: tuple[tuple[float, float], tuple[float, float]] = ((-22, 22), (-32, 32))
    grid: float = 0.0  # angles are multiples of this many degrees
    exposure: float = 1.0
    ambient: float = 0.42
    contrast: float = 1.0
    blur: float = 0.0  # sigma in pixels at 128
    noise: float = 0.0  # grey levels
    tint: tuple[float, float, float] = (1.0, 1.0, 1.0)
    clutter: float = 0.0
    light_side: float = 0.7
    extra_variation: float = 0.0


# fmt: off
DOMAINS = (
    Domain("GazeCapture", lambda i: f"{i:05d}"),
    # Laptops: looking down, dim, uneven light.
    Domain("MPIIGaze", lambda i: f"p{i:02d}", head=((-14, 18), (-20, 20)), gaze=((-20, 4), (-20, 20)),
           exposure=0.62, contrast=0.85, noise=2.0, tint=(0.92, 0.98, 1.12), clutter=0.35, light_side=1.4,
           extra_variation=0.3),
    # A studio: level heads, targets on a grid, bright even light.
    Domain("Columbia", lambda i: f"{i + 1:04d}", head=((0, 0), (-30, 30)), gaze=((-10, 10), (-30, 30)),
           grid=5.0, exposure=1.08, contrast=1.1, ambient=0.55, light_side=0.25),
    # A webcam some way off: blurred, warm and grainy.
    Domain("EYEDIAP", lambda i: f"{i + 1}_A", head=((-18, 18), (-25, 25)), exposure=0.85, contrast=0.75,
           blur=1.1, noise=3.0, tint=(1.12, 1.0, 0.82), light_side=1.0, extra_variation=0.15),
)
# fmt: on


def _uniform(rng: np.random.Generator, ranges: tuple, grid: float) -> ndarray:
    value = np.array([rng.uniform(low, high) for low, high in ranges])
    return np.deg2rad(np.round(value / grid) * grid if grid else value)


def draw_pose(rng: np.random.Generator, domain: Domain) -> tuple[ndarray, ndarray]:
    """Gaze and head (pitch, yaw) in radians, with the eyes within 22 and 32 degrees of the head."""
    head = _uniform(rng, domain.head, domain.grid)
    while True:
        gaze = _uniform(rng, domain.gaze, domain.grid)
        if np.all(np.abs(gaze - head) < EYE_IN_HEAD_LIMIT):
            return gaze, head


def draw_scene(rng: np.random.Generator, domain: Domain, variation: float) -> Scene:
    """One picture's pose, light, background and expression."""
    gaze, head = draw_pose(rng, domain)
    amount = min(1.0, variation + domain.extra_variation)

    def vary(spread: float) -> float:
        return float(amount * spread * rng.uniform(-1, 1))

    mimic = 0.4 + 0.6 * amount
    warm = vary(0.12)
    sideways = domain.light_side * float(rng.uniform(-1, 1)) * (0.35 + 0.65 * amount)
    return Scene(
        gaze=tuple(gaze.tolist()),
        head=tuple(head.tolist()),
        smile=max(0.0, 0.15 + mimic * float(rng.uniform(-0.7, 0.7))),
        mouth_open=max(0.0, mimic * float(rng.uniform(-5, 4))),
        lid_open=float(rng.uniform(-0.8, 0.8)),
        light=(sideways, -0.45 + vary(0.5), -0.9),
        light_rgb=(1 + warm, 1.0, 1 - warm),
        ambient=domain.ambient * (1 + vary(0.5)),
        exposure=domain.exposure * (1 + vary(0.45)),
        backdrop_gain=1 + vary(0.6),
        backdrop_shift=(vary(0.5), vary(0.4)),
        backdrop_clutter=max(domain.clutter, 0.7 * amount if amount > 0.5 else 0.0),
        contrast=domain.contrast * (1 + vary(0.12)),
        blur=domain.blur * (1 + vary(0.5)) + max(0.0, vary(0.6) - 0.2),
        noise=domain.noise + (2.0 if amount > 0.5 else 0.0),
        tint=domain.tint,
        seed=int(rng.integers(2**31)),
    )


def scene_labels(scene: Scene) -> ndarray:
    """(8,) float32, radians, pitch before yaw: gaze, head, gaze of the eye at image left, at image right."""
    eyes = direction_to_pitchyaw(eye_directions(scene.gaze, head_rotation(*scene.head)))
    return np.concatenate([scene.gaze, scene.head, eyes.ravel()]).astype(np.float32)


def render_person(
    seed: int, domain_index: int, person_index: int, samples: int, image_size: int, variation: float
) -> tuple[ndarray, ndarray]:
    """All pictures of one person, from the arguments alone.

    Returns pixels (samples, image_size, image_size, 3) RGB uint8 and labels (samples, 8) float32.
    """
    key = [seed, domain_index, person_index]
    person = build_person(draw_identity(np.random.default_rng([*key, 0])))
    pixels = np.empty((samples, image_size, image_size, 3), np.uint8)
    labels = np.empty((samples, 8), np.float32)
    for i in range(samples):
        scene = draw_scene(np.random.default_rng([*key, i + 1]), DOMAINS[domain_index], variation)
        pixels[i], labels[i] = render(person, scene, image_size), scene_labels(scene)
    return pixels, labels
