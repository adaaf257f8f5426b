"""The HDF5 file of a data set, read row by row, by any number of processes."""

import os
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import h5py
import numpy as np
from torch.utils.data import get_worker_info

from core.command import UserError
from core.hdf5 import READ_ERRORS, open_hdf5, reading, refusal, require_readable


class _Rows(NamedTuple):
    """An open data set, to be read row by row."""

    data: h5py.h5d.DatasetID
    space: h5py.h5s.SpaceID  # in the file, where a row is selected
    memory: h5py.h5s.SpaceID
    kind: h5py.h5t.TypeID
    dtype: np.dtype
    shape: tuple[int, ...]  # of a row
    start: tuple[int, ...]  # of each row, without its number


class PersonsFile:
    """An HDF5 file to read from: opened when it is first needed, and anew in a forked or unpickled process.

    HDF5 handles must not be shared. damaged: what to do where the file cannot be read.
    """

    def __init__(self, path: Path, damaged: str) -> None:
        self.path, self.damaged = path, f"The file is damaged or has changed: {damaged}"
        self._file: h5py.File | None = None
        self._owner = self._size = 0
        self._handles: dict[tuple[str, str], _Rows] = {}

    def row(self, person: str, name: str, index: int) -> np.ndarray:
        """One row of a person's data set, by h5py's low-level calls, which save `dataset[index]` its overhead.

        Raises UserError where it cannot be read.
        """
        self._be_mine()
        try:
            # Taken out while in use: a selection serves one thread at a time.
            rows = self._handles.pop((person, name), None) or self._open(person, name)
            values = np.empty(rows.shape, rows.dtype)
            rows.space.select_hyperslab((index, *rows.start), (1, *rows.shape))
            rows.data.read(rows.memory, rows.space, values, rows.kind)
            self._require_whole()
            self._handles[person, name] = rows
        except UserError:
            raise
        except READ_ERRORS as error:
            what = f"person {person!r}: {name} of sample {index} cannot be read"
            raise refusal(self.path, error, what, damaged=self.damaged) from error
        return values

    def rows(self, person: str, name: str) -> np.ndarray:
        """All of a person's data set. Raises UserError where it cannot be read."""
        with reading(self.path, f"person {person!r}: {name} cannot be read", damaged=self.damaged):
            return self._table(person, name)[()]

    def shape(self, person: str, name: str) -> tuple[int, ...]:
        """Of a person's data set. Raises UserError where it cannot be read."""
        with reading(self.path, f"person {person!r}: {name} cannot be read", damaged=self.damaged):
            return self._table(person, name).shape

    def close(self) -> None:
        """Give the file back; the next read opens it again."""
        self._handles.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _open(self, person: str, name: str) -> _Rows:
        table = self._table(person, name)
        shape, dtype, kind = table.shape[1:], table.dtype, h5py.h5t.py_create(table.dtype)
        memory, start = h5py.h5s.create_simple(shape), (0,) * len(shape)
        return _Rows(table.id, table.id.get_space(), memory, kind, dtype, shape, start)

    def _table(self, person: str, name: str) -> h5py.Dataset:
        self._be_mine()
        if self._file is None:
            if get_worker_info() is not None:
                cv2.setNumThreads(0)  # the workers are the parallelism
            # HDF5 would keep up to 1 MB of images a person: gigabytes, in which a random read finds nothing.
            self._file = open_hdf5(self.path, damaged=self.damaged, again=True, rdcc_nbytes=0, rdcc_nslots=1)
            self._owner, self._size = os.getpid(), os.fstat(self._file.id.get_vfd_handle()).st_size
        table = self._file[person][name]
        require_readable(table)
        return table

    def _require_whole(self) -> None:
        """Beyond the end of a file that was cut since it was opened, HDF5 reads zeros: black images."""
        assert self._file is not None
        size = os.fstat(self._file.id.get_vfd_handle()).st_size
        if size < self._size:
            raise OSError(f"it was of {self._size:,} bytes when it was opened, and is of {size:,} now")

    def _be_mine(self) -> None:
        if self._file is not None and self._owner != os.getpid():
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_handles": {}}
