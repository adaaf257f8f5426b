"""Gaze data sets, person by person, and the samplers that deal them out.

An HDF5 file holds a group a person, with `pixels` (N, S, S, 3) uint8 and `labels` (N, >= 4) float: gaze
pitch, yaw, head pitch, yaw in radians. Root attributes are optional: `color_order` ('RGB' or 'BGR'), and `gaze_known`,
False for photographs whose gaze labels only repeat the head's.
"""

import json
import os
import random
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import cv2
import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler, get_worker_info

from core.files import read_text

_Handle = tuple[h5py.h5d.DatasetID, h5py.h5s.SpaceID, h5py.h5s.SpaceID]  # data set; file and memory space
_MAX_LINES = 10
_READ_ERRORS = (OSError, RuntimeError, KeyError, ValueError)  # what h5py raises for a damaged file


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


class GazeDataset(Dataset):
    """One HDF5 file, or some persons of it: a pure function of an index or of a pair of indices.

    persons: those to use, in this order; None for all, sorted.  `missing_persons` are not in the file and
    `dropped_persons` have fewer than `pick_at_least_per_person` samples: callers should log both.
    is_bgr: None to go by the file's `color_order`, and without one by `default_is_bgr`.
    image_size: of the images returned; None for the file's.
    `person_of`, `sample_of` (N,) int32: person of each entry (an index into `person_ids`) and its row there;
    `person_start` (P + 1,): the entries of person p are `person_start[p]` up to `person_start[p + 1]`.
    Raises FileNotFoundError, or ValueError with all that is wrong with the file. Safe to fork and to pickle.
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
        file, found = _open(self.path)
        with file:
            wanted, self.missing_persons = _select_persons(self.path, found, persons)
            counts, sizes, problems = _survey(file, wanted)
            self.is_bgr = _is_bgr(file, is_bgr, default_is_bgr, problems)
            problems += self._inspect(file, counts)
        if image_size is None and len(sizes) > 1:
            problems.append(f"images of several sizes {sorted(sizes)}: choose an image_size")
        if problems:
            _refuse(self.path, problems)
        self.image_size = image_size or min(sizes)
        self._build_index(counts, pick_at_least_per_person or 1)
        self._file: h5py.File | None = None
        self._handles: dict[int, _Handle] = {}

    def _inspect(self, file: h5py.File, counts: dict[str, int]) -> list[str]:
        """What else is wrong with the file, where a kind of data set has more in it. counts: of the persons so far."""
        return []

    def _build_index(self, counts: dict[str, int], at_least: int) -> None:
        self.dropped_persons = [person for person, count in counts.items() if count < at_least]
        self.person_ids = [person for person, count in counts.items() if count >= at_least]
        if not self.person_ids:
            raise ValueError(
                f"{self.path}: no person has {at_least} samples, as pick_at_least_per_person asks; "
                f"the most is {max(counts.values())}. Lower it."
            )
        kept = np.array([counts[person] for person in self.person_ids])
        self.person_start = np.concatenate([[0], np.cumsum(kept)])
        self.person_of = np.repeat(np.arange(len(kept), dtype=np.int32), kept)
        self.sample_of = (np.arange(kept.sum()) - np.repeat(self.person_start[:-1], kept)).astype(np.int32)
        self._labels = np.zeros((len(self.person_of), 4), np.float32)
        self._has_labels = np.zeros(len(kept), bool)

    def __len__(self) -> int:
        return len(self.person_of)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Tensor]:
        """An entry as `image` (3, S, S) uint8 RGB, `gaze` (2,), `head` (2,) float32 pitch and yaw in radians.

        A pair of indices gives `image_a` ... `head_a` of the first and `image_b` ... `head_b` of the second.
        Raises OSError where the file is damaged, ValueError where a label is not finite.
        """
        if isinstance(index, tuple):
            return self._entry(index[0], "_a") | self._entry(index[1], "_b")
        return self._entry(index, "")

    def labels(self) -> np.ndarray:
        """(N, 4) float32, read-only: gaze pitch, yaw, head pitch, yaw in radians. Read once, then kept."""
        for person in np.flatnonzero(~self._has_labels):
            self._load_labels(person)
        labels = self._labels.view()
        labels.flags.writeable = False
        return labels

    def close(self) -> None:
        """Give the file back; the next read opens it again."""
        self._handles.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _entry(self, index: int, suffix: str) -> dict[str, Tensor]:
        person = int(self.person_of[index])
        if not self._has_labels[person]:
            self._load_labels(person)
        pixels = self._read_pixels(person, int(self.sample_of[index]))
        image = prepare_image(pixels, self.image_size, is_bgr=self.is_bgr, equalize=self.equalize)
        labels = self._labels[index].copy()
        return {
            f"image{suffix}": torch.from_numpy(image),
            f"gaze{suffix}": torch.from_numpy(labels[:2]),
            f"head{suffix}": torch.from_numpy(labels[2:]),
        }

    def _read_pixels(self, person: int, sample: int) -> np.ndarray:
        """(S, S, 3) uint8, by h5py's low-level calls, which save `dataset[sample]` its overhead."""
        try:
            # Taken out while in use: a selection serves one thread at a time.
            opened = self._handles.pop(person, None) or self._open_pixels(person)
            handle, space, memory = opened
            pixels = np.empty(memory.shape, np.uint8)
            space.select_hyperslab((sample, 0, 0, 0), (1, *memory.shape))
            handle.read(memory, space, pixels, h5py.h5t.NATIVE_UINT8)
            self._handles[person] = opened
        except _READ_ERRORS as error:
            self._unreadable(person, f"pixels of sample {sample}", error)
        return pixels

    def _open_pixels(self, person: int) -> _Handle:
        handle = self._group(person)["pixels"].id
        return handle, handle.get_space(), h5py.h5s.create_simple(handle.shape[1:])

    def _load_labels(self, person: int) -> None:
        start, stop = self.person_start[person : person + 2]
        labels = self._read_rows(person, "labels")[:, :4]
        self._require(person, "labels that are not finite", ~np.isfinite(labels).all(axis=1))
        self._labels[start:stop] = labels
        self._has_labels[person] = True

    def _read_rows(self, person: int, name: str) -> np.ndarray:
        """All of one of the person's data sets."""
        try:
            return self._group(person)[name][()]
        except _READ_ERRORS as error:
            self._unreadable(person, name, error)

    def _require(self, person: int, what: str, is_bad: np.ndarray) -> None:
        """Raises ValueError if any sample of a person `is_bad` (N,)."""
        bad = np.flatnonzero(is_bad)
        if bad.size:
            raise ValueError(
                f"{self.path}: person {self.person_ids[person]!r} has {what}, {bad.size} "
                f"of {len(is_bad)}, the first at index {bad[0]}. Re-run preprocessing without them."
            )

    def _group(self, person: int) -> h5py.Group:
        if self._file is None:
            if get_worker_info() is not None:
                cv2.setNumThreads(0)  # the workers are the parallelism
            # HDF5 would keep up to 1 MB of images a person: gigabytes, in which a random read finds nothing.
            self._file = h5py.File(self.path, "r", rdcc_nbytes=0, rdcc_nslots=1)
            _holding_a_file.add(self)
        return self._file[self.person_ids[person]]

    def _unreadable(self, person: int, what: str, error: Exception) -> NoReturn:
        raise OSError(
            f"{self.path}: person {self.person_ids[person]!r}: {what} cannot be read ({error}). "
            "The file is damaged or has changed: download it again or re-run preprocessing."
        ) from error

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_handles": {}}


