"""The rendered look: see `preprocess/synthetic/look.py`."""

from collections.abc import Callable

from numpy import ndarray

from preprocess.synthetic.aligned import LANDMARKS, as_68
from preprocess.synthetic.look import Look
from preprocess.synthetic.rendered.frame import landmark_vertices
from preprocess.synthetic.rendered.person import Person, draw_person
from preprocess.synthetic.rendered.render import aligned, patch, pose
from preprocess.synthetic.rendered.scene import RenderedScene, draw_scene, draw_wide_pose
from preprocess.synthetic.scene import make_view


def landmarks(person: Person) -> Callable[[RenderedScene], ndarray]:
    """See Look."""

    def of(scene: RenderedScene) -> ndarray:
        vertices, _ = pose(person, scene, make_view(scene, 128, person.eyes, person.kappa).gaze_directions)
        return as_68(vertices[landmark_vertices()[list(LANDMARKS)]])

    return of


RENDERED = Look(
    draw_person=draw_person,
    draw_pose=draw_wide_pose,
    draw_scene=draw_scene,
    patch=patch,
    aligned=aligned,
    landmarks=landmarks,
    eyes=lambda person: person.eyes,
    kappa=lambda person: person.kappa,
    complete=lambda person: person,
    group_size=5,
    framing="detected",
)
