"""What a look is: how a person is made, and how pictures of that person are taken."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy import ndarray

from preprocess.synthetic.aligned import AlignedView
from preprocess.synthetic.domains import Domain
from preprocess.synthetic.scene import Scene


@dataclass(frozen=True)
class Look:
    """Drawn or rendered. A person is whatever `draw_person` returns; pictures are RGB uint8, seeds say all.

    patch: (person, scene, size) -> the normalised patch.
    aligned: (person, scene, view of a size, size) -> the same scene before another camera.
    landmarks: person -> scene -> (68, 3) mm in the head frame, NaN but for those that the alignment needs.
    eyes, kappa: of a person, as `scene.make_view` takes them.
    """

    draw_person: Callable[[np.random.Generator], Any]
    draw_scene: Callable[[np.random.Generator, Domain, float], Scene]
    patch: Callable[[Any, Scene, int], ndarray]
    aligned: Callable[[Any, Scene, Callable[[int], AlignedView], int], ndarray]
    landmarks: Callable[[Any], Callable[[Scene], ndarray]]
    eyes: Callable[[Any], ndarray]
    kappa: Callable[[Any], tuple[float, float]]
    complete: Callable[[Any], Any]  # the person with what no patch shows
    group_size: int  # by default
    framing: str  # by default
