"""Pixels of image files: those that are damaged inside are refused, good ones with something behind them are not."""

import io
import os
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy import ndarray
from PIL import Image

from preprocess.face_patches import LeftOut
from preprocess.image_files import BEHIND, read_image
from preprocess.native_output import heard

END = b"\xff\xd9"
KINDS = {
    "baseline": [],
    "progressive": [cv2.IMWRITE_JPEG_PROGRESSIVE, 1],
    "optimised": [cv2.IMWRITE_JPEG_OPTIMIZE, 1],
    "restarts": [cv2.IMWRITE_JPEG_RST_INTERVAL, 4],
}


def picture() -> ndarray:
    """(480, 640, 3) uint8 RGB with as much texture as a photograph."""
    x, y = np.meshgrid(np.arange(640), np.arange(480))
    smooth = 127 + 60 * np.sin(x / 37)[..., None] + 50 * np.cos(y / 23)[..., None] * (1, 0.5, 0.2)
    return (smooth + np.random.default_rng(0).integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8)


def encoded(suffix: str, image: ndarray, options: list[int] | None = None) -> bytes:
    return cv2.imencode(suffix, image[..., ::-1], options or [])[1].tobytes()


def scattered(data: bytes) -> bytes:
    """Forty bytes in the middle are wrong."""
    rng, wrong = np.random.default_rng(1), bytearray(data)
    for at in rng.integers(len(data) * 3 // 10, len(data) * 8 // 10, 40):
        wrong[at] = int(rng.integers(256))
    return bytes(wrong)


def part(data: bytes, start: float, stop: float) -> bytes:
    return data[int(start * len(data)) : int(stop * len(data))]


DAMAGES = {
    "zeros inside": lambda data: part(data, 0, 0.4) + bytes(len(part(data, 0.4, 0.7))) + part(data, 0.7, 1),
    "bytes wrong": scattered,
    "block lost": lambda data: part(data, 0, 0.4) + part(data, 0.6, 1),
    "cut": lambda data: part(data, 0, 0.6),
    "cut near the end": lambda data: part(data, 0, 0.99),
    "cut, with an end": lambda data: part(data, 0, 0.6) + END,
    "cut and filled up": lambda data: part(data, 0, 0.6) + bytes(len(part(data, 0.6, 1))),
    "cut and filled up too much": lambda data: part(data, 0, 0.6) + bytes(30 * len(data)),
}
GOOD = {
    "zeros behind": lambda data: data + bytes(len(data)),
    "a film behind": lambda data: data + np.random.default_rng(2).bytes(400_000),
    "a second picture behind": lambda data: data + data,
    "zeros before the end": lambda data: data[:-2] + bytes(30) + END,
}


def read(tmp_path: Path, data: bytes, suffix: str = ".jpg") -> ndarray | LeftOut:
    (tmp_path / f"a{suffix}").write_bytes(data)
    return read_image(tmp_path / f"a{suffix}", f"a{suffix}")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_jpeg_is_refused(tmp_path: Path, kind: str, damage: str, capfd: pytest.CaptureFixture):
    found = read(tmp_path, DAMAGES[damage](encoded(".jpg", picture(), KINDS[kind])))
    assert isinstance(found, LeftOut) and found.damaged and found.reason == "image cannot be read"
    assert found.detail.startswith("the JPEG file is ")
    assert capfd.readouterr().err == ""  # it says so itself


@pytest.mark.parametrize("damage", ["cut and filled up", "cut and filled up too much"])
def test_a_grey_jpeg_is_judged_by_its_end(tmp_path: Path, damage: str):
    """Its decoder finds enough in the zeros to be content."""
    grey = cv2.imencode(".jpg", picture()[..., 0])[1].tobytes()
    assert isinstance(read(tmp_path, DAMAGES[damage](grey)), LeftOut)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("what", GOOD)
def test_a_good_jpeg_keeps_its_pixels_whatever_follows(tmp_path: Path, kind: str, what: str):
    good = encoded(".jpg", picture(), KINDS[kind])
    expected = cv2.imdecode(np.frombuffer(good, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    np.testing.assert_array_equal(read(tmp_path, GOOD[what](good)), expected)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".jp2", ".ppm"])
def test_other_formats_cut_short_are_refused(tmp_path: Path, suffix: str):
    good = encoded(suffix, picture())
    assert isinstance(read(tmp_path, good, suffix), ndarray)
    assert isinstance(read(tmp_path, part(good, 0, 0.6), suffix), LeftOut)


def test_a_png_with_a_wrong_byte_is_refused(tmp_path: Path):
    good = encoded(".png", picture())
    assert isinstance(read(tmp_path, scattered(good), ".png"), LeftOut)


def test_a_name_that_no_file_can_have_is_left_out(tmp_path: Path):
    assert isinstance(read_image(tmp_path / "\0.jpg", "a"), LeftOut)


def test_an_image_whose_name_leads_out_of_the_data_set_is_left_out(tmp_path: Path):
    (tmp_path / "raw").mkdir()
    (tmp_path / "a.jpg").write_bytes(encoded(".jpg", picture()))
    found = read_image(tmp_path / "raw" / "p00/../../a.jpg", "p00/../../a.jpg")
    assert isinstance(found, LeftOut) and "leads out of the data set" in found.detail


# Transparency.

HIDDEN, SHOWN = (255, 0, 255), (10, 200, 30)


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def half_transparent(mode: str = "RGBA") -> Image.Image:
    """64 x 64: the left half is transparent, the right one is not."""
    image = Image.new("RGBA", (64, 64), (*HIDDEN, 0))
    image.paste((*SHOWN, 255), (32, 0, 64, 64))
    return image.convert(mode)


def sixteen_bits() -> bytes:
    image = np.asarray(half_transparent())[..., [2, 1, 0, 3]].astype(np.uint16) * 257
    return cv2.imencode(".png", image)[1].tobytes()


def palette() -> bytes:
    image = Image.new("P", (64, 64), 0)
    image.putpalette([*HIDDEN, *SHOWN])
    image.paste(1, (32, 0, 64, 64))
    return saved(image, "PNG", transparency=0)


@pytest.mark.parametrize(
    ("suffix", "make"),
    [
        (".png", lambda: saved(half_transparent(), "PNG")),
        (".png", sixteen_bits),
        (".png", palette),
        (".webp", lambda: saved(half_transparent(), "WEBP", lossless=True, exact=True)),
        (".tif", lambda: saved(half_transparent(), "TIFF")),
        (".tif", lambda: saved(half_transparent(), "TIFF", compression="tiff_lzw")),
    ],
    ids=["png", "16 bits", "palette", "webp", "tiff", "tiff lzw"],
)
def test_what_is_transparent_is_grey_whatever_lies_under_it(tmp_path: Path, suffix: str, make):
    found = read(tmp_path, make(), suffix)
    assert (found[:, :32] == BEHIND).all() and (found[:, 32:] == SHOWN).all()


def test_half_transparent_is_half_grey(tmp_path: Path):
    image = Image.new("RGBA", (8, 8), (228, 28, 128, 128))
    assert read(tmp_path, saved(image, "PNG"), ".png")[0, 0].tolist() == [178, 78, 128]


def test_an_image_that_could_be_transparent_and_is_not_keeps_its_pixels(tmp_path: Path):
    image = np.dstack([picture(), np.full((480, 640), 255, np.uint8)])
    np.testing.assert_array_equal(read(tmp_path, saved(Image.fromarray(image), "PNG"), ".png"), picture())


# What libraries print.


def test_what_is_heard_is_not_printed_and_after_an_error_it_is(capfd: pytest.CaptureFixture):
    with heard() as said:
        os.write(2, b"one\n")
    os.write(2, b"two\n")
    assert said == [b"one\n"] and capfd.readouterr().err == "two\n"
    with pytest.raises(KeyError), heard():
        os.write(2, b"three\n")
        raise KeyError
    assert capfd.readouterr().err == "three\n"
    with heard() as said:
        pass
    assert said == [b""]


def test_a_harmless_remark_of_a_decoder_is_passed_on(tmp_path: Path, capfd: pytest.CaptureFixture):
    data = encoded(".jpg", picture())
    at = data.index(b"\xff\xda") + 11  # the end of the spectral selection in the scan's header
    assert data[at : at + 3] == bytes([0, 63, 0])
    found = read(tmp_path, data[: at + 1] + bytes([62]) + data[at + 2 :])
    assert isinstance(found, ndarray)
    assert "Invalid SOS parameters" in capfd.readouterr().err


def test_a_png_that_cannot_hold_what_its_header_says_is_not_decoded(tmp_path: Path) -> None:
    data = bytearray(cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes())
    data[16:24] = (14_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data)
    found = read_image(tmp_path / "a.png", "a.png")
    assert isinstance(found, LeftOut) and "cannot hold the 588014000 that its header says" in found.detail


def test_a_png_with_a_part_that_is_longer_than_the_file_is_not_decoded(tmp_path: Path) -> None:
    data = bytearray(cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes())
    data[33:37] = (4_000_000_000).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(data)
    with heard() as said:
        found = read_image(tmp_path / "a.png", "a.png")
    assert isinstance(found, LeftOut) and found.detail == "it is cut short or damaged" and said[0] == b""


def test_a_png_of_one_colour_is_read_however_small_its_file(tmp_path: Path) -> None:
    white = np.full((4000, 4000), 255, np.uint8)
    (tmp_path / "a.png").write_bytes(cv2.imencode(".png", white, [cv2.IMWRITE_PNG_COMPRESSION, 9])[1].tobytes())
    found = read_image(tmp_path / "a.png", "a.png")
    assert not isinstance(found, LeftOut) and found.min() == 255
