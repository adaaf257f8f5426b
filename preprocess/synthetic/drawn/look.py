"""The drawn look: what a scene is drawn from, and where a drawn person has the landmarks of an alignment."""

from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
from numpy import ndarray

from preprocess.synthetic.aligned import AlignedView, as_68, behind
from preprocess.synthetic.curves import smooth
from preprocess.synthetic.domains import Domain, draw_pose
from preprocess.synthetic.drawn.eyes import lid_heights
from preprocess.synthetic.drawn.head import EAR_ROWS, HEAD_ROWS, NECK_ROWS, Person, build_person
from preprocess.synthetic.drawn.person import draw_identity
from preprocess.synthetic.drawn.render import develop, draw_backdrop, paint, pose, render
from preprocess.synthetic.drawn.shapes import mouth_line
from preprocess.synthetic.look import Look
from preprocess.synthetic.scene import EYE_X, EYES, PATCH_SIZE, Scene


def draw_person(rng: np.random.Generator) -> Person:
    """Somebody."""
    return build_person(draw_identity(rng))


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


def complete(person: Person) -> Person:
    """The person with what no patch shows: long hair runs on under that of the scalp, and shoulders further down."""
    position = person.position.copy()
    position[person.neck, :, 1] += 1.5 * np.maximum(position[person.neck, :, 1] - 132, 0)
    hair = position[HEAD_ROWS + EAR_ROWS + NECK_ROWS :]
    inwards = 1 - 0.22 * (1 - smooth(hair[..., 1], -64, -36))
    hair[..., 0] *= inwards
    hair[..., 2] = 74 + (hair[..., 2] - 74) * inwards
    return replace(person, position=position)


def _find_landmarks(person: Person) -> ndarray:
    """Where in the atlas LANDMARKS are in the face at rest, (15, 2) row and column of the nearest points."""
    identity = person.identity
    wanted: list[tuple[float, float]] = []
    for side in (-1.0, 1.0):
        outward = identity.eye_width * np.array([-1, -1 / 3, 1 / 3, 1, 1 / 3, -1 / 3])
        upper, lower = lid_heights(identity, outward)
        y = np.concatenate([upper[:4], lower[4:]])
        wanted += zip(side * (EYE_X + outward), y, strict=True)
    corners = identity.mouth_width * np.array([-1.0, 1.0])
    wanted += zip(corners, mouth_line(identity, corners), strict=True)
    head = person.position[:HEAD_ROWS]
    behind = 1e6 * (head[..., 2] > 45)
    found = [np.argmin(np.hypot(head[..., 0] - x, head[..., 1] - y) + behind) for x, y in wanted]
    rows, columns = np.unravel_index(found, head.shape[:2])
    places = np.column_stack([rows, columns])
    return np.concatenate([places[:12], [person.nose_tip], places[12:]])


def landmarks(person: Person) -> Callable[[Scene], ndarray]:
    """See Look."""
    places = tuple(_find_landmarks(person).T)

    def of(scene: Scene) -> ndarray:
        return as_68(pose(person, scene)[places])

    return of


def aligned(person: Person, scene: Scene, view_at: Callable[[int], AlignedView], size: int) -> ndarray:
    """See Look; below 256 pixels painted at twice the size and averaged."""
    fine = view_at(min(2 * size, max(size, 256)))
    picture = paint(person, scene, fine, behind(fine, draw_backdrop(person, scene, PATCH_SIZE)))
    if fine.size != size:
        picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    return develop(picture, scene, view_at(size).scale)


DRAWN = Look(
    draw_person=draw_person,
    draw_pose=draw_pose,
    draw_scene=draw_scene,
    patch=render,
    aligned=aligned,
    landmarks=landmarks,
    eyes=lambda _: EYES,
    kappa=lambda person: person.identity.kappa,
    complete=complete,
    group_size=1,
    framing="exact",
)
