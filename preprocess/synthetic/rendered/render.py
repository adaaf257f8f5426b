"""Pictures of a rendered person: triangles to pixels, light, eyes, lashes, glasses, camera."""

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np
from numpy import ndarray

from preprocess.synthetic.aligned import AlignedView, behind
from preprocess.synthetic.rendered.assets import PARTS, load_mesh
from preprocess.synthetic.rendered.atlas import MOUTH
from preprocess.synthetic.rendered.camera import develop, draw_backdrop, metered
from preprocess.synthetic.rendered.expression import posed
from preprocess.synthetic.rendered.eyes import paint_eyes
from preprocess.synthetic.rendered.glasses_paint import paint_glasses
from preprocess.synthetic.rendered.lashes import lash_places
from preprocess.synthetic.rendered.light import FAR, shade, what_light_reaches
from preprocess.synthetic.rendered.neck import twist
from preprocess.synthetic.rendered.person import Person, bare_teeth, solid_and_lashes
from preprocess.synthetic.rendered.raster import Surface, rasterize
from preprocess.synthetic.rendered.scene import RenderedScene
from preprocess.synthetic.scene import PATCH_SIZE, View, make_view

# Shade of the lips is found too coarsely to leave the teeth any light: so much gets there at least.
_LIT_MOUTH, _LIGHT_MOUTH = 0.6, 0.9
SAMPLES = 1.25  # of the surface, a pixel and direction


def pose(person: Person, scene: RenderedScene, directions: ndarray) -> tuple[ndarray, ndarray]:
    """Vertices and normals (V, 3), head frame, with expression and lids for eyes that look along `directions`."""
    weights = posed(scene.expression, directions, person.opening)
    moved, bent = load_mesh().moved(weights)
    vertices, normals, face = person.vertices.copy(), person.normals.copy(), slice(len(moved))
    vertices[face] += moved @ person.turn.T
    bare_teeth(vertices, max(weights.get(f"unit/mouthUpperUp{side}", 0.0) for side in ("Left", "Right")))
    normals[face] += bent
    twist(vertices, normals, scene.head[1])
    normals /= np.sqrt(np.einsum("ij,ij->i", normals, normals))[:, None] + np.float32(1e-6)
    return vertices, normals


def project(person: Person, vertices: ndarray, view: View) -> tuple[ndarray, ndarray, ndarray]:
    """Columns, rows and depth (mm) of all corners, float32."""
    to_camera = view.to_camera_matrix
    points = to_camera[:, :3] @ vertices.T + to_camera[:, 3:]
    columns, rows = view.to_pixels(*points)
    columns, rows, depth = (a.astype(np.float32).take(person.corner_vertex) for a in (columns, rows, points[2]))
    return columns, rows, depth


def see(person: Person, vertices: ndarray, triangles: ndarray, view: View) -> Surface:
    """What pixels see of the triangles."""
    return rasterize(*project(person, vertices, view), triangles, view.size, view.distance)


def paint(person: Person, scene: RenderedScene, view: View, backdrop: ndarray) -> ndarray:
    """(S, S, 3) linear RGB: the person before a backdrop, as the view's camera sees it."""
    vertices, normals = pose(person, scene, view.gaze_directions)
    corners = project(person, vertices, view)
    surface = rasterize(*corners, person.triangles, view.size, view.distance)
    turned = (normals @ view.rotation.T).astype(np.float32)
    sideways = turned[:, :2].T.take(person.corner_vertex, axis=1)
    column, row, nx, ny = surface.between(np.vstack([person.corner_place.T, sideways]))
    # All that is seen faces the camera: the back of a lock of hair is lit as its front.
    normal = np.stack([nx, ny, -np.sqrt(np.maximum(1 - nx * nx - ny * ny, 0))])
    r, g, b, gloss = cv2.split(cv2.remap(person.atlas, column, row, cv2.INTER_LINEAR))
    lit, light = what_light_reaches(surface.depth, surface.seen, scene, view)
    in_mouth = (column > MOUTH[0]) & (column < MOUTH[1]) & (row > MOUTH[2]) & (row < MOUTH[3])
    np.maximum(lit, _LIT_MOUTH, out=lit, where=in_mouth)
    np.maximum(light, _LIGHT_MOUTH, out=light, where=in_mouth)
    picture = shade((r, g, b), gloss, normal, lit, light, scene)
    depth = np.where(surface.seen, surface.depth, np.float32(view.distance + FAR))
    seen = surface.seen | paint_eyes(picture, depth, _open(surface), lit, person, scene, view)
    lashes = rasterize(*corners, solid_and_lashes()[1], view.size, view.distance)
    _paint_lashes(picture, depth, lashes, person)
    for plane, empty in zip(picture, cv2.split(backdrop), strict=True):
        np.copyto(plane, empty, where=~seen)
    if person.glasses:
        paint_glasses(picture, depth, lit, person.glasses, scene, view)
    return cv2.merge(list(picture))


@cache
def _behind_lids() -> ndarray:
    """(C,) bool of the mesh's corners: those of what the lids hide."""
    mesh = load_mesh()
    hidden = np.zeros(len(mesh.corner_vertex), bool)
    hidden[mesh.triangles[mesh.part == PARTS.index("socket")]] = True
    return hidden


def _open(surface: Surface) -> ndarray:
    """(size, size) bool: where no skin is before the eyes. They do not come through it where a lid is thin."""
    hidden, corner = _behind_lids(), surface.corners[0]
    open_ = hidden.take(corner, mode="clip") & (corner < len(hidden))
    return open_.take(surface.triangle) | ~surface.seen


def _paint_lashes(picture: ndarray, depth: ndarray, surface: Surface, person: Person) -> None:
    rows, columns = np.nonzero(surface.seen & (surface.depth < depth + 0.5))
    if not len(rows):
        return
    column, row = surface.at(lash_places(), (rows, columns))
    hair = cv2.remap(person.atlas, column, row, cv2.INTER_LINEAR).reshape(-1, 4).T
    skin = picture[:, rows, columns]
    picture[:, rows, columns] = skin + (hair[:3] - skin) * np.sqrt(hair[3])


def patch(person: Person, scene: RenderedScene, size: int) -> ndarray:
    """(size, size, 3) RGB uint8: the normalised patch."""
    return _picture(person, scene, lambda n: make_view(scene, n, person.eyes, person.kappa), size)


def aligned(person: Person, scene: RenderedScene, view_at: Callable[[int], AlignedView], size: int) -> ndarray:
    """The FFHQ-aligned face of the same scene."""
    return _picture(person, scene, view_at, size)


def _picture(person: Person, scene: RenderedScene, view_at: Callable[[int], View], size: int) -> ndarray:
    fine = view_at(max(round(SAMPLES * size), 128))
    picture = paint(person, scene, fine, _behind(scene, fine))
    picture = cv2.resize(picture, (size, size), interpolation=cv2.INTER_AREA)
    return develop(picture, scene, fine.scale * size / fine.size, metered(scene, person.traits.skin))


def _behind(scene: RenderedScene, view: View) -> ndarray:
    if isinstance(view, AlignedView):
        return behind(view, draw_backdrop(scene, PATCH_SIZE))
    return draw_backdrop(scene, view.size)
