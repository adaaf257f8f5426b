"""A converter that only makes numbers. Apart from its tests, because each worker process imports it."""

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from preprocess.conversion import Conversion, convert_dataset
from preprocess.face_patches import LeftOut, Sample
from preprocess.person_file import DamagedPerson

PERSONS = ("p1", "p2", "p3", "p4")


@dataclass(frozen=True)
class Numbers:
    """Each person has samples of one grey level; what happens at p3 is said by a file `folder`/p3."""

    folder: Path
    count: int = 40
    size: int = 8

    def __call__(self, person: str) -> Iterator[Sample | LeftOut]:
        for i in range(self.count):
            if i == 35 and (self.folder / person).exists():
                self._trouble((self.folder / person).read_text())
            if i % 10 == 3:
                yield LeftOut(f"{person}/{i}", "no face found", f"{i}\tis\nodd")
            else:
                labels = np.arange(8) / 100 + i / 1000
                yield Sample(f"{person}/{i}", np.full((self.size, self.size, 3), (i, 1, 2), np.uint8), labels, "even")

    def _trouble(self, kind: str) -> None:
        if kind == "damaged":
            raise DamagedPerson("no camera")
        if kind == "stop":
            raise KeyboardInterrupt
        os.kill(os.getpid(), signal.SIGKILL)


def numbers(folder: Path, **changes: object) -> Conversion:
    given = {"split": {"train": ["p1", "p2", "p3"], "test": ["p4"]}, "options": {"every": 1}}
    return Conversion("Numbers", PERSONS, Numbers(folder), **given | changes)


def converted(folder: Path, name: str = "out.h5", **options: object) -> Path:
    convert_dataset(numbers(folder), folder / name, **{"workers": 1} | options)
    return folder / name
