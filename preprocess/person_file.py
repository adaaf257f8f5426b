"""One converted person on disk: written wholly or not at all, with what was left out of it.

The file holds the person's group as it will be in the output, here named `samples`, unless there is no sample;
`left_out`, lines of text; and counts as attributes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import h5py
import numpy as np

from core.disk import Disk
from core.person_parts import is_whole, write_whole
from preprocess.face_patches import LeftOut, Sample

SAMPLES = "samples"  # the group: a person may have any name
DAMAGED, NOTHING = "person cannot be converted", "person without samples"  # reasons that count persons
_BATCH = 32  # images in memory
_SAID = 5  # lines a person


class DamagedPerson(ValueError):
    """A converter raises it where no sample of the person can be trusted; the others are converted all the same."""


def is_done(path: Path) -> bool:
    """Whether `path` holds a person; one that was damaged is tried again. Raises UserError if it cannot be opened."""

    def is_person(file: h5py.File) -> bool:
        lengths = {len(data) for data in file[SAMPLES].values()} if SAMPLES in file else set()
        return not file.attrs["damaged"] and lengths <= {int(file.attrs["num_samples"])}

    return is_whole(path, is_person)


def write_person(convert: Callable, person: str, path: Path, compression: str | None) -> list[str]:
    """Write a person's file. Returns what to tell the user. Raises OSError where the disk is full."""
    try:
        return _write_person(convert(person), person, path, compression)
    except DamagedPerson as error:
        left_out = LeftOut(person, DAMAGED, str(error), damaged=True)
        return _write_person([left_out], person, path, compression, damaged=True)


def _write_person(
    results: Iterable[Sample | LeftOut], person: str, path: Path, compression: str | None, damaged: bool = False
) -> list[str]:
    with write_whole(path) as (file, disk):
        writer = _Writer(file, disk, person, compression)
        for result in results:
            writer.add(result)
        return writer.finish(damaged)


class _Writer:
    """One person's file: images go to the disk by batches, the small things at the end."""

    def __init__(self, file: h5py.File, disk: Disk, person: str, compression: str | None) -> None:
        self.file, self.disk, self.person, self.compression = file, disk, person, compression
        self.batch: list[np.ndarray] = []
        self.rows: dict[str, list] = {"labels": [], "name": []}
        self.left_out: list[LeftOut] = []
        self.notes: Counter[str] = Counter()

    def add(self, result: Sample | LeftOut) -> None:
        self.disk.check()
        if isinstance(result, LeftOut):
            self.left_out.append(result)
            return
        assert result.pixels.dtype == np.uint8 and result.labels.shape == (8,) and np.isfinite(result.labels[:4]).all()
        self.batch.append(result.pixels)
        row = {"labels": np.asarray(result.labels, np.float32), "name": _utf8(result.name), **result.extra}
        for name, value in row.items():
            self.rows.setdefault(name, []).append(value)
        if result.note:
            self.notes[result.note] += 1
        if len(self.batch) == _BATCH:
            self._flush()

    def _flush(self) -> None:
        pixels = np.stack(self.batch)
        group, shape = self.file.require_group(SAMPLES), pixels.shape[1:]
        if "pixels" not in group:
            options = {"maxshape": (None, *shape), "chunks": (1, *shape), "compression": self.compression}
            group.create_dataset("pixels", (0, *shape), np.uint8, track_times=False, **options)
        data = group["pixels"]
        data.resize(len(data) + len(pixels), axis=0)
        data[-len(pixels) :] = pixels
        self.batch.clear()

    def finish(self, damaged: bool) -> list[str]:
        if self.batch:
            self._flush()
        count = len(self.rows["name"])
        if count:
            for name, values in self.rows.items():
                self.file[SAMPLES].create_dataset(name, data=np.array(values), track_times=False)
        elif not damaged:
            why = ", ".join(sorted({left.reason for left in self.left_out})) or "nothing there"
            self.left_out.append(LeftOut(self.person, NOTHING, why, damaged=True))
        listing = "".join(_line(self.person, left.name, left.reason, left.detail) for left in self.left_out)
        self.file.create_dataset("left_out", data=np.frombuffer(_utf8(listing), np.uint8), track_times=False)
        counts = dict(sorted(Counter(left.reason for left in self.left_out).items()))
        self.file.attrs["num_samples"], self.file.attrs["damaged"] = count, damaged
        self.file.attrs["left_out"] = json.dumps(counts)
        self.file.attrs["notes"] = json.dumps(dict(sorted(self.notes.items())))
        return self._lines()

    def _lines(self) -> list[str]:
        said = [left for left in self.left_out if left.damaged]
        lines = [f"{left.name}: {left.reason}" + (f" ({left.detail})" if left.detail else "") for left in said[:_SAID]]
        return lines + ([f"{self.person}: and {len(said) - _SAID} more like these"] if len(said) > _SAID else [])


def _utf8(text: str) -> bytes:
    """Stray bytes of a file's name as backslash escapes."""
    return text.encode("utf-8", "backslashreplace")


def _line(*cells: str) -> str:
    return "\t".join(" ".join(cell.split()) for cell in cells) + "\n"
