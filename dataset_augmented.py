"""The redirected data set: labelled images, each with redirected copies of it; its writer and its reader.

An HDF5 file holds a group a person, named as in the source, with `image` (M, 3, S, S) RGB, uint8 or float32 in
[-1, 1]; `gaze` and `head` (M, 2) float32, pitch and yaw in radians; `real` (M,) float32, 1 for an image of the source
and 0 for a redirected one. A real image comes before the redirected ones made from it. Source: ST-ED, release.
"""

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn
from urllib.parse import quote

import cv2
import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from core.files import atomic_write, read_json, write_json
from core.tracking import progress_bar, say
from utils import image_to_uint8

Recipe = Mapping[str, str | int | float]  # whatever decides the content of the file, each a root attribute

FILE_NAME = "Redirected_samples.h5"
FORMAT_VERSION = 1
ENTRIES = ("image", "gaze", "head", "real")
_ROWS_A_CHUNK = 256  # of the small entries
_MAX_LINES = 10
_READ_ERRORS = (OSError, RuntimeError, KeyError, ValueError)  # what h5py raises for a damaged file


def is_complete(path: Path, recipe: Recipe | None) -> bool:
    """Whether `path` is the finished data set of this recipe; False if nothing is there.

    recipe: None if the redirector is still to be trained, so that nothing there can be its product.
    Raises ValueError if anything else is there: it is the user's and must not be overwritten.
    """
    if not path.exists():
        return False
    found = _attributes(path)
    if recipe is None:
        why = "comes from another redirector than the one still to be trained"
    elif not found.get("complete"):
        why = "was not finished by this code"
    else:
        different = [key for key, value in recipe.items() if found.get(key) != value]
        if not different:
            return True
        why = f"was made with other values of {', '.join(different)}"
    raise ValueError(f"{path}: this file {why}. Move or remove it, or set store_redirect_dataset to false.")


def _attributes(path: Path) -> dict[str, Any]:
    try:
        with h5py.File(path) as file:
            return dict(file.attrs)
    except _READ_ERRORS:
        return {}


class RedirectedWriter:
    """Writes `path` person by person; after a kill at any moment the same recipe goes on where it stopped.

    HDF5 does not survive a kill in the middle of a write. So each person is a file of its own in a hidden folder
    beside `path`, renamed once it is whole; `finish` copies them into one, which is renamed to `path` in turn.
    Until then both copies take room on the disk. Persons that another recipe left there are removed.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path, self.recipe = path, dict(recipe)
        self.folder = _parts(path)
        if self.folder.exists():
            self._keep_or_remove()
        if not self.folder.exists():
            self.folder.mkdir(parents=True)
            write_json(self.folder / "recipe.json", self.recipe)

    def _keep_or_remove(self) -> None:
        try:
            before = read_json(self.folder / "recipe.json")
        except (OSError, ValueError):  # a kill came before it was written
            before = {}
        different = [key for key in self.recipe.keys() | before if self.recipe.get(key) != before.get(key)]
        if different:
            say(f"{self.folder}: begun with other values of {', '.join(sorted(different))}; starting over.")
            shutil.rmtree(self.folder)

    def has(self, person: str) -> bool:
        """Whether the person is written."""
        try:  # a power cut, unlike a kill, can leave a renamed file damaged
            with h5py.File(self._part(person)) as file:
                return len({len(file[person][name]) for name in ENTRIES}) == 1
        except _READ_ERRORS:
            return False

    @contextmanager
    def person(self, person: str) -> Iterator["PersonFile"]:
        """Write one person: wholly there when the block ends, not at all if it fails."""
        with atomic_write(self._part(person)) as temporary, h5py.File(temporary, "w") as file:
            yield PersonFile(file.create_group(person))

    def finish(self, persons: Sequence[str], facts: Recipe) -> dict[str, int]:
        """Join these persons to `path` and remove the parts. facts: more root attributes.

        Returns the counts that became root attributes, too: num_persons, num_real, num_redirected and the sums of
        the persons' own.
        """
        totals = {"num_persons": 0, "num_real": 0, "num_redirected": 0}
        whole = self.folder / "whole"
        bar = progress_bar(len(persons), 0, f"joining {self.path.name}", unit="person", leave=False)
        with h5py.File(whole, "w") as file:
            file.attrs["complete"] = False
            for person in persons:
                with h5py.File(self._part(person)) as part:
                    part.copy(person, file)
                    real = int(part[person]["real"][()].sum())
                    images = len(part[person]["real"])  # none where a person without labels lost all to the gate
                    counts = {"num_persons": int(images > 0), "num_real": real, "num_redirected": images - real}
                    for name, count in (counts | dict(part[person].attrs)).items():
                        totals[name] = totals.get(name, 0) + int(count)
                bar.update()
            file.attrs.update({**self.recipe, **facts, **totals, "color_order": "RGB", "complete": True})
        bar.close()
        os.replace(whole, self.path)
        remove_parts(self.path)
        return totals

    def _part(self, person: str) -> Path:
        return self.folder / f"{quote(person, safe='')}.h5"


class PersonFile:
    """One person's group, which grows by batches."""

    def __init__(self, group: h5py.Group) -> None:
        self._group = group

    def append(self, counts: Mapping[str, int] | None = None, **values: np.ndarray) -> None:
        """Add rows to each of ENTRIES, and `counts` to the group's attributes of these names."""
        assert set(values) == set(ENTRIES) and len({len(value) for value in values.values()}) == 1
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
    # makes each read dearer (benchmarks/README.md).
    chunk = 1 if name == "image" else _ROWS_A_CHUNK
    row = value.shape[1:]
    return group.create_dataset(
        name, (0, *row), value.dtype, maxshape=(None, *row), chunks=(chunk, *row), track_times=False
    )


