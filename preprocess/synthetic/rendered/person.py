"""A rendered person: the mesh shaped and put into the head frame, with colours."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy import ndarray

from preprocess.synthetic.rendered.assets import PARTS, Mesh, load_mesh
from preprocess.synthetic.rendered.frame import fit_generic
from preprocess.synthetic.rendered.hair import stand_off
from preprocess.synthetic.rendered.hats import wear
from preprocess.synthetic.rendered.locks import grow_locks
from preprocess.synthetic.rendered.skin import paint_atlas
from preprocess.synthetic.rendered.template import mean_vertices
from preprocess.synthetic.rendered.traits import Traits, draw_traits

LASHES = (PARTS.index("upper-lashes"), PARTS.index("lower-lashes"))


@dataclass(frozen=True)
class Person:
    """What the renderer needs of a person. mm in the head frame.

    vertices: (V, 3) float32 with a neutral face, first the mesh's, then those of locks of hair.
    normals: (V, 3), outwards, not quite unit.
    spheres: (2, 4) centre and radius of the mesh's eyes, image left first; eyes: (2, 3) where they turn about.
    turn: (3, 3) float32, scale and rotation of the mesh's offsets to this person's.
    atlas: (rows, columns, 4) uint8, colour on a square-root scale, and gloss.
    corner_vertex, corner_place, triangles: as of the mesh, (C,), (C, 2) and (3, T); what is no part of it comes last.
    kappa: (outwards, down) radians, see `scene.off_the_line_of_sight`.
    """

    traits: Traits
    vertices: ndarray
    normals: ndarray
    spheres: ndarray
    eyes: ndarray
    turn: ndarray
    atlas: ndarray
    kappa: tuple[float, float]
    corner_vertex: ndarray
    corner_place: ndarray
    triangles: ndarray


@cache
def solid_and_lashes() -> tuple[ndarray, ndarray]:
    """Corners of the mesh's triangles of both, (3, T) each."""
    mesh = load_mesh()
    lashes = np.isin(mesh.part, LASHES)
    return np.ascontiguousarray(mesh.triangles[~lashes].T), np.ascontiguousarray(mesh.triangles[lashes].T)


def corner_normals(mesh: Mesh, vertices: ndarray) -> ndarray:
    """(V, 3) unit normals, outwards, of the vertices of all triangles but the lashes'."""
    triangles = mesh.corner_vertex[mesh.triangles[~np.isin(mesh.part, LASHES)]]
    a, b, c = (vertices[corners] for corners in triangles.T)
    across = np.cross(b - a, c - a)
    normals = np.stack(
        [sum(np.bincount(corners, across[:, k], len(vertices)) for corners in triangles.T) for k in range(3)], axis=1
    )
    return (normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)).astype(np.float32)


LIMBUS = 10.7  # mm from where an eye turns about to the rim of its iris


def _spheres(mesh: Mesh, vertices: ndarray) -> ndarray:
    """(2, 4): centres and radii of the mesh's eyes."""
    points = vertices[mesh.eyes]
    centres = (points.min(axis=1) + points.max(axis=1)) / 2
    radii = np.linalg.norm(points - centres[:, None], axis=2).mean(axis=1)
    return np.column_stack([centres, radii])


def build_person(traits: Traits, rng: np.random.Generator) -> Person:
    """Shapes and paints somebody."""
    mesh = load_mesh()
    shaped = mesh.vertices + mesh.moved(traits.shape)
    scale, rotation, move = fit_generic(shaped)
    turn = (scale * rotation).astype(np.float32)
    vertices = (shaped @ turn.T + move).astype(np.float32)
    spheres = _spheres(mesh, vertices)
    reach = np.hypot(LIMBUS, traits.iris_radius)
    eyes = spheres[:, :3] - (spheres[:, 3:] - reach) * [0, 0, 1]
    normals = corner_normals(mesh, vertices)
    vertices += stand_off(traits.hairdo, mean_vertices())[:, None] * normals
    locks = wear(traits.hairdo, vertices) if traits.hairdo.hat else grow_locks(traits.hairdo, vertices)
    start = len(mesh.corner_vertex)
    kappa = np.deg2rad([4.0 + 1.2 * rng.normal(), 1.0 + 0.5 * rng.normal()])
    return Person(
        traits,
        np.vstack([vertices, locks.vertices]),
        np.vstack([corner_normals(mesh, vertices), locks.normals]),
        spheres,
        eyes,
        turn,
        paint_atlas(traits),
        (float(kappa[0]), float(kappa[1])),
        np.concatenate([mesh.corner_vertex, len(vertices) + np.arange(len(locks.vertices))]),
        np.vstack([mesh.corner_place, locks.places]),
        np.hstack([solid_and_lashes()[0], start + locks.triangles.T]).astype(np.int32),
    )


def draw_person(rng: np.random.Generator) -> Person:
    """Somebody."""
    return build_person(draw_traits(rng), rng)
