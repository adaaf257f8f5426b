"""The redirected data set: labelled images, each with redirected copies of it; its writer and its reader.

An HDF5 file holds a group a person, named as in the source, with `image` (M, 3, S, S) RGB, uint8 or float32 in
[-1, 1]; `gaze` and `head` (M, 2) float32, pitch and yaw in radians; `real` (M,) float32, 1 for an image of the source
and 0 for a redirected one. A real image comes before the redirected ones made from it. Source: ST-ED, release.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import cv2
import h5py
import numpy as np
import torch
from torch import Tensor

from core.command import UserError
from core.disk import Disk, said_where_full
from core.facts import differences
from core.hdf5 import (
    DamagedFile,
    Table,
    layout_problems,
    open_hdf5,
    persons_in,
    read_attribute,
    read_attributes,
    reading,
)
from core.person_parts import Facts, PersonParts, is_whole, write_whole
from core.persons_file import PersonsFile
from core.tracking import progress_bar
from dataset import PersonImages, read_only, refuse_layout
from utils import image_to_uint8

FILE_NAME = "Redirected_samples.h5"
FORMAT_VERSION = 1
TABLES = {
    "image": Table("uint8 or floats", ("M", 3, "S", "S")),
    "gaze": Table("floats", ("M", 2)),
    "head": Table("floats", ("M", 2)),
    "real": Table("floats", ("M",)),
}
_ROWS_A_CHUNK = 256  # of the small entries
_MISSING = "Correct the path, or have train_st_ed.py write it (store_redirect_dataset)."
_DAMAGED = "Copy it again or write it anew."


def is_complete(path: Path, facts: Facts | None) -> bool:
    """Whether `path` is the finished data set made by these facts; False if nothing is there.

    facts: None if the redirector is still to be trained, so that nothing there can be its product.
    Raises UserError if anything else is there: it is the user's and must not be overwritten.
    """
    if not path.exists():
        return False
    found = _attributes(path)
    if facts is None:
        why = "comes from another redirector than the one still to be trained"
    elif found.get("complete") != 1:
        why = "was not finished by this code"
    else:
        different = differences({key: found[key] for key in facts if key in found}, facts)
        if not different:
            return True
        why = f"was made with other values of {', '.join(different)}"
    raise UserError(f"{path}: this file {why}. Move or remove it, or set store_redirect_dataset to false.")


def _attributes(path: Path) -> dict[str, object]:
    """Of the root; none where it is no HDF5 file. Raises UserError where it cannot be opened."""
    try:
        with open_hdf5(path) as file:
            return read_attributes(file)
    except DamagedFile:
        return {}


class RedirectedWriter:
    """Writes `path` person by person; after a kill at any moment the same facts go on where it stopped.

    Persons that were made by other facts are removed. helps: see PersonParts.
    """

    def __init__(self, path: Path, facts: Facts, helps: bool = False) -> None:
        self.facts, self.parts = dict(facts), PersonParts(path, facts, helps=helps)

    def has(self, person: str) -> bool:
        """Whether the person is written. Raises UserError where that cannot be read."""
        return is_whole(self.parts.file(person), lambda file: len({len(file[person][name]) for name in TABLES}) == 1)

    @contextmanager
    def person(self, person: str) -> Iterator["PersonWriter"]:
        """Write one person: wholly there when the block ends, not at all if it fails.

        Raises OSError, with what to do, where the disk is full.
        """
        with said_where_full(self.parts.out), write_whole(self.parts.file(person)) as (file, disk):
            yield PersonWriter(file.create_group(person), disk)

    def finish(self, persons: Sequence[str], facts: Facts) -> dict[str, int]:
        """Join these persons to the file and remove the parts. facts: more root attributes.

        Returns the counts that became root attributes, too: num_persons, num_real, num_redirected and the sums of
        the persons' own.
        """
        totals = {"num_persons": 0, "num_real": 0, "num_redirected": 0}
        name = self.parts.out.name
        with (
            progress_bar(len(persons), 0, f"joining {name}", unit="person", leave=False) as bar,
            said_where_full(self.parts.out),
            self.parts.join() as (file, disk),
        ):
            file.attrs["complete"] = False
            for person in persons:
                with open_hdf5(self.parts.file(person)) as part:
                    part.copy(person, file)
                    for key, count in _counts(part[person]).items():
                        totals[key] = totals.get(key, 0) + count
                disk.check()
                bar.update()
            file.attrs.update({**self.facts, **facts, **totals, "color_order": "RGB", "complete": True})
        self.parts.finish()
        return totals


def _counts(group: h5py.Group) -> dict[str, int]:
    """A person's own counts, and how many images there are."""
    real, images = int(group["real"][()].sum()), len(group["real"])
    counts = {"num_persons": int(images > 0), "num_real": real, "num_redirected": images - real}
    # No images where a person without labels lost all to the gate.
    return counts | {name: int(count) for name, count in group.attrs.items()}


class PersonWriter:
    """One person's group, which grows by batches."""

    def __init__(self, group: h5py.Group, disk: Disk) -> None:
        self._group, self._disk = group, disk

    def append(self, counts: Mapping[str, int] | None = None, **values: np.ndarray) -> None:
        """Add rows to each of TABLES, and `counts` to the group's attributes of these names."""
        self._disk.check()
        assert set(values) == set(TABLES) and len({len(value) for value in values.values()}) == 1
        for name, value in values.items():
            data = self._group.get(name)
            data = _new_entry(self._group, name, value) if data is None else data
            start = len(data)
            data.resize(start + len(value), axis=0)
            data[start:] = value
        for name, count in (counts or {}).items():
            self._group.attrs[name] = int(self._group.attrs.get(name, 0)) + count


