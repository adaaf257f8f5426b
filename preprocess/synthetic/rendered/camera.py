"""What is behind a rendered person, and the camera that takes the picture."""

from functools import lru_cache

import cv2
import numpy as np
from numpy import ndarray

from preprocess.synthetic.rendered.scene import RenderedScene

_NOISE = np.random.default_rng(11).standard_normal(2**18).astype(np.float32)
_LEVELS = np.linspace(0, 1, 4097, dtype=np.float32)  # of the linear scale
_WHITE = 1.145  # what is exposed brighter is white


@lru_cache(maxsize=1)  # for the rest of a group
def _backdrop(seed: int, size: int) -> ndarray:
    """(size, size, 3) linear RGB float32, 0 to 1: a gradient, and often blobs and boxes out of focus."""
    rng = np.random.default_rng(seed)
    a, b = (rng.uniform(0.02, 0.9, 3) * 0.5 + 0.5 * rng.uniform(0.02, 0.9) for _ in range(2))
    line = np.linspace(0, 1, 32, dtype=np.float32)
    turn = rng.uniform(0, 2 * np.pi)
    ramp = np.clip(0.5 + np.cos(turn) * (line[:, None] - 0.5) + np.sin(turn) * (line[None] - 0.5), 0, 1)
    picture = (a + (b - a) * ramp[..., None]).astype(np.float32)
    for _ in range(int(rng.integers(0, 7)) if rng.random() < 0.75 else 0):
        colour = (rng.uniform(0.01, 0.9, 3) * 0.4 + 0.6 * rng.uniform(0.01, 1.0)).tolist()
        x, y, w, h = (int(v) for v in rng.integers((-8, -8, 2, 2), (32, 32, 20, 32)))
        if rng.random() < 0.6:
            cv2.rectangle(picture, (x, y), (x + w, y + h), colour, -1)
        else:
            cv2.circle(picture, (x, y), max(2, w // 2), colour, -1)
    picture = cv2.GaussianBlur(picture, (0, 0), float(rng.uniform(0.4, 2.5)))
    return cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC).clip(0, 1)


def draw_backdrop(scene: RenderedScene, size: int) -> ndarray:
    """(size, size, 3) linear RGB float32: what is behind the person."""
    return _backdrop(scene.seed, size) * np.float32(scene.backdrop_gain)


def metered(scene: RenderedScene, skin: tuple[float, float, float]) -> float:
    """Gain of a camera that exposes for the face, but not fully. skin: its colour, sRGB 0-255.

    It goes by the light, not by the picture, so that pictures of a group are exposed alike.
    """
    light = 0.5 * scene.key + scene.ambient * 0.75 + 0.5 * float(np.mean(scene.fill_rgb))
    seen = light * (0.1 + float(np.mean((np.array(skin) / 255) ** 2.2)))
    return scene.exposure * (0.32 / seen) ** 0.75


def develop(picture: ndarray, scene: RenderedScene, scale: float, gain: float) -> ndarray:
    """(S, S, 3) linear RGB to uint8: white balance, exposure, tone curve, blur, noise, JPEG.

    scale: size of things in the picture, 1 for the patch of 128 pixels.  gain: of `metered`.
    """
    shoulder = _LEVELS * (1 + 0.25 * _WHITE) / (1 + 0.25 * _WHITE * _LEVELS)  # bright skin is not cut off
    table = (255 * (shoulder ** (1 / scene.gamma) - 0.5) * scene.contrast + 127.5).astype(np.float32)
    finest = len(table) - 1
    balance = np.diag([gain * factor * finest / _WHITE for factor in scene.tint])
    exposed = cv2.transform(picture, balance)  # quicker than NumPy is with channels last
    picture = table.take(np.clip(exposed, 0, finest).astype(np.intp))
    if scene.blur:
        picture = cv2.GaussianBlur(picture, (0, 0), max(scene.blur * scale, 0.2))
    if scene.noise:
        seed = scene.seed + 1 if scene.noise_seed is None else scene.noise_seed
        start = np.random.default_rng(seed).integers(0, len(_NOISE) - picture.size % len(_NOISE))
        noise = np.resize(_NOISE[start : start + picture.size], picture.shape)
        picture += np.float32(scene.noise) * noise
    picture = np.clip(picture + np.float32(0.5), 0, 255).astype(np.uint8)
    if scene.jpeg:
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        stream = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, scene.jpeg])[1]
        decoded = cv2.imdecode(stream, cv2.IMREAD_COLOR_RGB)
        assert decoded is not None
        return decoded
    return picture
