"""What a look is: how a person is made, and how pictures of that person are taken."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy import ndarray

from preprocess.synthetic.aligned import AlignedView
from preprocess.synthetic.domains import Domain
from preprocess.synthetic.scene import Scene

Person = TypeVar("Person")
Picture = TypeVar("Picture", bound=Scene)


@dataclass(frozen=True)
class Look(Generic[Person, Picture]):
    """Drawn or rendered: persons of its own kind, scenes of its own kind. Pictures are RGB uint8, seeds say all.

    draw_pose: gaze and head of a picture, (pitch, yaw) radians, as `draw_scene` draws them.
    patch: (person, scene, size) -> the normalised patch.
    aligned: (person, scene, view of a size, size) -> the same scene before another camera.
    landmarks: person -> scene -> (68, 3) mm in the head frame, NaN but for those that the alignment needs.
    eyes, kappa: of a person, as `scene.make_view` takes them.
    """

    draw_person: Callable[[np.random.Generator], Person]
    draw_pose: Callable[[np.random.Generator, Domain], tuple[ndarray, ndarray]]
    draw_scene: Callable[[np.random.Generator, Domain, float], Picture]
    patch: Callable[[Person, Picture, int], ndarray]
    aligned: Callable[[Person, Picture, Callable[[int], AlignedView], int], ndarray]
    landmarks: Callable[[Person], Callable[[Picture], ndarray]]
    eyes: Callable[[Person], ndarray]
    kappa: Callable[[Person], tuple[float, float]]
    complete: Callable[[Person], Person]  # the person with what no patch shows
    group_size: int  # by default
    framing: str  # by default