def _parts(path: Path) -> Path:
    """The folder of the persons that are done, as long as the file is not."""
    return path.with_name(f".{path.name}.parts")


def remove_parts(path: Path) -> None:
    """Remove what an unfinished writer of `path` left beside it, if anything."""
    shutil.rmtree(_parts(path), ignore_errors=True)


class RedirectedDataset(Dataset):
    """A redirected data set, ours or a published one, or only its real or only its redirected images.

    image_size: of the images returned; None for the file's. The images are equalised already; a resize comes after.
    `person_ids`: those with an image chosen; `person_of`, `sample_of` (N,) int32: person of each entry and its row
    there; `person_start` (P + 1,); `is_real` (N,) bool.  Only `real` and the labels are read when it is opened.
    Raises FileNotFoundError, or ValueError with all that is wrong with the file. Safe to fork and to pickle.
    """

    def __init__(
        self,
        path: str | Path,
        use: Literal["both", "real", "redirected"] = "both",
        image_size: int | None = None,
        name: str = "redirected",
    ) -> None:
        assert use in ("both", "real", "redirected"), use
        self.path, self.use, self.name = Path(path), use, name
        with _open(self.path) as file:
            persons, sizes, problems = _survey(file)
        if image_size is None and len(sizes) > 1:
            problems.append(f"images of several sizes {sorted(sizes)}: choose an image_size")
        if problems:
            _refuse(self.path, problems)
        self.image_size = image_size or min(sizes)
        self._build_index(persons)
        self._file: h5py.File | None = None
        self._images: dict[int, h5py.Dataset] = {}
        self._owner = 0

    def _build_index(self, persons: Mapping[str, tuple[np.ndarray, np.ndarray]]) -> None:
        wanted = {"both": (True, False), "real": (True,), "redirected": (False,)}[self.use]
        rows = {person: np.flatnonzero(np.isin(real, wanted)) for person, (real, _) in persons.items()}
        self.person_ids = [person for person in persons if len(rows[person])]
        if not self.person_ids:
            raise ValueError(f"{self.path}: none of its images is {self.use}. Choose others with redirected_use.")
        counts = [len(rows[person]) for person in self.person_ids]
        self.person_start = np.concatenate([[0], np.cumsum(counts)])
        self.person_of = np.repeat(np.arange(len(counts), dtype=np.int32), counts)
        self.sample_of = np.concatenate([rows[person] for person in self.person_ids]).astype(np.int32)
        self.is_real = np.concatenate([persons[person][0][rows[person]] for person in self.person_ids])
        self._labels = np.concatenate([persons[person][1][rows[person]] for person in self.person_ids])

    def __len__(self) -> int:
        return len(self.person_of)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """`image` (3, S, S) uint8 RGB, `gaze` (2,), `head` (2,) float32 pitch and yaw in radians.

        Raises OSError where the file is damaged.
        """
        person, row = int(self.person_of[index]), int(self.sample_of[index])
        try:
            image = self._images_of(person)[row]
        except _READ_ERRORS as error:
            raise OSError(
                f"{self.path}: person {self.person_ids[person]!r}: image {row} cannot be read ({error}). "
                "The file is damaged or has changed: copy it again or write it anew."
            ) from error
        pixels = torch.from_numpy(image) if image.dtype == np.uint8 else image_to_uint8(torch.from_numpy(image))
        labels = torch.from_numpy(self._labels[index].copy())
        return {"image": _resized(pixels, self.image_size), "gaze": labels[:2], "head": labels[2:]}

    def labels(self) -> np.ndarray:
        """(N, 4) float32, read-only: gaze pitch, yaw, head pitch, yaw in radians."""
        labels = self._labels.view()
        labels.flags.writeable = False
        return labels

    def close(self) -> None:
        """Give the file back; the next read opens it again."""
        self._images.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _images_of(self, person: int) -> h5py.Dataset:
        if self._owner != os.getpid():  # a forked process must not share the handle
            self.close()
        if self._file is None:
            if get_worker_info() is not None:
                cv2.setNumThreads(0)  # the workers are the parallelism
            # HDF5 would keep up to 1 MB of images a person: gigabytes, in which a random read finds nothing.
            self._file = h5py.File(self.path, "r", rdcc_nbytes=0, rdcc_nslots=1)
            self._owner = os.getpid()
        if person not in self._images:
            self._images[person] = self._file[self.person_ids[person]]["image"]
        return self._images[person]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_images": {}}


