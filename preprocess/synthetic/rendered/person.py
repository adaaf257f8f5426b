"""A rendered person: the mesh shaped and put into the head frame, with colours."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy import ndarray

from preprocess.synthetic.anatomy import LIMBUS_DISTANCE, draw_kappa
from preprocess.synthetic.curves import smooth
from preprocess.synthetic.rendered.assets import LASHES, PARTS, Mesh, load_mesh, normals
from preprocess.synthetic.rendered.beard import displacement
from preprocess.synthetic.rendered.frame import fit_generic, landmark_vertices, shared_vertices
from preprocess.synthetic.rendered.glasses import Worn, fit_glasses
from preprocess.synthetic.rendered.hair import stand_off
from preprocess.synthetic.rendered.hats import wear
from preprocess.synthetic.rendered.locks import grow_locks
from preprocess.synthetic.rendered.places import mean_head
from preprocess.synthetic.rendered.skin import paint_atlas
from preprocess.synthetic.rendered.traits import Traits, draw_traits

_DEEPER = 1.08  # heads are widened by 6 %; this much deeper, noses stand out as far for it as the generic face's
_ABOVE, _BELOW = 1.6, 4.0  # mm from where closed lips meet to the upper teeth, and to the lower ones
_BEHIND = 6.0  # mm that the lower teeth go back, or they come through the chin where the mouth opens
_BARED = 2.5  # mm that upper teeth come down for a lip that is fully raised
_FRONT = 20.0  # mm behind the foremost tooth: those further back are higher, behind cheeks


@dataclass(frozen=True)
class Person:
    """What the renderer needs of a person. mm in the head frame.

    vertices: (V, 3) float32 with a neutral face, first the mesh's, then those of locks of hair or a hat.
    normals: (V, 3), outwards, not quite unit.
    spheres: (2, 4) centre and radius of the eyes, image left first.
    turn: (3, 3) float32, scale and rotation of the mesh's offsets to this person's.
    atlas: (rows, columns, 4) float32, linear colour, and gloss.
    kappa: (outwards, down) radians, see `scene.off_the_line_of_sight`.
    corner_vertex, corner_place, triangles: (C,), (C, 2) and (3, T), as of the mesh, whose corners come first.
    opening: of the neutral eyes between their lids, mm.
    glasses: as they sit, if any are worn.
    """

    traits: Traits
    vertices: ndarray
    normals: ndarray
    spheres: ndarray
    turn: ndarray
    atlas: ndarray
    kappa: tuple[float, float]
    corner_vertex: ndarray
    corner_place: ndarray
    triangles: ndarray
    opening: float
    glasses: Worn | None = None

    @property
    def eyes(self) -> ndarray:
        """(2, 3) mm: what the eyes turn about."""
        return self.spheres[:, :3]


@cache
def solid_and_lashes() -> tuple[ndarray, ndarray]:
    """Corners of the mesh's triangles of both, (3, T) each."""
    mesh = load_mesh()
    lashes = np.isin(mesh.part, LASHES)
    return np.ascontiguousarray(mesh.triangles[~lashes].T), np.ascontiguousarray(mesh.triangles[lashes].T)


def _spheres(mesh: Mesh, vertices: ndarray) -> ndarray:
    """(2, 4): centres and radii of the mesh's eyes."""
    points = vertices[mesh.eyes]
    centres = (points.min(axis=1) + points.max(axis=1)) / 2
    radii = np.linalg.norm(points - centres[:, None], axis=2).mean(axis=1)
    return np.column_stack([centres, radii])


def reseat_lids(mesh: Mesh, vertices: ndarray, radius: float) -> ndarray:
    """(2, 4): eyes of a natural size behind the same lids, centres and radii; moves the lids onto them in `vertices`.

    The mesh's eyes are a third too large, which leaves their corners too far in front: here they come to lie about 4 mm
    before the point that an eye turns about, an estimate. radius: of the new ones, in the units of the vertices.
    """
    old = _spheres(mesh, vertices)
    new = np.column_stack([old[:, :2], old[:, 2] - old[:, 3] + radius, np.full(2, radius)])
    for (x, y, z, large), (_, _, _, small) in zip(old, new, strict=True):
        off = np.hypot(vertices[:, 0] - x, vertices[:, 1] - y)
        front = np.clip((z + large - vertices[:, 2]) / large, 0, 1)
        fade = 1 - smooth(off, 1.15 * small, 2.3 * small)
        vertices[:, 2] += (_hollow(off, small) - _hollow(off, large)) * front * fade
    return new


