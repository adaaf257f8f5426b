"""HDF5 files that are whole, but not what anybody would write: all are refused in a sentence that names the file."""

from collections.abc import Callable
from pathlib import Path

import h5py
import pytest

from core.hdf5 import DamagedFile
from dataset import GazeDataset, list_persons
from preprocess.inspect.verify import verify
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
    with pytest.raises(DamagedFile, match=r"gc.h5: a person is called .*expected a name in UTF-8"):
        read(path)
