"""What differs between pictures of a rendered person: pose, mood, light, background and camera."""

from dataclasses import dataclass, replace

import numpy as np
from numpy import ndarray

from preprocess.synthetic.domains import Domain, Ranges, draw_pose
from preprocess.synthetic.rendered.colours import Rgb
from preprocess.synthetic.rendered.expression import Expression, draw_expression
from preprocess.synthetic.scene import DISTANCE, Scene

WIDE_SHARE, WIDER = 0.35, 1.6  # of the pictures, and how much wider than the domain's their ranges are


@dataclass(frozen=True)
class RenderedScene(Scene):
    """A scene with more light and more camera. Light is linear, colours are factors around 1.

    key: strength of the light from `light`; softness: of its shadow, pixels at 64.
    fill: towards the second light, camera frame; fill_rgb: its strength.  gamma: of the camera.
    jpeg: quality, 0 for none.
    """

    expression: Expression = ()
    key: float = 0.8
    softness: float = 1.0
    fill: Rgb = (-0.6, -0.2, -0.8)
    fill_rgb: Rgb = (0.1, 0.1, 0.1)
    sky_rgb: Rgb = (1.0, 1.0, 1.05)
    ground_rgb: Rgb = (0.6, 0.55, 0.5)
    gamma: float = 2.2
    jpeg: int = 0


def _tint(rng: np.random.Generator, amount: float) -> Rgb:
    """A colour of light around white: warm to cool, a little green to magenta."""
    warm, green = amount * float(rng.normal()), 0.25 * amount * float(rng.normal())
    return 1 + warm, 1 + green, 1 - warm


def draw_wide_pose(rng: np.random.Generator, domain: Domain) -> tuple[ndarray, ndarray]:
    """As `domains.draw_pose`, but some pictures are taken from further to the side, as photographs are."""
    if domain.grid or rng.random() >= WIDE_SHARE:
        return draw_pose(rng, domain)
    return draw_pose(rng, replace(domain, head=_widened(domain.head), gaze=_widened(domain.gaze)))


def _widened(ranges: Ranges) -> Ranges:
    (a, b), (c, d) = ranges
    return (WIDER * a, WIDER * b), (WIDER * c, WIDER * d)


def draw_scene(rng: np.random.Generator, domain: Domain, variation: float) -> RenderedScene:
    """One picture's pose, mood, light, background and camera."""
    gaze, head = draw_wide_pose(rng, domain)
    amount = min(1.0, variation + domain.extra_variation)

    def vary(spread: float) -> float:
        return float(amount * spread * rng.uniform(-1, 1))

    sideways = domain.light_side * float(rng.normal()) * (0.3 + 0.7 * amount)
    key = 0.75 + vary(0.55)
    fill = amount * float(rng.uniform(0, 0.3))
    tint = _tint(rng, 0.08 * amount)
    return RenderedScene(
        gaze=tuple(gaze.tolist()),
        head=tuple(head.tolist()),
        light=(sideways, -0.5 + vary(0.7), -0.85),
        light_rgb=_tint(rng, 0.06 * amount),
        ambient=domain.ambient * (1 + vary(0.6)),
        exposure=domain.exposure * float(np.exp(0.3 * amount * rng.normal())),
        backdrop_gain=1 + vary(0.6),
        contrast=domain.contrast * (1 + vary(0.15)),
        blur=0.35 + domain.blur * (1 + vary(0.5)) + max(0.0, vary(0.9)),
        noise=domain.noise + amount * float(rng.gamma(1.3, 1.0)),
        tint=(domain.tint[0] * tint[0], domain.tint[1] * tint[1], domain.tint[2] * tint[2]),
        seed=int(rng.integers(2**31)),
        expression=draw_expression(rng, amount),
        key=key,
        softness=0.6 + amount * float(rng.exponential(0.8)),
        fill=(-np.sign(sideways) * float(rng.uniform(0.2, 1)), float(rng.uniform(-0.6, 0.3)), -0.6),
        fill_rgb=(fill * tint[2], fill, fill * tint[0]),
        sky_rgb=_tint(rng, 0.06 * amount),
        ground_rgb=tuple((0.6 * np.array(_tint(rng, 0.1 * amount))).tolist()),
        gamma=2.2 + vary(0.3),
        distance=DISTANCE * float(np.exp(amount * rng.uniform(-0.4, 1.5))),
        jpeg=0 if rng.random() > amount else int(rng.integers(55, 96)),
    )