def _hollow(off: ndarray, radius: float) -> ndarray:
    """How far a sphere lies behind its foremost point, `off` its axis; from 0.85 radii on as steep as there."""
    edge = 0.85 * radius
    depth = np.sqrt(radius**2 - edge**2)
    return radius - np.sqrt(radius**2 - np.minimum(off, edge) ** 2) + np.maximum(off - edge, 0) * (edge / depth)


@cache
def _rows_of_teeth() -> tuple[ndarray, ndarray, ndarray]:
    """Vertices of the lips' inner edges, of the upper teeth and of the lower ones."""
    mesh = load_mesh()
    upper, lower = (
        np.unique(mesh.corner_vertex[mesh.triangles[mesh.part == PARTS.index(name)]])
        for name in ("upper-teeth", "lower-teeth")
    )
    return shared_vertices(mesh, "skin", "mouth"), upper, lower


def bare_teeth(vertices: ndarray, amount: float) -> None:
    """Lowers the upper teeth of `vertices` (V, 3), head frame, where a smile bares them: `hide_teeth` put them high.

    amount: of the raised upper lip, 0 to 1.
    """
    vertices[_rows_of_teeth()[1], 1] += _BARED * amount


def hide_teeth(vertices: ndarray) -> None:
    """Moves teeth up and down, in `vertices` (V, 3), head frame, so that none is seen between closed lips."""
    lips, upper, lower = _rows_of_teeth()
    near = lips[np.argsort(np.abs(vertices[lips, 0] - vertices[lips, 0].mean()))[: len(lips) // 2]]
    slit = vertices[near, 1].mean()
    for row, sign, room in ((upper, -1, _ABOVE), (lower, 1, _BELOW)):
        front = row[vertices[row, 2] < vertices[row, 2].min() + _FRONT]
        tips = (sign * vertices[front, 1]).min()
        vertices[row, 1] += sign * max(0.0, sign * slit + room - tips)
        if row is lower:  # those further back are higher: a tongue would hide them from the side
            vertices[row, 1] = np.maximum(vertices[row, 1], vertices[front, 1].min())
    vertices[lower, 2] += _BEHIND


def build_person(traits: Traits, rng: np.random.Generator) -> Person:
    """Shapes and paints somebody."""
    mesh = load_mesh()
    shaped = mesh.shaped(traits.shape)
    shaped[:, 2] *= _DEEPER
    spheres = reseat_lids(mesh, shaped, np.hypot(LIMBUS_DISTANCE, traits.iris_radius) / fit_generic(shaped)[0])
    scale, rotation, move = fit_generic(shaped)
    turn = (scale * rotation).astype(np.float32)
    vertices = (shaped @ turn.T + move).astype(np.float32)
    hide_teeth(vertices)
    solid = solid_and_lashes()[0]
    faces = mesh.corner_vertex[solid.T]
    raised = displacement(traits.beard)
    if raised is not None:
        vertices += raised[:, None] * normals(vertices, faces)
    spheres = np.column_stack([spheres[:, :3] @ turn.T + move, scale * spheres[:, 3]])
    lids = landmark_vertices()
    opening = float(vertices[lids[[40, 41, 46, 47]], 1].mean() - vertices[lids[[37, 38, 43, 44]], 1].mean())
    raised = stand_off(traits.hairdo, mean_head())
    if raised.any():
        vertices += raised[:, None] * normals(vertices, faces)
    extra = wear(traits.hairdo, vertices) if traits.hairdo.hat else grow_locks(traits.hairdo, vertices)
    return Person(
        traits,
        np.vstack([vertices, extra.vertices]),
        np.vstack([normals(vertices, faces), extra.normals]),
        spheres,
        turn,
        (paint_atlas(traits) * np.float32(1 / 255)) ** 2,
        draw_kappa(rng),
        np.concatenate([mesh.corner_vertex, len(vertices) + np.arange(len(extra.vertices))]),
        np.vstack([mesh.corner_place, extra.places]),
        np.ascontiguousarray(np.hstack([solid, len(mesh.corner_vertex) + extra.triangles.T])),
        opening,
        fit_glasses(traits.glasses, vertices, spheres, traits.texture_seed) if traits.glasses else None,
    )


def draw_person(rng: np.random.Generator) -> Person:
    """Somebody."""
    return build_person(draw_traits(rng), rng)
