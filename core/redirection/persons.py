"""A file of patches redirected to one of the same layout, whose labels are what was asked for."""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy import ndarray

from core.command import UserError
from core.disk import Disk, said_where_full
from core.files import require_writable
from core.hdf5 import open_hdf5, read_attributes, reading
from core.person_parts import write_whole
from core.redirection.edit import Edit
from core.redirection.faces import SIDE, PhotoFace
from core.redirection.fade import no_fade
from core.redirection.load import Loaded
from core.redirection.measure import measure_patch
from core.redirection.photo import Back, RedirectedFace, redirect_face
from core.redirection.told import face_record
from core.tracking import progress_bar, say
from dataset import GazeDataset
from preprocess.normalization import ST_ED, patch_camera

SUFFIXES = (".h5", ".hdf5")
GAZES = (slice(0, 2), slice(4, 6), slice(6, 8))  # columns of the labels: of the face, of each eye
HEADS = (slice(2, 4),)


def redirect_persons(
    loaded: Loaded, source: Path, out: Path, edit: Edit, *, back: Back | None = None, noted: bool = True,
    measures: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """Write `out`: all that `source` has, with redirected pixels and the labels that were asked for.

    Degrees are those of the labels, in the frame of the patch's camera. What is not asked for keeps its label; the
    eyes' own gazes become that of the face.
    noted: a root attribute `redirected` says what was done.  Returns a record of each patch where it `measures`.
    Raises UserError for another file, OSError where the disk is full. The file appears when it is whole.
    """
    data, records, doubts = GazeDataset(source), [], Counter[str]()
    back = back or ("pixels" if loaded.redirector.carries_pixels else "patch")
    out.parent.mkdir(parents=True, exist_ok=True)
    bar = progress_bar(len(data), 0, "redirecting", unit="patch")
    with said_where_full(out), open_hdf5(source) as old, write_whole(out) as (new, disk):
        new.attrs.update(read_attributes(old))
        for person in data.person_ids:
            with reading(source):
                old.copy(person, new)
            for row, (before, after, one) in enumerate(_patches(loaded, new[person], edit, back, data.is_bgr, disk)):
                bar.update()
                doubts.update(one.doubts)
                if measures:
                    view = ST_ED.resized(len(before))
                    seen = measure_patch(before, view), measure_patch(after, view)
                    records.append({"source": f"{person}/{row}", "faces": [face_record(one, *seen)]})
        if noted:
            new.attrs["redirected"] = json.dumps(asdict(edit))
    bar.close()
    for doubt, count in doubts.items():
        say(f"{count} of {len(data)} patches: the face {doubt}.")
    return records


def check_persons_output(out: Path, source: Path) -> None:
    """Raises UserError if a file of patches cannot be written there."""
    if out.suffix.lower() not in SUFFIXES:
        raise UserError(f"-o: {out}: a file of patches is written to one; name it {out.with_suffix('.h5').name}.")
    if out.is_dir():
        raise UserError(f"-o: {out} is a folder; name a file.")
    if out.exists() and out.samefile(source):
        raise UserError(f"-o: {out} is the file itself; name another.")
    require_writable(out.parent, "-o")


def _patches(
    loaded: Loaded, person: h5py.Group, edit: Edit, back: Back, is_bgr: bool, disk: Disk
) -> Iterator[tuple[ndarray, ndarray, RedirectedFace]]:
    """Redirects a person's rows in place; each before and after, (S, S, 3) uint8 RGB, and what was done."""
    pixels, labels = person["pixels"], person["labels"]
    fade = no_fade()
    for row in range(len(pixels)):
        disk.check()
        before = _in_rgb(pixels[row], is_bgr)
        face = _face_of_patch(pixels.shape[1], labels[row][2:4])
        after, one = redirect_face(loaded, before, face, edit, back, True, fade=fade)
        pixels[row] = _in_rgb(after, is_bgr)
        labels[row] = _label(labels[row], one, edit)
        yield before, after, one


def _label(label: ndarray, one: RedirectedFace, edit: Edit) -> ndarray:
    label = label.copy()
    for name, columns, is_asked in (("gaze", GAZES, edit.moves_gaze), ("head", HEADS, edit.moves_head)):
        for place in columns if is_asked else ():
            if label[place].shape == (2,):  # published files end after the head, or have more
                label[place] = np.radians(one.after[name])
    return label


def _face_of_patch(size: int, head: ndarray) -> PhotoFace:
    """The face of a patch, which is a photograph of its own: looked at straight, without a lean."""
    ratio = SIDE / size
    to_patch = np.array([[ratio, 0, (ratio - 1) / 2], [0, ratio, (ratio - 1) / 2], [0, 0, 1]])
    camera = patch_camera(ST_ED.resized(size), ST_ED.distance_mm)
    return PhotoFace(1, np.full((68, 2), np.nan), to_patch, np.eye(3), head, camera)


def _in_rgb(pixels: ndarray, is_bgr: bool) -> ndarray:
    return np.ascontiguousarray(pixels[..., ::-1]) if is_bgr else pixels
