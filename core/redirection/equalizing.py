"""The equalised patch that networks see, and the way back from what they make to the photograph's own light.

Equalising changes luma alone, so that it adds the same to red, green and blue; so does the way back.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from dataset import prepare_image
from utils import image_to_float

NEAR = 1 / 64  # of the patch
AS_GOOD_AS_NONE = 4.0  # grey levels: a change that nobody sees
AT_LARGE = 1 / 12  # of the patch: finer differences are left as they are
LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Equalized:
    """A patch (S, S, 3) uint8 RGB as it was cut out, and what networks see of it, at their own size."""

    pixels: ndarray
    size: int

    @cached_property
    def planes(self) -> ndarray:
        """(3, size, size) uint8 RGB, as data sets have it."""
        return prepare_image(self.pixels, self.size)

    @cached_property
    def plain(self) -> ndarray:
        """(size, size, 3) uint8 RGB: the same without equalising."""
        return np.ascontiguousarray(prepare_image(self.pixels, self.size, equalize=False).transpose(1, 2, 0))

    @cached_property
    def _back(self) -> tuple[ndarray, ndarray]:
        """Levels that equalising gives, ascending, and the mean level that each was."""
        before = cv2.extractChannel(cv2.cvtColor(self.plain, cv2.COLOR_RGB2YCrCb), 0)
        after = cv2.equalizeHist(before).ravel()
        counts = np.bincount(after, minlength=256)
        levels = np.flatnonzero(counts)
        return levels, (np.bincount(after, before.ravel(), 256)[levels] / counts[levels])

    def tensor(self, device: torch.device) -> Tensor:
        """(1, 3, size, size) in [-1, 1]."""
        return image_to_float(torch.from_numpy(self.planes)[None].to(device))

    def undone(self, image: ndarray) -> ndarray:
        """An image (..., 3) float32 in grey levels, in the light of the patch before it was equalised."""
        luma = image @ LUMA
        return image + (np.interp(luma, *self._back) - luma).astype(np.float32)[..., None]

    def given_back(self, redirected: ndarray, reconstructed: ndarray) -> ndarray:
        """A redirected patch, float32 grey levels, in the photograph's own colours, contrast and light.

        reconstructed: the patch as the redirector decodes it unchanged. What it gets wrong at large, as the hue of the
        skin, is taken off; and what equalising loses, where it clips a colour or makes one level of two, is put back:
        where something changed, at large alone, so that no outline of the old picture shows.
        """
        equalized = self.planes.transpose(1, 2, 0).astype(np.float32)
        redirected = redirected + self._at_large(equalized - reconstructed)
        lost = self.plain - self.undone(equalized)
        at_large = self._at_large(lost)
        return self.undone(redirected) + at_large + unchanged(redirected, equalized) * (lost - at_large)

    def _at_large(self, image: ndarray) -> ndarray:
        return cv2.GaussianBlur(image, (0, 0), AT_LARGE * self.size)


def unchanged(image: ndarray, before: ndarray) -> ndarray:
    """(S, S, 1): 1 where two images (S, S, 3), grey levels, are the same, down to 0 where they differ."""
    change = cv2.GaussianBlur(np.abs(image - before).max(axis=-1), (0, 0), NEAR * len(image))
    return np.exp(-((change / AS_GOOD_AS_NONE) ** 2))[..., None]


def picture(image: Tensor) -> ndarray:
    """(1, 3, S, S) in [-1, 1] to (S, S, 3) float32 grey levels, not rounded and within 0 to 255."""
    return ((image[0].detach().float().clamp(-1, 1) + 1) * 127.5).permute(1, 2, 0).cpu().numpy()
