"""Gaze data sets, person by person.

An HDF5 file holds a group a person, with `pixels` (N, S, S, 3) uint8 and `labels` (N, >= 4) float: gaze
pitch, yaw, head pitch, yaw in radians. It may hold `group` (N,) integer: samples of the person with the same number
share light, camera, background and expression, and differ in gaze and head alone. Root attributes are optional:
`color_order` ('RGB' or 'BGR'), and `gaze_known`, False for photographs whose gaze labels only repeat the head's.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from core.command import UserError
from core.files import parse_json, read_text
from core.hdf5 import FACES, GROUPS, DamagedFile, layout_problems, open_hdf5, persons_in, read_attribute, reading
from core.persons_file import PersonsFile

_MAX_LINES = 10
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def prepare_image(pixels: np.ndarray, image_size: int, *, is_bgr: bool = False, equalize: bool = True) -> np.ndarray:
    """The image as the models expect it: resized, its luma histogram equalised, RGB, channels first.

    pixels: (S, S, 3) uint8, contiguous.  Returns (3, image_size, image_size) uint8.
    Source: the published preprocessing, whose [-1, 1] floats are `utils.image_to_float` of this.
    """
    if len(pixels) != image_size:
        method = cv2.INTER_AREA if image_size < len(pixels) else cv2.INTER_CUBIC
        pixels = cv2.resize(pixels, (image_size, image_size), interpolation=method)
    if equalize:
        ycrcb = cv2.cvtColor(pixels, cv2.COLOR_BGR2YCrCb if is_bgr else cv2.COLOR_RGB2YCrCb)
        cv2.insertChannel(cv2.equalizeHist(cv2.extractChannel(ycrcb, 0)), ycrcb, 0)
        pixels = cv2.cvtColor(ycrcb, cv2.COLOR_YCrCb2RGB)
    elif is_bgr:
        pixels = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)
    image = np.empty((3, image_size, image_size), np.uint8)
    cv2.split(pixels, list(image))  # into the planes of `image`: four times as fast as a transposed copy
    return image


class PersonImages(Dataset[dict[str, Tensor]]):
    """Labelled images, person by person: what all data sets are, whatever else is in an entry.

    person_of, sample_of: (N,) int32, person of each entry (an index into `person_ids`) and its row there.
    person_start: (P + 1,), the entries of person p are `person_start[p]` up to `person_start[p + 1]`.
    """

    path: Path
    name: str
    image_size: int
    person_ids: list[str]
    person_of: np.ndarray
    sample_of: np.ndarray
    person_start: np.ndarray

    def __len__(self) -> int:
        return len(self.person_of)

    def __getitem__(self, index: int | tuple[int, ...]) -> dict[str, Tensor]:
        """An `entry`; for a pair of indices `image_a`, `gaze_a` ... of the first and `image_b` ... of the second."""
        if not isinstance(index, tuple):
            return self.entry(index)
        return {f"{key}_{which}": v for which, i in zip("ab", index, strict=True) for key, v in self.entry(i).items()}

    def entry(self, index: int) -> dict[str, Tensor]:
        """`image` (3, S, S) uint8 RGB, `gaze` (2,), `head` (2,) float32 pitch and yaw in radians.

        Raises UserError where the file is damaged, or a label is not finite.
        """
        raise NotImplementedError

    def labels(self) -> np.ndarray:
        """(N, 4) float32, read-only: gaze pitch, yaw, head pitch, yaw in radians."""
        raise NotImplementedError

    def groups(self) -> np.ndarray | None:
        """(N,) int64: samples of one person with the same number differ in gaze and head alone; None: nobody knows.

        Raises UserError where the file is damaged.
        """
        return None

    def _index(self, rows: Sequence[np.ndarray]) -> None:
        """Sets the index. rows: of each person."""
        counts = [len(row) for row in rows]
        self.person_start = np.concatenate([[0], np.cumsum(counts)])
        self.person_of = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self.sample_of = np.concatenate(rows).astype(np.int32)


class Labels:
    """Labels (N, 4) float32 that are loaded person by person, when they are first needed, and then kept.

    load: a person's index -> (rows, 4). It is given with each call, or data set and labels would hold one another,
    and the file stay open.
    """

    def __init__(self, person_start: np.ndarray) -> None:
        self._start = person_start
        self._values = np.zeros((person_start[-1], 4), np.float32)
        self._is_loaded = np.zeros(len(person_start) - 1, bool)

    def of(self, index: int, person: int, load: Callable[[int], np.ndarray]) -> np.ndarray:
        """(4,), a copy. index: of the entry, which is of this person."""
        self._need(person, load)
        return self._values[index].copy()

    def all(self, load: Callable[[int], np.ndarray]) -> np.ndarray:
        """(N, 4), read-only."""
        for person in np.flatnonzero(~self._is_loaded):
            self._need(int(person), load)
        return read_only(self._values)

    def _need(self, person: int, load: Callable[[int], np.ndarray]) -> None:
        if not self._is_loaded[person]:
            self._values[self._start[person] : self._start[person + 1]] = load(person)
            self._is_loaded[person] = True


def read_only(values: np.ndarray) -> np.ndarray:
    """A view that nobody can write through."""
    view = values.view()
    view.flags.writeable = False
    return view


class GazeDataset(PersonImages):
    """One HDF5 file, or some persons of it: a pure function of an index or of a pair of indices.

    persons: those to use, in this order; None for all, sorted.  `missing_persons` are not in the file and
    `dropped_persons` have fewer than `pick_at_least_per_person` samples: callers should log both.
    is_bgr: None to go by the file's `color_order`, and without one by `default_is_bgr`.
    image_size: of the images returned; None for the file's.
    Raises UserError with all that is wrong with the file. Safe to fork and to pickle.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        name: str = "",
        persons: Sequence[str] | None = None,
        is_bgr: bool | None = None,
        default_is_bgr: bool = False,
        image_size: int | None = None,
        pick_at_least_per_person: int | None = None,
        equalize: bool = True,
    ) -> None:
        self.path, self.name, self.equalize = Path(path), name, equalize
        with open_hdf5(self.path) as file:
            wanted, self.missing_persons = _select_persons(self.path, persons_in(file), persons)
            counts, sizes, problems = _survey(file, wanted)
            self.is_bgr = _is_bgr(file, is_bgr, default_is_bgr, problems)
            self.has_groups = _has_groups(file, list(counts), problems)
            problems += self._inspect(file, counts)
        if image_size is None and len(sizes) > 1:
            problems.append(f"images of several sizes {sorted(sizes)}: choose an image_size")
        refuse_layout(self.path, problems, "not the expected layout. Re-run preprocessing.")
        self.image_size = image_size or min(sizes)
        self._keep_persons(counts, pick_at_least_per_person or 1)
        self.file = PersonsFile(self.path, "download it again or re-run preprocessing.")
        self._labels = Labels(self.person_start)

    def _inspect(self, file: h5py.File, counts: dict[str, int]) -> list[str]:
        """What else is wrong with the file, where a kind of data set has more in it. counts: of the persons so far."""
        return []

    def _keep_persons(self, counts: dict[str, int], at_least: int) -> None:
        self.dropped_persons = [person for person, count in counts.items() if count < at_least]
        self.person_ids = [person for person, count in counts.items() if count >= at_least]
        if not self.person_ids:
            raise UserError(
                f"{self.path}: no person has {at_least} samples, as pick_at_least_per_person asks; "
                f"the most is {max(counts.values())}. Lower it."
            )
        self._index([np.arange(counts[person]) for person in self.person_ids])

    def entry(self, index: int) -> dict[str, Tensor]:
        """As PersonImages says."""
        return self.entry_with(index, self.label(index))

    def entry_with(self, index: int, label: np.ndarray) -> dict[str, Tensor]:
        """An entry that has this label (4,), radians, in place of the file's."""
        person, sample = self.person_ids[self.person_of[index]], int(self.sample_of[index])
        pixels = self.file.row(person, "pixels", sample)
        image = prepare_image(pixels, self.image_size, is_bgr=self.is_bgr, equalize=self.equalize)
        return {
            "image": torch.from_numpy(image),
            "gaze": torch.from_numpy(label[:2]),
            "head": torch.from_numpy(label[2:]),
        }

    def label(self, index: int) -> np.ndarray:
        """(4,) float32: gaze pitch, yaw, head pitch, yaw in radians. Raises UserError where one is not finite."""
        return self._labels.of(index, int(self.person_of[index]), self._load_labels)

    def labels(self) -> np.ndarray:
        """(N, 4) float32, read-only: gaze pitch, yaw, head pitch, yaw in radians. Read once, then kept."""
        return self._labels.all(self._load_labels)

    def groups(self) -> np.ndarray | None:
        """As PersonImages says; None where the file has no data sets `group`."""
        if not self.has_groups:
            return None
        return np.concatenate([self.file.rows(person, "group").astype(np.int64) for person in self.person_ids])

    def _load_labels(self, person: int) -> np.ndarray:
        labels = self.file.rows(self.person_ids[person], "labels")[:, :4]
        with np.errstate(over="ignore"):
            labels = labels.astype(np.float32)
        self._require(person, "labels that are not finite", ~np.isfinite(labels).all(axis=1))
        return labels

    def _require(self, person: int, what: str, is_bad: np.ndarray) -> None:
        """Raises UserError if any sample of a person `is_bad` (N,)."""
        bad = np.flatnonzero(is_bad)
        if bad.size:
            raise UserError(
                f"{self.path}: person {self.person_ids[person]!r} has {what}, {bad.size} "
                f"of {len(is_bad)}, the first at index {bad[0]}. Re-run preprocessing without them."
            )