_holding_a_file: "weakref.WeakSet[GazeDataset]" = weakref.WeakSet()


def _close_inherited_files() -> None:
    """A forked process opens files of its own: HDF5 handles must not be shared."""
    for dataset in list(_holding_a_file):
        dataset.close()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_close_inherited_files)


def list_persons(path: str | Path) -> list[str]:
    """Names of the persons in a file, sorted. Raises FileNotFoundError, or ValueError if it is no HDF5 file."""
    file, found = _open(Path(path))
    file.close()
    return found


def knows_gaze(path: str | Path) -> bool:
    """Whether a file's gaze labels are known, not only the head's repeated. Raises as `list_persons`."""
    with _open(Path(path))[0] as file:
        return bool(file.attrs.get("gaze_known", True))


def _open(path: Path) -> tuple[h5py.File, list[str]]:
    """The file and the names in it."""
    try:
        file = h5py.File(path, "r")
        return file, sorted(file)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: no such file. Correct the path, or download or make it.") from error
    except _READ_ERRORS as error:
        remedy = "Re-download it or re-run preprocessing."
        raise ValueError(f"{path}: cannot be read as HDF5 ({error}). {remedy}") from error


def _select_persons(path: Path, found: list[str], asked: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """The persons asked for that are in the file, and those that are not."""
    if not found:
        raise ValueError(f"{path}: no persons in it, expected a group a person. Re-run preprocessing.")
    asked, known = list(found if asked is None else asked), set(found)
    repeated = [person for person, times in Counter(asked).items() if times > 1]
    if repeated:
        raise ValueError(f"{path}: persons asked for more than once: {_some(repeated)}. Correct the split.")
    if known.isdisjoint(asked):
        raise ValueError(
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
            group = file[person]
            found = group if isinstance(group, h5py.Group) else {}
            pixels, labels = found.get("pixels"), found.get("labels")
            wrong = _problems_of(pixels, labels)
        except _READ_ERRORS as error:
            wrong = [f"cannot be opened ({error})"]
        problems += [f"person {person!r}: {what}" for what in wrong]
        if not wrong:
            counts[person] = len(pixels)
            sizes.add(pixels.shape[1])
    return counts, sizes, problems


def _problems_of(pixels: Any, labels: Any) -> list[str]:
    if not isinstance(pixels, h5py.Dataset) or not isinstance(labels, h5py.Dataset):
        return ["expected a group with the data sets 'pixels' and 'labels'"]
    problems = []
    shape, dtype = pixels.shape, pixels.dtype
    if len(shape) != 4 or shape[1] != shape[2] or shape[3] != 3 or dtype != np.uint8:
        problems.append(f"pixels are {dtype} of shape {shape}, expected uint8 (N, S, S, 3)")
    if labels.ndim != 2 or labels.dtype.kind != "f":
        problems.append(f"labels are {labels.dtype} of shape {labels.shape}, expected floats (N, 4 or more)")
    elif labels.shape[1] < 4:
        width = labels.shape[1]
        problems.append(f"labels of width {width}, expected at least 4 (gaze pitch, yaw; head pitch, yaw)")
    if not problems and len(pixels) != len(labels):
        problems.append(f"{len(pixels)} pixels but {len(labels)} labels, expected as many of each")
    elif not problems and not len(pixels):
        problems.append("no samples, expected at least 1")
    return problems


def _is_bgr(file: h5py.File, chosen: bool | None, default: bool, problems: list[str]) -> bool:
    order = file.attrs.get("color_order")
    order = order.decode(errors="replace") if isinstance(order, bytes) else order
    if order is not None and str(order) not in ("RGB", "BGR"):
        problems.append(f"attribute color_order is {order!r}, expected 'RGB' or 'BGR'")
    if chosen is not None:
        return chosen
    return default if order is None else str(order) == "BGR"


def _refuse(path: Path, problems: list[str]) -> NoReturn:
    more = len(problems) - _MAX_LINES
    lines = problems[:_MAX_LINES] + ([f"... and {more} more"] if more > 0 else [])
    raise ValueError(f"{path}: not the expected layout. Re-run preprocessing.\n  " + "\n  ".join(lines))


def read_person_split(path: str | Path) -> dict[str, Any]:
    """Part ('train', 'val', 'test', ...) -> person ids, of a JSON file, or of an HDF5 file that has them with it.

    Raises FileNotFoundError, or ValueError if the file holds no such object.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file. Set the path of the person split.")
    if h5py.is_hdf5(path):
        with h5py.File(path) as file:
            text = file.attrs.get("split")
        if not isinstance(text, str) or text == "{}":
            raise ValueError(f"{path}: no person split with it (attribute 'split'). Set a JSON file of parts.")
    else:
        text = read_text(path)
    try:
        parts = json.loads(text)
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file ({error}). Download it again.") from error
    if not isinstance(parts, dict):
        raise ValueError(f"{path}: found a {type(parts).__name__}, expected an object of lists, part -> person ids.")
    return parts


def load_person_split(path: str | Path, part: str) -> list[str]:
    """Person ids of one part of `read_person_split`. Raises ValueError, too, if there is no such part."""
    parts = read_person_split(path)
    if part not in parts:
        raise ValueError(
            f"{path}: no part {part!r} in it, found {_some(list(parts), limit=20) or 'none'}. Choose one of these."
        )
    persons = parts[part]
    if not isinstance(persons, list) or not all(isinstance(person, str) for person in persons):
        raise ValueError(f'{path}: part {part!r} is not a list of strings. Write ids in quotes: ["00002"].')
    return persons


def labeled_subset(num_entries: int, num_labeled: int, seed: int = 0) -> np.ndarray:
    """(num_labeled,) int64, sorted: the entries whose labels semi-supervised training may use.

    Raises ValueError if there are fewer entries.  Source: the published choice, which seed 0 reproduces.
    """
    if num_labeled > num_entries:
        raise ValueError(
            f"{num_labeled} labelled samples asked for, {num_entries} in the data. Lower num_labeled_samples."
        )
    order = list(range(num_entries))
    random.Random(seed).shuffle(order)
    return np.sort(np.array(order[:num_labeled], np.int64))


def _random_partners(dataset: GazeDataset, entries: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each entry another one of the same person, uniformly; itself where the person has no other."""
    person = dataset.person_of[entries]
    start, stop = dataset.person_start[person], dataset.person_start[person + 1]
    partners = start + rng.integers(np.maximum(stop - start - 1, 1))
    return np.where(stop - start > 1, partners + (partners >= entries), entries)


def evaluation_pairs(dataset: GazeDataset, *, seed: int, fraction: float = 1.0, alone: bool = True) -> np.ndarray:
    """(M, 2) int64: source entries, sorted, each with one random partner of the same person.

    fraction: of the entries to use as a source, at least one; an entry's partner does not depend on it.
    alone: use a person's only sample, too, as its own partner.
    """
    assert 0 < fraction <= 1, fraction
    entries = np.arange(len(dataset))
    partners = _random_partners(dataset, entries, np.random.default_rng([seed, 0]))
    sources = entries if alone else entries[partners != entries]
    chosen = np.random.default_rng([seed, 1]).permutation(sources)[: max(1, round(fraction * len(sources)))]
    return np.stack([entries, partners], axis=1)[np.sort(chosen)]


class IndexSampler(Sampler[list[Any]]):
    """Batches of entries, endlessly shuffled: each entry once an epoch, incomplete batches dropped.

    The batch of a step is a pure function of (seed, step), so that a run can start in the middle.
    candidates: the entries to draw from; None for all.  Yields the batches of `start_step` up to `num_steps`.
    Raises ValueError if there are fewer candidates than `batch_size`.
    """

    def __init__(
        self,
        dataset: GazeDataset,
        *,
        batch_size: int,
        seed: int,
        start_step: int = 0,
        num_steps: int,
        candidates: np.ndarray | None = None,
    ) -> None:
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.steps = range(start_step, num_steps)
        self.candidates = np.arange(len(dataset)) if candidates is None else np.asarray(candidates, np.int64)
        if len(self.candidates) < batch_size:
            raise ValueError(
                f"{dataset.path}: {len(self.candidates)} samples to draw from, fewer than a batch of "
                f"{batch_size}. Lower batch_size or use more data."
            )
        self._epoch, self._order = -1, np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self.steps)

    def __iter__(self) -> Iterator[list[Any]]:
        return map(self.batch, self.steps)

    def batch(self, step: int) -> list[int]:
        """Entries of the batch of this step."""
        return self._rows(step).tolist()

    def _rows(self, step: int) -> np.ndarray:
        epoch, batch = divmod(step, len(self.candidates) // self.batch_size)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._draw(np.random.default_rng([self.seed, epoch]))
        return self._order[batch * self.batch_size :][: self.batch_size]

    def _draw(self, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(self.candidates)


class PairSampler(IndexSampler):
    """Like IndexSampler, but each entry comes with a random partner: (a, b), two samples of one person.

    b is uniform over all other samples of the person, candidates or not; a itself where there is no other.
    """

    def batch(self, step: int) -> list[tuple[int, int]]:
        """Pairs of entries of the batch of this step."""
        return list(map(tuple, self._rows(step).tolist()))

    def _draw(self, rng: np.random.Generator) -> np.ndarray:
        entries = super()._draw(rng)
        return np.stack([entries, _random_partners(self.dataset, entries, rng)], axis=1)
