"""Files that anybody may have made: each is refused within two seconds of work and a gigabyte of memory."""

import io
import os
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import scipy.io
import torch

from core.command import UserError
from core.config_reader import load_config
from core.files import parse_json, read_bytes, read_json, read_text
from core.hdf5 import open_hdf5
from core.page.sitting import _require_size
from core.redirection.photo_files import open_photo
from core.redirection.video_files import open_video
from core.torch_files import is_damaged
from dataset import GazeDataset, knows_gaze, read_person_split
from preprocess.datasets.eth_xgaze import read_camera
from preprocess.datasets.eyediap_files import DamagedSession, read_video
from preprocess.datasets.gazecapture import read_focal_lengths
from preprocess.datasets.matlab import read_numbers
from preprocess.datasets.mpiifacegaze import read_calibration
from preprocess.face_model import load_face_model
from preprocess.face_patches import LeftOut
from preprocess.fingerprints import fingerprints
from preprocess.image_files import BEHIND, read_exif, read_image
from preprocess.inspect.verify import verify
from preprocess.landmarks import BadLandmarks, read_landmarks
from preprocess.person_file import DamagedPerson
from utils import load_state, read_torch_file

pytestmark = pytest.mark.timeout(60)
REFUSED = (UserError, OSError, ValueError, DamagedPerson, DamagedSession, BadLandmarks)
GIGABYTE = 1 << 30


def memory(which: str) -> int:
    [line] = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(which))
    return int(line.split()[1]) * 1024


@contextmanager
def bounded() -> Iterator[None]:
    """Whether what is done within stays in the budgets, on a machine that others use as well."""
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("memory is measured by Linux' own figures")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak
    before, start = memory("VmRSS"), time.process_time()
    yield
    assert time.process_time() - start < 2
    assert memory("VmHWM") - before < GIGABYTE


def photo(path: Path) -> object:
    return open_photo(path)


def video(path: Path) -> object:
    with open_video(path) as clip:
        return clip


READERS: dict[str, Callable[[Path], object]] = {
    "text": read_text,
    "json": read_json,
    "config": lambda path: load_config([str(path)]),
    "hdf5": open_hdf5,
    "data set": GazeDataset,
    "verify": verify,
    "gaze known": knows_gaze,
    "split": read_person_split,
    "weights": read_torch_file,
    "photo": photo,
    "video": video,
    "session": lambda path: list(read_video(path, 1)),
    "focal lengths": read_focal_lengths,
    "face model": load_face_model,
    "landmarks": read_landmarks,
    "camera": read_camera,
    "numbers": read_numbers,
}


@pytest.mark.parametrize("name", READERS)
def test_a_pipe_that_nobody_writes_into_is_no_file(tmp_path: Path, name: str) -> None:
    os.mkfifo(path := tmp_path / "pipe.json")
    with bounded(), pytest.raises(REFUSED, match=r"pipe|no such"):
        READERS[name](path)


def test_pipes_among_images_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "p00").mkdir()
    os.mkfifo(path := tmp_path / "p00" / "1.jpg")
    with bounded():
        left_out = read_image(path, "p00/1.jpg")
        assert isinstance(left_out, LeftOut) and "pipe" in left_out.detail
        assert read_exif(path, 1) == [0.0]
        fingerprints(tmp_path, None, ["p00"])


def test_a_pipe_of_the_shell_is_read() -> None:
    reading, writing = os.pipe()
    os.write(writing, b'{"seed": 1}')
    os.close(writing)
    assert read_json(Path(f"/dev/fd/{reading}")) == {"seed": 1}
    os.close(reading)


@pytest.mark.parametrize("name", ["text", "json", "config", "split", "focal lengths", "photo"])
def test_a_file_of_a_terabyte_is_not_read(tmp_path: Path, name: str) -> None:
    with (tmp_path / "x.json").open("wb") as file:
        file.truncate(1 << 40)
    with bounded(), pytest.raises(REFUSED, match="read at most"):
        READERS[name](tmp_path / "x.json")


def test_json_that_would_fill_the_memory_is_not_parsed() -> None:
    with bounded(), pytest.raises(ValueError, match="letters long"):
        parse_json("[" + "[]," * 50_000_000 + "0]")


# Images


def png(path: Path, width: int, height: int, *chunks: tuple[bytes, bytes]) -> Path:
    """A black image, or as many of its rows as fit in a megabyte: the others are not needed to refuse it."""
    rows = zlib.compress(bytes(min((1 + 3 * width) * height, 1 << 20)))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", header), *chunks, (b"IDAT", rows), (b"IEND", b""))
    ends = [(kind + data, struct.pack(">I", zlib.crc32(kind + data))) for kind, data in parts]
    chunks_of = [struct.pack(">I", len(inside) - 4) + inside + end for inside, end in ends]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(chunks_of))
    return path