def _resized(image: Tensor, size: int) -> Tensor:
    if image.shape[-1] == size:
        return image
    method = cv2.INTER_AREA if size < image.shape[-1] else cv2.INTER_CUBIC
    pixels = cv2.resize(image.permute(1, 2, 0).contiguous().numpy(), (size, size), interpolation=method)
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _open(path: Path) -> h5py.File:
    try:
        return h5py.File(path, "r")
    except FileNotFoundError as error:
        remedy = "Correct the path, or have train_st_ed.py write it (store_redirect_dataset)."
        raise FileNotFoundError(f"{path}: no such file. {remedy}") from error
    except _READ_ERRORS as error:
        raise ValueError(f"{path}: cannot be read as HDF5 ({error}). Copy it again or write it anew.") from error


def _survey(file: h5py.File) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], set[int], list[str]]:
    """Person -> (is real (M,) bool, labels (M, 4)); image sizes; everything that is wrong."""
    persons: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    sizes: set[int] = set()
    problems = _problems_of_file(file)
    for person in sorted(file):
        try:
            wrong = _problems_of_person(file[person])
            if not wrong:
                data = file[person]
                real, labels = data["real"][()], np.concatenate([data["gaze"][()], data["head"][()]], axis=1)
                wrong = _problems_of_values(real, labels)
                persons[person] = real > 0, labels.astype(np.float32)
                sizes.add(data["image"].shape[2])
        except _READ_ERRORS as error:
            wrong = [f"cannot be read ({error})"]
        problems += [f"person {person!r}: {what}" for what in wrong]
    return persons, sizes, problems


def _problems_of_file(file: h5py.File) -> list[str]:
    problems = [] if len(file) else ["no persons in it, expected a group a person"]
    order = file.attrs.get("color_order", "RGB")
    if order not in ("RGB", b"RGB"):
        problems.append(f"attribute color_order is {order!r}, expected 'RGB'")
    if not file.attrs.get("complete", True):
        problems.append("attribute complete is false: it was never finished; run the command that wrote it again")
    return problems


def _problems_of_person(group: h5py.Group | h5py.Dataset) -> list[str]:
    found = {name: group.get(name) for name in ENTRIES} if isinstance(group, h5py.Group) else {}
    missing = [name for name in ENTRIES if not isinstance(found.get(name), h5py.Dataset)]
    if missing:
        return [f"no data sets {', '.join(missing)}; expected {', '.join(ENTRIES)}"]
    problems, shape, dtype = [], found["image"].shape, found["image"].dtype
    fits = len(shape) == 4 and shape[1] == 3 and shape[2] == shape[3]
    if not fits or (dtype != np.uint8 and dtype.kind != "f"):
        problems.append(f"image is {dtype} of shape {shape}, expected uint8 or floats (M, 3, S, S)")
    for name, row in (("gaze", (2,)), ("head", (2,)), ("real", ())):
        if found[name].shape[1:] != row or found[name].ndim != 1 + len(row) or found[name].dtype.kind != "f":
            expected = f"floats (M{', 2' if row else ','})"
            problems.append(f"{name} is {found[name].dtype} of shape {found[name].shape}, expected {expected}")
    lengths = {name: len(data) for name, data in found.items() if data.ndim}
    if not problems and len(set(lengths.values())) > 1:
        problems.append(", ".join(f"{count} {name}" for name, count in lengths.items()) + ", expected as many of each")
    return problems


def _problems_of_values(real: np.ndarray, labels: np.ndarray) -> list[str]:
    problems = []
    if not np.isin(real, (0, 1)).all():
        problems.append(f"real holds {real[~np.isin(real, (0, 1))][0]:g}, expected 1 (real) or 0 (redirected)")
    bad = np.flatnonzero(~np.isfinite(labels).all(axis=1))
    if bad.size:
        problems.append(f"labels that are not finite, {bad.size} of {len(labels)}, the first at index {bad[0]}")
    return problems


def _refuse(path: Path, problems: list[str]) -> NoReturn:
    more = len(problems) - _MAX_LINES
    lines = problems[:_MAX_LINES] + ([f"... and {more} more"] if more > 0 else [])
    raise ValueError(f"{path}: not a redirected data set. Write it anew.\n  " + "\n  ".join(lines))
