"""Eyelashes: how much of each point of their strips is hair."""

from functools import cache

import numpy as np
from numpy import ndarray
from scipy import ndimage

from preprocess.synthetic.rendered.assets import PARTS, load_mesh
from preprocess.synthetic.rendered.atlas import SPOTS
from preprocess.synthetic.rendered.places import mean_head

NAMES = ("upper-lashes", "lower-lashes")
_ACROSS = 52.0  # mm, half of what a spot spans: both eyes
# Where lashes end, of a spot's height, by |x| in mm: upper ones are longest at the outer corner.
_TIPS = (([18, 22, 31, 42, 51], [0.55, 0.60, 0.76, 0.86, 1.0]), ([18, 51], [0.88, 0.95]))


@cache
def lash_places() -> ndarray:
    """(2, C) float32 column and row in the atlas of corners of lashes: along both lids, and from root to tip.

    A strip starts behind the lid's edge and leads away from the eye: distance from the eye tells root from tip.
    """
    mesh, vertices = load_mesh(), mean_head()
    place = mesh.corner_place.T.astype(np.float32).copy()
    centres = [(vertices[eye].min(axis=0) + vertices[eye].max(axis=0)) / 2 for eye in mesh.eyes]
    for name in NAMES:
        left, top, width, height = SPOTS[name]
        corners = np.unique(mesh.triangles[mesh.part == PARTS.index(name)])
        for side, centre in zip((-1, 1), centres, strict=True):
            ours = corners[vertices[mesh.corner_vertex[corners], 0] * side > 0]
            points = vertices[mesh.corner_vertex[ours]]
            away = np.linalg.norm(points - centre, axis=1)
            root = np.quantile(away, 0.05)
            place[0, ours] = left + (points[:, 0] / _ACROSS + 1) / 2 * (width - 1)
            place[1, ours] = top + np.clip((away - root) / (away.max() - root), 0, 1) * (height - 1)
    return place


def paint_lashes(atlas: ndarray, strength: float, seed: int) -> None:
    """Colour, and in place of gloss how much is hair, 0 to 255, into the atlas (ROWS, WIDTH, 4).

    strength: 0 thin and fair to 1 with mascara.
    """
    rng = np.random.default_rng(seed)
    for name, most, root, tips in zip(NAMES, (0.95, 0.35), (0.24, 0.38), _TIPS, strict=True):
        left, top, width, height = SPOTS[name]
        x = np.abs(np.linspace(-_ACROSS, _ACROSS, width))
        tufts = ndimage.gaussian_filter1d(rng.normal(size=width), 0.6)
        length = (np.interp(x, *tips) - root) * (0.7 + 0.3 * strength) * (1 + 0.22 * tufts)
        t = (np.linspace(0, 1, height)[:, None] - root) / length
        cover = np.clip(1 - t, 0, 1) ** (0.95 - 0.4 * strength) * np.clip(1 + 0.3 * tufts, 0.4, 1.4)
        cover *= most * (0.75 + 0.25 * strength) * np.interp(x, [18, 23], [0.2, 1])
        spot = atlas[top : top + height, left : left + width]
        spot[..., :3] = (30, 22, 20)
        spot[..., 3] = 255 * np.clip(cover, 0, 0.95)
