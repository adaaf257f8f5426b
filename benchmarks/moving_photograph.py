"""Clips with sound, made of a photograph: a camera pans and zooms over it, or leaves the face and comes back."""

from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from numpy import ndarray

SIZE, RATE, SECONDS = (640, 480), 25, 10
SOUND_RATE, SOUND_BLOCK = 48_000, 1024
NOISE = 2.0  # grey levels, as of a camera's sensor

Camera = Callable[[float], tuple[float, float, float]]  # part of the time to column and row in the middle, and zoom


def over_the_face(box: ndarray) -> Camera:
    """Around a face whose box has these corners (2, 2), by a third of its size, and closer, and back."""
    (x, y), side = box.mean(axis=0), float((box[1] - box[0]).max())

    def at(part: float) -> tuple[float, float, float]:
        turn = 2 * np.pi * part
        return x + side * np.sin(2 * turn) / 3, y + side * np.sin(3 * turn) / 6, 130 / side * (1.4 - 0.4 * np.cos(turn))

    return at


def away_and_back(box: ndarray) -> Camera:
    """From the face to where there is none, and back."""
    (x, y), side = box.mean(axis=0), float((box[1] - box[0]).max())

    def at(part: float) -> tuple[float, float, float]:
        gone = 0.5 - 0.5 * np.cos(2 * np.pi * np.clip(1.4 * part - 0.2, 0, 1))
        return x + 4.5 * side * gone, y, 150 / side

    return at


def write_clip(path: Path, photograph: ndarray, camera: Camera, seed: int = 0) -> None:
    """An H.264 video with AAC sound of what the camera sees of a photograph (H, W, 3) uint8 RGB."""
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=RATE, options={"crf": "18"})
        pictures.width, pictures.height = SIZE
        pictures.pix_fmt = "yuv420p"
        sound = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
        for frame in _frames(photograph, camera, np.random.default_rng(seed)):
            container.mux(pictures.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(pictures.encode())
        for block in _sound():
            container.mux(sound.encode(block))
        container.mux(sound.encode())


def _frames(photograph: ndarray, camera: Camera, rng: np.random.Generator) -> Iterator[ndarray]:
    for number in range(RATE * SECONDS):
        x, y, zoom = camera(number / (RATE * SECONDS))
        matrix = np.array([[zoom, 0, SIZE[0] / 2 - zoom * x], [0, zoom, SIZE[1] / 2 - zoom * y]])
        seen = cv2.warpAffine(photograph, matrix, SIZE, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        yield np.clip(np.rint(seen + rng.normal(0, NOISE, seen.shape)), 0, 255).astype(np.uint8)


def _sound() -> Iterator["av.AudioFrame"]:
    """A tone."""
    for first in range(0, SOUND_RATE * SECONDS, SOUND_BLOCK):
        wave = 0.2 * np.sin(2 * np.pi * 440 * (first + np.arange(SOUND_BLOCK)) / SOUND_RATE)
        block = av.AudioFrame.from_ndarray(wave.astype(np.float32)[None], format="fltp", layout="mono")
        block.sample_rate, block.pts, block.time_base = SOUND_RATE, first, Fraction(1, SOUND_RATE)
        yield block