def list_persons(path: str | Path) -> list[str]:
    """Names of the persons in a file, sorted. Raises UserError if it cannot be read."""
    with open_hdf5(path) as file:
        return persons_in(file)


def knows_gaze(path: str | Path) -> bool:
    """Whether a file's gaze labels are known, not only the head's repeated. Raises as `list_persons`."""
    with open_hdf5(path) as file:
        known = read_attribute(file, "gaze_known", True)
    if known not in (True, False):
        raise UserError(f"{path}: attribute gaze_known is {known!r}, expected true or false. Re-run preprocessing.")
    return bool(known)


def _select_persons(path: Path, found: list[str], asked: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The persons asked for that are in the file, and those that are not."""
    if not found:
        raise UserError(f"{path}: no persons in it, expected a group a person. Re-run preprocessing.")
    asked, known = list(found if asked is None else asked), set(found)
    repeated = [person for person, times in Counter(asked).items() if times > 1]
    if repeated:
        raise UserError(f"{path}: persons asked for more than once: {_some(repeated)}. Correct the split.")
    if known.isdisjoint(asked):
        raise UserError(
            f"{path}: none of the {len(asked)} persons asked for ({_some(asked)}) is among the {len(found)} "
            f"of the file ({_some(found)}). Use the split that belongs to this file."
        )
    return [p for p in asked if p in known], [p for p in asked if p not in known]


def _some(names: Sequence[str], limit: int = 3) -> str:
    return ", ".join(map(repr, names[:limit])) + (", ..." if len(names) > limit else "")


def _survey(file: h5py.File, persons: list[str]) -> tuple[dict[str, int], set[int], list[str]]:
    """Number of samples by person, image sizes, and everything that is wrong."""
    counts: dict[str, int] = {}
    sizes: set[int] = set()
    problems: list[str] = []
    for person in persons:
        try:
            with reading(file.filename):
                wrong = layout_problems(file[person], FACES, GROUPS)
                if not wrong:
                    pixels = file[person]["pixels"]
                    counts[person] = len(pixels)
                    sizes.add(pixels.shape[1])
        except DamagedFile as error:
            wrong = [f"cannot be opened ({error.__cause__})"]
        problems += [f"person {person!r}: {what}" for what in wrong]
    return counts, sizes, problems


def _has_groups(file: h5py.File, persons: list[str], problems: list[str]) -> bool:
    """Whether the persons have groups: all must, or none."""
    with reading(file.filename):
        without = [person for person in persons if not isinstance(file[person].get("group"), h5py.Dataset)]
    if 0 < len(without) < len(persons):
        problems.append(f"persons without a data set 'group', which others have: {_some(without)}")
    return not without


def _is_bgr(file: h5py.File, chosen: bool | None, default: bool, problems: list[str]) -> bool:
    order = read_attribute(file, "color_order")
    if order not in (None, "RGB", "BGR"):
        problems.append(f"attribute color_order is {order!r}, expected 'RGB' or 'BGR'")
    if chosen is not None:
        return chosen
    return default if order is None else order == "BGR"


def refuse_layout(path: Path, problems: list[str], what: str) -> None:
    """Raises UserError that says `what` of a file with these problems, if there are any."""
    more = len(problems) - _MAX_LINES
    lines = problems[:_MAX_LINES] + ([f"... and {more} more"] if more > 0 else [])
    if problems:
        raise UserError(f"{path}: {what}\n  " + "\n  ".join(lines))


def read_person_split(path: str | Path) -> dict[str, Any]:
    """Part ('train', 'val', 'test', ...) -> person ids, of a JSON file, or of an HDF5 file that has them with it.

    Raises UserError if the file holds no such object.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file. Set gazecapture_split to the person split.")
    if _is_hdf5(path):
        with open_hdf5(path) as file:
            text = read_attribute(file, "split")
        if not isinstance(text, str) or text == "{}":
            raise UserError(f"{path}: no person split with it (attribute 'split'). Set a JSON file of parts.")
    else:
        text = read_text(path)
    try:
        parts = parse_json(text)
    except ValueError as error:
        raise UserError(f"{path}: not a JSON file ({error}). Download it again.") from error
    if not isinstance(parts, dict):
        raise UserError(f"{path}: found a {type(parts).__name__}, expected an object of lists, part -> person ids.")
    return parts


def load_person_split(path: str | Path, part: str) -> list[str]:
    """Person ids of one part of `read_person_split`. Raises UserError, too, if there is no such part."""
    parts = read_person_split(path)
    if part not in parts:
        raise UserError(
            f"{path}: no part {part!r} in it, found {_some(list(parts), limit=20) or 'none'}. Choose one of these."
        )
    persons = parts[part]
    if not isinstance(persons, list) or not all(isinstance(person, str) for person in persons):
        raise UserError(f'{path}: part {part!r} is not a list of strings. Write ids in quotes: ["00002"].')
    return persons


def _is_hdf5(path: Path) -> bool:
    """Whether it is one, which h5py denies of a file that is locked."""
    with path.open("rb") as file:
        return file.read(len(_SIGNATURE)) == _SIGNATURE or h5py.is_hdf5(path)
