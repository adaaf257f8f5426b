"""Eyes of a rendered person: balls behind the lids, an iris that turns about the eye's centre of rotation."""

import cv2
import numpy as np
from numpy import ndarray

from preprocess.synthetic.anatomy import LIMBUS_DISTANCE
from preprocess.synthetic.rendered.person import Person
from preprocess.synthetic.rendered.scene import RenderedScene
from preprocess.synthetic.scene import View, unit

SCLERA = np.array([0.68, 0.63, 0.60], np.float32)  # linear RGB
PINK = np.array([0.42, 0.20, 0.17], np.float32)
_SHRINK = 0.985  # of the ball that the lids are seated on
_REACH = 20.0  # mm about an eye that are painted


def windows(person: Person, view: View) -> list[tuple[slice, slice]]:
    """Rows and columns of a picture around each eye."""
    found = []
    for centre in person.eyes:
        column, row = np.rint(view.project(centre - (0, 0, 14))).astype(int)
        reach = int(np.ceil(_REACH * view.millimetre))
        rows, columns = (
            slice(int(np.clip(at - r, 0, view.size)), int(np.clip(at + r, 0, view.size)))
            for at, r in ((row, reach * 3 // 4), (column, reach))
        )
        found.append((rows, columns))
    return found


def paint_eyes(
    picture: ndarray,
    depth: ndarray,
    open_: ndarray,
    lit: ndarray,
    person: Person,
    scene: RenderedScene,
    view: View,
) -> ndarray:
    """Paints both eyes into a linear RGB picture (3, S, S) where the lids let them be seen, `open_` (S, S) bool.

    Returns where, (S, S) bool, and brings `depth` (S, S) up to the eyes.
    """
    where = np.zeros(depth.shape, bool)
    for eye, window in enumerate(windows(person, view)):
        if depth[window].size:
            parts = picture[:, *window], depth[window], open_[window], lit[window]
            where[window] |= _paint_eye(*parts, window, person, scene, view, eye)
    return where


def _rays(view: View, window: tuple[slice, slice]) -> ndarray:
    """(h, w, 3) float32 ways of light, camera frame, z 1."""
    line = np.arange(view.size)
    x, y = view.to_plane(line[window[1]], line[window[0]])
    return np.dstack([x, y, np.ones_like(x)]).astype(np.float32)


def _paint_eye(
    patch: ndarray,
    depth: ndarray,
    open_: ndarray,
    lit: ndarray,
    window: tuple[slice, slice],
    person: Person,
    scene: RenderedScene,
    view: View,
    eye: int,
) -> ndarray:
    rays = _rays(view, window)
    centre = view.to_camera(person.eyes[eye]).astype(np.float32)
    radius = np.float32(_SHRINK * person.spheres[eye, 3])
    length = cv2.transform(rays * rays, np.ones((1, 3)))
    along = cv2.transform(rays, centre[None]) / length
    root = along * along - (centre @ centre - radius * radius) / length
    distance = along - np.sqrt(np.maximum(root, 0))
    seen = (root > 0) & open_
    if not seen.any():
        return seen
    opening = cv2.GaussianBlur(seen.astype(np.float32), (0, 0), max(1.6 * view.millimetre, 0.7))
    shade, opening = _shade(opening, view)[seen], opening[seen]
    rays, depth[seen] = rays[seen], distance[seen]
    normal = (rays * distance[seen][:, None] - centre) / radius
    colour = _ball_colour(rays, normal, person, view, eye)
    light = _light(normal, lit[seen], scene) * shade
    shine = _glint(normal, person, scene, view, eye) * np.clip(3 * opening - 1.2, 0, 1)
    patch[:, seen] = (colour * light[:, None] + shine[:, None]).T
    return seen


def _ball_colour(rays: ndarray, normal: ndarray, person: Person, view: View, eye: int) -> ndarray:
    """(n, 3) linear, where rays (n, 3) meet the ball: sclera with pink corners, iris with rim and fibres, pupil."""
    traits = person.traits
    axis = (view.rotation @ view.pupil_axes[eye]).astype(np.float32)
    centre = view.to_camera(person.eyes[eye]).astype(np.float32)
    meet = (centre @ axis + np.float32(LIMBUS_DISTANCE)) / (rays @ axis)
    across = rays * meet[:, None] - (centre + np.float32(LIMBUS_DISTANCE) * axis)
    radius = np.sqrt((across * across).sum(axis=1)) / np.float32(traits.iris_radius)
    head = normal @ view.rotation.astype(np.float32)  # in the head frame
    side = (-1.0, 1.0)[eye]
    corner = np.clip(1.9 * np.abs(head[:, 0]) - np.where(head[:, 0] * side > 0, 1.2, 0.8), 0, 1)
    colour = SCLERA * (1 - 0.10 * np.abs(head[:, 1:2])) + (PINK - SCLERA) * corner[:, None] * np.float32(0.75)
    iris = (np.array(traits.iris, np.float32) / 255) ** 2
    right, down = view.rotation[:, 0].astype(np.float32), view.rotation[:, 1].astype(np.float32)
    angle = np.arctan2(across @ down, across @ right)
    phase = traits.texture_seed % 97
    fibres = 0.16 * np.sin(23 * angle + phase) + 0.12 * np.sin(41 * angle + 2.3 * phase + 3 * radius)
    tone = 1.15 + fibres - 0.75 * np.clip((radius - 0.74) / 0.26, 0, 1) ** 1.5
    tone += 0.35 * np.exp(-(((radius - traits.pupil - 0.12) / 0.12) ** 2))
    soft = 0.045 + 0.35 / view.millimetre / traits.iris_radius
    inside = np.clip((1 - radius) / (2 * soft) + 0.5, 0, 1)[:, None]
    colour += (iris * tone[:, None] - colour) * inside
    pupil = np.clip((traits.pupil - radius) / (1.2 * soft) + 0.5, 0, 1)[:, None]
    return colour + (np.float32(0.004) - colour) * pupil


def _shade(opening: ndarray, view: View) -> ndarray:
    """(h, w): how much light the lids leave, of which the upper one's shade reaches further. opening: (h, w)."""
    down = max(1, round(1.3 * view.millimetre))
    lower = np.vstack([np.repeat(opening[:1], down, axis=0), opening[:-down]]) if down < len(opening) else opening
    return np.clip(2.0 * np.minimum(opening, lower) - 0.4, 0.12, 1)


def _light(normal: ndarray, lit: ndarray, scene: RenderedScene) -> ndarray:
    """(n,): diffuse light on the ball, without the lids' shade. lit: (n,) of the key light."""
    key = np.clip((normal @ unit(scene.light) + 0.4) / 1.4, 0, 1) * np.float32(scene.key)
    return key * (0.5 + 0.5 * lit) + np.float32(scene.ambient * 0.9 + np.mean(scene.fill_rgb))


def _glint(normal: ndarray, person: Person, scene: RenderedScene, view: View, eye: int) -> ndarray:
    """(n,): the lights' reflections; the cornea bulges, so they stay near the pupil."""
    axis = (view.rotation @ view.pupil_axes[eye]).astype(np.float32)
    to_camera = -view.to_camera(person.eyes[eye])
    to_camera = (to_camera / np.linalg.norm(to_camera)).astype(np.float32)
    shine = np.zeros(len(normal), np.float32)
    for light, strength, sharp in (
        (scene.light, 1.5 * scene.key, 900.0),
        (scene.fill, 1.0 * float(np.mean(scene.fill_rgb)), 350.0),
    ):
        half = unit(light) + to_camera
        spot = 0.42 * half / np.linalg.norm(half) + 0.72 * axis
        spot = (spot / np.linalg.norm(spot)).astype(np.float32)
        shine += np.float32(strength * scene.glint) * np.exp(np.minimum(normal @ spot - 1, 0) * np.float32(sharp))
    return shine