def _new_entry(group: h5py.Group, name: str, value: np.ndarray) -> h5py.Dataset:
    # One image a chunk, so that a random read fetches one. Not compressed: lzf saves a tenth on such images and
    # makes each read dearer (benchmarks/speed.md).
    chunk = 1 if name == "image" else _ROWS_A_CHUNK
    row = value.shape[1:]
    return group.create_dataset(
        name, (0, *row), value.dtype, maxshape=(None, *row), chunks=(chunk, *row), track_times=False
    )


class RedirectedDataset(PersonImages):
    """A redirected data set, ours or a published one, or only its real or only its redirected images.

    image_size: of the images returned; None for the file's. The images are equalised already; a resize comes after.
    `person_ids`: those with an image chosen.  `is_real`: (N,) bool.  Only `real` and the labels are read when it is
    opened.
    Raises UserError with all that is wrong with the file. Safe to fork and to pickle.
    """

    is_real: np.ndarray

    def __init__(
        self,
        path: str | Path,
        use: Literal["both", "real", "redirected"] = "both",
        image_size: int | None = None,
        name: str = "redirected",
    ) -> None:
        if use not in ("both", "real", "redirected"):
            raise UserError("use", repr(use), "'both', 'real' or 'redirected'", "Choose one of these.")
        self.path, self.use, self.name = Path(path), use, name
        with open_hdf5(self.path, missing=_MISSING, damaged=_DAMAGED) as file:
            persons, sizes, problems = _survey(file)
        if image_size is None and len(sizes) > 1:
            problems.append(f"images of several sizes {sorted(sizes)}: choose an image_size")
        refuse_layout(self.path, problems, "not a redirected data set. Write it anew.")
        self.image_size = image_size or min(sizes)
        self._choose(persons)
        self.file = PersonsFile(self.path, "copy it again or write it anew.")

    def _choose(self, persons: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
        wanted = {"both": (True, False), "real": (True,), "redirected": (False,)}[self.use]
        rows = {person: np.flatnonzero(np.isin(real, wanted)) for person, (real, _) in persons.items()}
        self.person_ids = [person for person in persons if len(rows[person])]
        if not self.person_ids:
            raise UserError(f"{self.path}: none of its images is {self.use}. Choose others with redirected_use.")
        self._index([rows[person] for person in self.person_ids])
        self.is_real = np.concatenate([persons[person][0][rows[person]] for person in self.person_ids])
        self._labels = np.concatenate([persons[person][1][rows[person]] for person in self.person_ids])

    def entry(self, index: int) -> dict[str, Tensor]:
        """As PersonImages says."""
        person, row = self.person_ids[self.person_of[index]], int(self.sample_of[index])
        image = torch.from_numpy(self.file.row(person, "image", row))
        pixels = image if image.dtype == torch.uint8 else image_to_uint8(image)
        labels = torch.from_numpy(self._labels[index].copy())
        return {"image": _resized(pixels, self.image_size), "gaze": labels[:2], "head": labels[2:]}

    def labels(self) -> np.ndarray:
        """(N, 4) float32, read-only: gaze pitch, yaw, head pitch, yaw in radians."""
        return read_only(self._labels)


def _resized(image: Tensor, size: int) -> Tensor:
    if image.shape[-1] == size:
        return image
    method = cv2.INTER_AREA if size < image.shape[-1] else cv2.INTER_CUBIC
    pixels = cv2.resize(image.permute(1, 2, 0).contiguous().numpy(), (size, size), interpolation=method)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _survey(file: h5py.File) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], set[int], list[str]]:
    """Person -> (is real (M,) bool, labels (M, 4)); image sizes; everything that is wrong."""
    persons: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    sizes: set[int] = set()
    problems = _problems_of_file(file)
    for person in persons_in(file, damaged=_DAMAGED):
        try:
            with reading(file.filename):
                wrong = layout_problems(file[person], TABLES, may_be_empty=True)
                if not wrong:
                    data = file[person]
                    real, labels = data["real"][()], np.concatenate([data["gaze"][()], data["head"][()]], axis=1)
                    wrong = _problems_of_values(real, labels)
                    persons[person] = real > 0, labels.astype(np.float32)
                    sizes.add(data["image"].shape[2])
        except DamagedFile as error:
            wrong = [f"cannot be read ({error.__cause__})"]
        problems += [f"person {person!r}: {what}" for what in wrong]
    return persons, sizes, problems


def _problems_of_file(file: h5py.File) -> list[str]:
    problems = [] if len(file) else ["no persons in it, expected a group a person"]
    order, complete = read_attribute(file, "color_order", "RGB"), read_attribute(file, "complete", True)
    if order != "RGB":
        problems.append(f"attribute color_order is {order!r}, expected 'RGB'")
    if complete not in (True, False):
        problems.append(f"attribute complete is {complete!r}, expected true or false")
    elif not complete:
        problems.append("attribute complete is false: it was never finished; run the command that wrote it again")
    return problems


def _problems_of_values(real: np.ndarray, labels: np.ndarray) -> list[str]:
    problems = []
    if not np.isin(real, (0, 1)).all():
        problems.append(f"real holds {real[~np.isin(real, (0, 1))][0]:g}, expected 1 (real) or 0 (redirected)")
    bad = np.flatnonzero(~np.isfinite(labels).all(axis=1))
    if bad.size:
        problems.append(f"labels that are not finite, {bad.size} of {len(labels)}, the first at index {bad[0]}")
    return problems
