"""Two ways back into the photograph: its own pixels moved, or a decoded patch put in.

Outside the fade nothing changes. Both look at each pixel of the photograph once: where it lies in the patch, and what
belongs there.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import cv2
import numpy as np
from numpy import ndarray
from torch import Tensor

from core.redirection.equalizing import Equalized, picture, unchanged
from core.redirection.faces import PhotoFace
from core.redirection.fade import EXTENT, reach, to_pixels, to_positions
from preprocess.normalization import apply_homography

BAND = 256  # rows that are done at a time: a face of 12 megapixels would take gigabytes
KEPT = 0.5  # of what is finer than paint, where that changes something: all shows lashes twice, nothing is a blur
LARGEST_MAP = 1024  # pixels a side; flows and shares are smooth

Filling = Callable[["Band"], ndarray]  # what belongs in a band: (h, w, 3) float32 grey levels


@dataclass(frozen=True)
class Band:
    """Some rows of the photograph.

    positions: (h, w, 2) float32, of their pixels over the patch.  pixels: (h, w, 2) float32, columns and rows of the
    photograph.  move, mix: (h, w, 1), of the fade.
    """

    positions: ndarray
    pixels: ndarray
    move: ndarray
    mix: ndarray

    def sampled(self, maps: ndarray, extent: float = 1.0) -> ndarray:
        """Maps (S, S, C) over the patch at the positions of the band, continued at their border."""
        return _remap(maps, self.places(len(maps), extent), cv2.INTER_LINEAR)

    def places(self, side: int, extent: float = 1.0) -> ndarray:
        """(h, w, 2): where the pixels lie on a map of `side` pixels over the patch, or `extent` times as wide."""
        return (self.positions / extent + 1) * (side / 2) - 0.5


def paste(photo: ndarray, face: PhotoFace, fade: ndarray, filling: Filling) -> ndarray:
    """The photograph (H, W, 3) uint8 with what belongs in the fade of a face; the same where that is 0."""
    result = photo.copy()
    for rows, columns in _windows(photo, face, fade):
        y, x = np.mgrid[rows, columns].astype(np.float32)
        pixels = np.stack([x, y], axis=-1)
        band = Band(to_positions(_through(face.to_patch, pixels)), pixels, *(np.zeros(1),) * 2)
        amount = band.sampled(fade, extent=EXTENT)
        band = Band(band.positions, pixels, amount[..., :1], amount[..., 1:])
        new = np.rint(np.clip(filling(band), 0, 255)).astype(np.uint8)
        result[rows, columns] = np.where(amount.any(axis=-1, keepdims=True), new, photo[rows, columns])
    return result


def carried(photo: ndarray, face: PhotoFace, seen: Equalized, parts: Mapping[str, Tensor]) -> Filling:
    """The photograph's own pixels where the flows take them from, and the paint over them.

    parts: flows, shares and paint of a redirector that carries pixels. The motion fades, not the picture, so that
    nothing shows twice.
    """
    flow, mirror_flow, shares = (_enlarged(_planes(parts[name]), face) for name in ("flow", "mirror_flow", "shares"))
    warp, paint = (seen.undone(picture(parts[name])) for name in ("warp", "paint"))
    lost = (1 - KEPT) * (1 - unchanged(paint, warp))
    painted, lost, shares = _enlarged(paint - (1 - lost) * warp, face), _enlarged(lost, face), shares.clip(0, 1)
    to_photo = np.linalg.inv(face.to_patch)

    def filling(band: Band) -> ndarray:
        share = band.sampled(shares) * band.mix
        positions = band.positions + band.move * band.sampled(flow)
        moved = _through(to_photo, to_pixels(positions))
        unmoved = _through(to_photo, to_pixels(band.positions))
        new = _remap(photo, band.pixels + (moved - unmoved), cv2.INTER_CUBIC)  # no flow: the pixels, to the bit
        if share[..., 1].any():
            mirrored = (band.positions + band.sampled(mirror_flow)) * np.array([-1, 1], np.float32)
            new += share[..., 1:2] * (_remap(photo, _through(to_photo, to_pixels(mirrored)), cv2.INTER_CUBIC) - new)
        # The paint, and over it (1 - lost) of what the moved pixels have beyond the moved patch.
        return new + share[..., 2:] * (band.sampled(painted) - band.sampled(lost) * new)

    return filling


def put_in(photo: ndarray, patch: ndarray, cut: ndarray) -> Filling:
    """A patch (S, S, 3), grey levels, in place of the photograph.

    cut: the patch as it was cut out, (S, S, 3) uint8. What is finer than its pixels is kept where nothing was changed.
    """
    patch, cut = patch.astype(np.float32), cut.astype(np.float32)
    kept = unchanged(patch, cut)

    def filling(band: Band) -> ndarray:
        (left, top), (height, width) = band.pixels[0, 0].astype(int), band.pixels.shape[:2]
        old = photo[top : top + height, left : left + width].astype(np.float32)
        new, before = (_remap(image, band.places(len(cut)), cv2.INTER_CUBIC) for image in (patch, cut))
        return old + band.mix * (new - old + band.sampled(kept) * (old - before))

    return filling


def _windows(photo: ndarray, face: PhotoFace, fade: ndarray) -> Iterator[tuple[slice, slice]]:
    """Rows and columns of the photograph, a band at a time, that hold all of a fade."""
    box = apply_homography(np.linalg.inv(face.to_patch), to_pixels(reach(fade)))
    height, width = photo.shape[:2]
    left, top = np.maximum(np.floor(box.min(axis=0)).astype(int), 0)
    right, bottom = np.minimum(np.ceil(box.max(axis=0)).astype(int) + 1, (width, height))
    for start in range(top, bottom, BAND):
        yield slice(start, min(start + BAND, bottom)), slice(left, max(left, right))


def _planes(maps: Tensor) -> ndarray:
    """(1, C, S, S) to (S, S, C) float32."""
    return maps[0].detach().float().permute(1, 2, 0).cpu().numpy()


def _enlarged(maps: ndarray, face: PhotoFace) -> ndarray:
    """Maps (S, S, C) at about the resolution of the photograph, so that they are sampled without steps."""
    side = int(np.clip(np.ceil(face.side), len(maps), LARGEST_MAP))
    return cv2.resize(np.ascontiguousarray(maps), (side, side), interpolation=cv2.INTER_CUBIC)


def _through(matrix: ndarray, points: ndarray) -> ndarray:
    """Points (h, w, 2) float32 through a homography (3, 3): `apply_homography`, a tenth of its time."""
    return cv2.perspectiveTransform(points, matrix)


def _remap(image: ndarray, at: ndarray, how: int) -> ndarray:
    x, y = cv2.split(at)  # OpenCV 5.0.0 looks in wrong places where both are one map
    found = cv2.remap(image, x, y, how, borderMode=cv2.BORDER_REPLICATE)
    return found.astype(np.float32, copy=False).reshape(*at.shape[:2], -1)
