"""Damaged at random: files are read, or refused in a sentence, within seconds. The long drills are slow."""

from pathlib import Path

import h5py
import pytest

from dataset import GazeDataset, knows_gaze
from preprocess.inspect.verify import verify
from preprocess.rechunk import convert
from tests.fuzz import faults
from tests.tiny import write_dataset

QUICK, LONG = 8, 100


def look(path: Path) -> object:
    knows_gaze(path)
    data = GazeDataset(path)
    return [data[i] for i in range(len(data))]


def convert_beside(path: Path) -> object:
    return convert([path], path.with_name(f"out-{path.name}"), overwrite=True)


@pytest.mark.parametrize("cases", [QUICK, pytest.param(LONG, marks=pytest.mark.slow)])
@pytest.mark.parametrize("libver", ["earliest", "latest"])
def test_damaged_hdf5_is_read_or_refused(tmp_path: Path, libver: str, cases: int) -> None:
    path = write_dataset(tmp_path / "gc.h5", persons=2, samples=3, size=8)
    with h5py.File(path) as old, h5py.File(tmp_path / "x.h5", "w", libver=libver) as file:
        file.attrs.update({**old.attrs, "note": "a text", "sizes": [1, 2]})
        for person in old:
            old.copy(person, file)
        file["00000"].attrs["note"] = "another"
    content = (tmp_path / "x.h5").read_bytes()
    readers = {"GazeDataset": look, "verify": verify, "convert": convert_beside}
    assert faults(content, tmp_path / "x.h5", readers, cases, seed=0) == []
