"""A webcam as a video that ends when the user stops it."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import Any

import cv2
from numpy import ndarray

from core.command import UserError
from core.redirection.video_frames import Format, Frame

TIME_BASE = Fraction(1, 90_000)
COLOURS = {"color_range": 1, "colorspace": 6}  # what OpenCV makes of RGB


@contextmanager
def open_camera(source: str) -> "Iterator[Camera]":
    """source: the number of a camera, or what else OpenCV opens, as an address or a file that stands for one.

    Raises UserError where there is none.
    """
    capture = cv2.VideoCapture(int(source) if source.isdigit() else source)
    try:
        yield Camera(source, capture)
    finally:
        capture.release()


class Camera:
    """What `video_files.Clip` is for a file. A frame's time is that at which it was taken over."""

    sound: Sequence[Any] = ()
    metadata: Mapping[str, str] = {}
    damaged = 0

    def __init__(self, source: str, capture: cv2.VideoCapture) -> None:
        self.path, self._capture = f"--webcam {source}", capture
        first = self._take()
        if first is None:
            found = "no such camera, or another program has it" if source.isdigit() else "cannot be opened"
            raise UserError(f"--webcam {source}: {found}.")
        self._start = time.monotonic()
        self._first = self._frame(first, -1)
        told = capture.get(cv2.CAP_PROP_FPS)
        rate = Fraction(told).limit_denominator(1000) if 1 <= told <= 240 else Fraction(30)
        self.format = Format(first.shape[:2], TIME_BASE, rate, 0, COLOURS)

    def __iter__(self) -> Iterator[Frame]:
        frame = self._first
        yield frame
        while (taken := self._take()) is not None:
            frame = self._frame(taken, frame.pts)
            yield frame

    def _take(self) -> ndarray | None:
        """The next picture (H, W, 3) uint8 BGR, height and width even; None where there is no more."""
        found, picture = self._capture.read()
        return picture[: len(picture) // 2 * 2, : picture.shape[1] // 2 * 2] if found else None

    def _frame(self, picture: ndarray, last: int) -> Frame:
        pts = max(round((time.monotonic() - self._start) / TIME_BASE), last + 1)
        yuv, pixels = (cv2.cvtColor(picture, to) for to in (cv2.COLOR_BGR2YUV_I420, cv2.COLOR_BGR2RGB))
        return Frame(pixels, yuv, pts, float(pts * TIME_BASE))