@pytest.mark.parametrize("side", [30_000, 1_000_000, 2**31 - 1])
def test_images_too_large_for_any_camera_are_refused(tmp_path: Path, side: int) -> None:
    path = png(tmp_path / "x.png", side, side, (b"teSt", bytes(3 << 20)))  # enough for 30,000 of one colour
    with bounded():
        left_out = read_image(path, "x.png")
        assert isinstance(left_out, LeftOut) and left_out.reason == "image cannot be read"
        with pytest.raises(UserError, match=r"x\.png: image cannot be read"):
            open_photo(path)
        with pytest.raises(UserError, match="too large|megapixels"):
            _require_size(path)
    assert side != 30_000 or "more than 200000000 pixels" in left_out.detail


def test_a_text_in_an_image_that_unpacks_to_a_gigabyte_is_not_unpacked(tmp_path: Path) -> None:
    packer, bomb = zlib.compressobj(1), b"Comment\0\0"
    for _ in range(1024):
        bomb += packer.compress(bytes(1 << 20))
    path = png(tmp_path / "x.png", 8, 8, (b"zTXt", bomb + packer.flush()), (b"tRNS", bytes(6)))
    with bounded():
        assert isinstance(read_image(path, "x.png"), np.ndarray | LeftOut)


def test_transparency_is_the_same_in_parts_as_at_once(tmp_path: Path) -> None:
    rgba = np.random.default_rng(0).integers(0, 256, (131, 9, 4), np.uint8)
    cv2.imwrite(str(tmp_path / "x.png"), rgba)
    alpha = rgba[..., 3:].astype(np.float32) / 255
    wanted = np.rint(alpha * rgba[..., 2::-1] + (1 - alpha) * BEHIND).astype(np.uint8)
    assert np.array_equal(read_image(tmp_path / "x.png", "x.png"), wanted)


# Archives


def weights() -> bytes:
    torch.save({"a": torch.zeros(8)}, content := io.BytesIO())
    return content.getvalue()


def packed_zeros(path: Path) -> None:
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive, archive.open("archive/data/1", "w") as entry:
        for _ in range(500):
            entry.write(bytes(1 << 20))


def claimed(path: Path) -> None:
    content = bytearray(path.read_bytes())
    struct.pack_into("<I", content, content.index(b"PK\1\2") + 24, 0xFFFFFFF0)
    path.write_bytes(content)


def overlapping(path: Path) -> None:
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("archive/data/1", os.urandom(1 << 20))
        entry = archive.getinfo("archive/data/1")
        archive.filelist.extend([entry] * 2000)


def packed_otherwise(path: Path) -> None:
    with zipfile.ZipFile(path, "a", zipfile.ZIP_LZMA) as archive:
        archive.writestr("archive/data/1", bytes(1 << 20))


def many_pickles(path: Path) -> None:
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for i in range(50):
            archive.writestr(f"{i}/data.pkl", b"\x80\x02](" + b"N" * 140_000 + b"e.")


@pytest.mark.parametrize("change", [packed_zeros, claimed, overlapping, packed_otherwise, many_pickles])
def test_archives_of_more_than_their_bytes_are_refused(tmp_path: Path, change: Callable[[Path], None]) -> None:
    path = tmp_path / "x.pt"
    path.write_bytes(weights())
    change(path)
    with bounded(), pytest.raises(UserError, match=r"x\.pt: "):
        read_torch_file(path)
    assert change is many_pickles or is_damaged(path)


def test_an_archive_that_somebody_packed_again_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(io.BytesIO(weights())) as before, zipfile.ZipFile(tmp_path / "x.pt", "w", 8) as archive:
        for entry in before.infolist():
            archive.writestr(entry.filename, before.read(entry))
    assert torch.equal(read_torch_file(tmp_path / "x.pt")["a"], torch.zeros(8))  # type: ignore[index]


def test_weights_of_another_shape_are_not_looked_at_for_what_is_not_finite() -> None:
    state = {"weight": torch.zeros(1).expand(1_000_000, 100_000), "bias": torch.zeros(2)}
    with bounded(), pytest.raises(UserError, match="1 of another shape"):
        load_state(torch.nn.Linear(2, 2), state, "x.pt", "Use another.")


def test_matlab_files_that_hold_much_in_little_are_not_unpacked(tmp_path: Path) -> None:
    much = {"cameraMatrix": np.zeros(20_000_000), "distCoeffs": np.zeros(5)}
    scipy.io.savemat(tmp_path / "Camera.mat", much, do_compression=True)
    with bounded(), pytest.raises(DamagedPerson, match="has no cameraMatrix"):
        read_calibration(tmp_path)


def test_the_limit_is_of_bytes_not_of_names(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"four")
    assert read_bytes(tmp_path / "x", most=4) == b"four"
    with pytest.raises(OSError, match="is of 4 bytes, and 3 are read at most"):
        read_bytes(tmp_path / "x", most=3)
