"""HDF5 files that are whole, but not what anybody would write: all are refused in a sentence that names the file."""

import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from core.command import UserError
from core.hdf5 import DamagedFile
from dataset import GazeDataset, knows_gaze, list_persons, load_person_split
from preprocess.inspect.page import make_page
from preprocess.inspect.verify import verify
from preprocess.rechunk import convert
from tests.tiny import write_dataset


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "gc.h5", persons=2, samples=3, size=16)


@pytest.mark.parametrize("read", [GazeDataset, list_persons, verify])
@pytest.mark.parametrize("name", [b"\xff\xfe", b"00/01", b"."])
def test_names_that_are_none_are_refused(path: Path, name: bytes, read: Callable[[Path], object]) -> None:
    with h5py.File(path, "a") as file:
        h5py.h5g.create(file.id, b"~" * len(name))
    content = path.read_bytes()
    at = content.rindex(b"~" * len(name))
    path.write_bytes(content[:at] + name + content[at + len(name) :])
    with pytest.raises(DamagedFile, match="gc.h5: cannot be read as HDF5 .* in / is no name of UTF-8"):
        read(path)


def external_person(file: h5py.File) -> None:
    file["x"] = h5py.ExternalLink("other.h5", "/00000")


def external_pixels(file: h5py.File) -> None:
    file["00000"]["extra"] = h5py.ExternalLink("pipe", "/")


def external_by_a_soft_link(file: h5py.File) -> None:
    file["00000/a/b"] = h5py.ExternalLink("pipe", "/")
    file["x"] = h5py.SoftLink("/00000/a/b/00000")


def circular(file: h5py.File) -> None:
    file["x"], file["y"] = h5py.SoftLink("/y"), h5py.SoftLink("/x")


def dangling(file: h5py.File) -> None:
    file["x"] = h5py.SoftLink("/nowhere")


