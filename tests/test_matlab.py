"""MATLAB files as SciPy writes them, and damaged as SciPy does not survive."""

from pathlib import Path

import numpy as np
import pytest
import scipy.io

from preprocess.datasets.matlab import read_numbers

NUMBERS = {
    "matrix": np.arange(9.0).reshape(3, 3),
    "bytes": np.arange(5, dtype=np.uint8),
    "small": np.float32(0.5),
    "words": np.arange(-3, 3, dtype=np.int16),
    "none": np.zeros((0, 3)),
}
OTHERS = {"text": "some", "cell": np.array([1, "x"], object), "struct": {"a": 1.0}, "complex": np.ones(2) * 1j}


@pytest.mark.parametrize("packed", [False, True])
def test_numbers_are_those_that_scipy_reads(tmp_path: Path, packed: bool) -> None:
    scipy.io.savemat(tmp_path / "x.mat", NUMBERS | OTHERS, do_compression=packed)
    found, expected = read_numbers(tmp_path / "x.mat"), scipy.io.loadmat(tmp_path / "x.mat")
    assert found.keys() == NUMBERS.keys()
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name])
        assert values.dtype == np.float64


def test_what_is_packed_to_little_is_left_out(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "x.mat", {"much": np.zeros(10_000_000), "little": 1.0}, do_compression=True)
    assert list(read_numbers(tmp_path / "x.mat")) == ["little"]


def test_a_type_of_numbers_that_there_is_none_of_does_not_end_the_process(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "x.mat", {"a": np.full(5, 0.5)})
    content = bytearray((tmp_path / "x.mat").read_bytes())
    at = content.index(b"\x09\0\0\0\x28\0\0\0")  # double, 40 bytes
    content[at : at + 4] = b"\x09\x17\0\0"
    (tmp_path / "x.mat").write_bytes(content)
    assert read_numbers(tmp_path / "x.mat") == {}


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_that_is_cut_short_says_so(tmp_path: Path, packed: bool) -> None:
    scipy.io.savemat(tmp_path / "x.mat", NUMBERS, do_compression=packed)
    content = (tmp_path / "x.mat").read_bytes()
    for end in (0, 100, 130, 140, 200, len(content) - 20):
        (tmp_path / "x.mat").write_bytes(content[:end])
        with pytest.raises(ValueError, match="no MATLAB file|cut short|unpacked|in .* bytes"):
            read_numbers(tmp_path / "x.mat")
