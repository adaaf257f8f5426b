"""The HDF5 file of a data set, read row by row, by any number of processes."""

import os
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
from torch.utils.data import get_worker_info

from core.command import UserError
from core.hdf5 import READ_ERRORS, open_hdf5, reading, refusal, require_filters

# Data set; file and memory space; type in memory, as HDF5 and as numpy has it
_Handle = tuple[h5py.h5d.DatasetID, h5py.h5s.SpaceID, h5py.h5s.SpaceID, h5py.h5t.TypeID, np.dtype]


class PersonsFile:
    """An HDF5 file to read from: opened when it is first needed, and anew in a forked or unpickled process.

    HDF5 handles must not be shared. damaged: what to do where the file cannot be read.
    """

    def __init__(self, path: Path, damaged: str) -> None:
        self.path, self.damaged = path, f"The file is damaged or has changed: {damaged}"
        self._file: h5py.File | None = None
        self._owner = 0
        self._handles: dict[tuple[str, str], _Handle] = {}

    def row(self, person: str, name: str, index: int) -> np.ndarray:
        """One row of a person's data set, by h5py's low-level calls, which save `dataset[index]` its overhead.

        Raises UserError where it cannot be read.
        """
        self._be_mine()
        try:
            # Taken out while in use: a selection serves one thread at a time.
            opened = self._handles.pop((person, name), None) or self._open(person, name)
            handle, space, memory, kind, dtype = opened
            values = np.empty(memory.shape, dtype)
            space.select_hyperslab((index, *(0 for _ in memory.shape)), (1, *memory.shape))
            handle.read(memory, space, values, kind)
            self._handles[person, name] = opened
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

    def _open(self, person: str, name: str) -> _Handle:
        table = self._table(person, name)
        memory, dtype = h5py.h5s.create_simple(table.shape[1:]), table.dtype
        return table.id, table.id.get_space(), memory, h5py.h5t.py_create(dtype), dtype

    def _table(self, person: str, name: str) -> h5py.Dataset:
        self._be_mine()
        if self._file is None:
            if get_worker_info() is not None:
                cv2.setNumThreads(0)  # the workers are the parallelism
            # HDF5 would keep up to 1 MB of images a person: gigabytes, in which a random read finds nothing.
            self._file = open_hdf5(self.path, damaged=self.damaged, rdcc_nbytes=0, rdcc_nslots=1)
            self._owner = os.getpid()
        table = self._file[person][name]
        require_filters(table)
        return table

    def _be_mine(self) -> None:
        if self._file is not None and self._owner != os.getpid():
            self.close()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_file": None, "_handles": {}}