def external_storage(file: h5py.File) -> None:
    del file["00000/pixels"]
    file["00000"].create_dataset("pixels", (3, 16, 16, 3), np.uint8, external=[("/etc/passwd", 0, 2304)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((3, 16, 16, 3), np.uint8)
    layout[:] = h5py.VirtualSource("other.h5", "00000/pixels", (3, 16, 16, 3))
    del file["00000/pixels"]
    file["00000"].create_virtual_dataset("pixels", layout)


def of_shape(name: str, shape: tuple[int, ...] | None, dtype: str) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        del file["00000"][name]
        if shape is None:
            file["00000"][name] = h5py.Empty(dtype)
        else:
            chunks = None if 0 in shape else tuple(min(size, 16) for size in shape)
            file["00000"].create_dataset(name, shape, dtype, chunks=chunks)

    return change


ODD = {
    "an external person": (external_person, "'x' in / is a link into another file"),
    "an external data set": (external_pixels, "'extra' in /00000 is a link into another file"),
    "an external link behind a soft one": (external_by_a_soft_link, "'x' in / is a link into another file"),
    "a circle": (circular, "'x' in / is a link .*without end"),
    "a dangling link": (dangling, "'x'.* (cannot be opened|cannot be read)"),
    "external storage": (external_storage, "/00000/pixels has its values in other files"),
    "a virtual data set": (virtual, "/00000/pixels has its values in other files"),
    "null pixels": (of_shape("pixels", None, "u1"), "pixels are without any elements"),
    "null labels": (of_shape("labels", None, "f4"), "labels are without any elements"),
    "no pixels a side": (of_shape("pixels", (3, 0, 0, 3), "u1"), "pixels are of shape"),
    "images of 30,000 pixels": (of_shape("pixels", (3, 30000, 30000, 3), "u1"), "says that it is of shape"),
    "300,000,000 rows": (of_shape("pixels", (300_000_000, 16, 16, 3), "u1"), "says that it is of shape"),
    "labels of 400 million columns": (of_shape("labels", (3, 400_000_000), "f4"), "says that it is of shape"),
}


@pytest.mark.timeout(20)  # whoever opens the pipe waits for ever
@pytest.mark.parametrize("kind", ODD)
def test_what_is_not_in_the_file_or_is_nothing_is_refused_in_a_sentence(path: Path, kind: str) -> None:
    change, message = ODD[kind]
    write_dataset(path.with_name("other.h5"), persons=1, samples=3, size=16)
    os.mkfifo(path.with_name("pipe"))
    with h5py.File(path, "a") as file:
        change(file)
    with pytest.raises(UserError, match=f"(?s)gc.h5.*({message})"):
        GazeDataset(path)
    try:
        checks, _ = verify(path)
        found = "; ".join(check.found for check in checks if check.level == "FAIL")
    except UserError as error:
        found = str(error)
    assert re.search(message, found), found
    with pytest.raises(UserError, match=f"(?s)gc.h5.*({message})"):
        convert([path], path.with_name("out.h5"), progress=False)


@pytest.mark.parametrize("kind", ["an external person", "external storage", "a virtual data set"])
def test_what_lies_in_other_files_is_no_damage_and_is_to_be_copied_in(path: Path, kind: str) -> None:
    with h5py.File(path, "a") as file:
        ODD[kind][0](file)
    with pytest.raises(UserError, match="Copy it in: load what it means where all of its files are") as refused:
        GazeDataset(path)
    assert not isinstance(refused.value, DamagedFile) and "Re-download" not in str(refused.value)


def test_a_soft_link_within_the_file_is_followed(path: Path) -> None:
    with h5py.File(path, "a") as file:
        file["x"] = h5py.SoftLink("/00000")
        file["00000/more"] = h5py.SoftLink("labels")
    assert GazeDataset(path).person_ids == ["00000", "00001", "x"]


ATTRIBUTES = {
    "structured": np.array((1, 2.0), [("a", "i4"), ("b", "f8")]),
    "two structured": np.zeros(2, [("a", "i4"), ("b", "S3")]),
    "empty": h5py.Empty("f4"),
    "none of many": np.zeros((0, 3)),
    "bytes that are no text": np.bytes_(b"\xff\xfe"),
    "numbers": np.arange(5),
    "not a number": np.nan,
    "complex": np.complex64(1j),
}
APART = {"structured", "two structured", "complex"}  # read in a process of its own, each time


@pytest.mark.parametrize(
    "value", [pytest.param(name, marks=pytest.mark.slow if name in APART else ()) for name in ATTRIBUTES]
)
def test_attributes_of_any_kind_give_no_traceback(path: Path, value: str) -> None:
    for name in ("color_order", "split", "gaze_known", "num_samples", "view", "dataset", "synthetic", "complete"):
        with h5py.File(path, "a") as file:
            for other in list(file.attrs):
                del file.attrs[other]
            file.attrs[name] = ATTRIBUTES[value]
        for read in (
            GazeDataset,
            verify,
            knows_gaze,
            lambda p: make_page(p, p.parent / "page"),
            lambda p: load_person_split(p, "train"),
        ):
            with contextlib.suppress(UserError):
                read(path)
        with contextlib.suppress(UserError):
            convert([path], path.with_name("out.h5"), progress=False, overwrite=True)


def moment(file: h5py.File) -> None:
    h5py.h5a.create(file.id, b"when", h5py.h5t.UNIX_D32LE, h5py.h5s.create(h5py.h5s.SCALAR))


def moments(file: h5py.File) -> None:
    for person in file.values():
        h5py.h5d.create(person.id, b"when", h5py.h5t.UNIX_D32LE, h5py.h5s.create_simple((3,)))


def without_elements(file: h5py.File) -> None:
    for person in file.values():
        person["extra"] = h5py.Empty("f4")


@pytest.mark.parametrize("change", [moment, moments, without_elements])
def test_what_numpy_cannot_hold_is_copied_or_told_as_text(path: Path, change: Callable[[h5py.File], None]) -> None:
    with h5py.File(path, "a") as file:
        change(file)
    assert convert([path], path.with_name("out.h5"), progress=False) == 6
    with h5py.File(path.with_name("out.h5")) as file:
        assert change is not moment or "No NumPy equivalent" in file.attrs["when"]
        assert change is not moments or "when" in file["00001"]
        assert change is not without_elements or file["00001/extra"].shape is None
