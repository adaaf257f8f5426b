"""Images, pictures and files: the few helpers that several rooms share."""

import argparse
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, Self

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from core.command import UserError
from core.disk import said_where_full
from core.files import atomic_write
from core.pickles import Excessive, require_harmless
from core.torch_files import is_damaged


def image_to_float(image: Tensor) -> Tensor:
    """uint8 (..., H, W) to float32 in [-1, 1], on the image's own device.

    Equals the published 2 p / 255 - 1 in float64, rounded once, for all 256 values: p - 127.5 is exact and
    the division is correctly rounded. On a CPU that is faster than a look-up in a table of them. By a number, and not
    by a tensor on the device, a GPU would multiply by 1 / 127.5, which is one bit off.
    """
    levels = image.float() - 127.5
    return levels / levels.new_full((), 127.5)


def batch_to_device(batch: Mapping[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    """Move a batch; images travel as uint8 and become float32 in [-1, 1] there."""
    moved = {name: value.to(device, non_blocking=True) for name, value in batch.items()}
    return {name: image_to_float(v) if v.dtype == torch.uint8 else v for name, v in moved.items()}


def image_to_uint8(image: Tensor) -> Tensor:
    """Float (..., H, W) in [-1, 1] to uint8; values outside are clamped."""
    return ((image.detach().float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def image_grid(images: Tensor) -> np.ndarray:
    """Rows x columns of images as one picture.

    images: (R, C, 3, H, W) RGB in [-1, 1].  Returns (R*H, C*W, 3) uint8 RGB.
    """
    rows, columns, channels, height, width = images.shape
    tiled = image_to_uint8(images).permute(0, 3, 1, 4, 2).reshape(rows * height, columns * width, channels)
    return tiled.cpu().numpy()


def write_png(path: Path, picture: np.ndarray) -> None:
    """Write an (H, W, 3) uint8 RGB picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
    with said_where_full(path), atomic_write(path) as temporary:
        temporary.write_bytes(encoded.tobytes())


def write_video(path: Path, frames: Sequence[np.ndarray], fps: int = 12, comment: str = "") -> None:
    """Write RGB uint8 frames (H, W, 3) of even size as H.264 in MP4, playable in a browser.

    comment: for the file's metadata.
    """
    import av  # slow to import, and only pictures need it

    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        said_where_full(path),
        atomic_write(path) as temporary,
        av.open(str(temporary), "w", format="mp4", options={"movflags": "+faststart"}) as container,
    ):
        if comment:
            container.metadata["comment"] = comment
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())


class DamagedWeights(UserError):
    """A file of PyTorch whose bytes are not those that were written."""


def read_torch_file(path: str | Path) -> object:
    """Contents of a PyTorch file, tensors on the CPU. Runs no code from the file.

    Numbers of NumPy, paths and command lines, which trainings leave beside weights, are read as plain data.
    Raises UserError if there is no such file, or if it holds anything else; DamagedWeights if it is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file.", remedy="Correct the path.")
    if is_damaged(path):
        raise DamagedWeights(f"{path}: {_DAMAGED}")
    try:
        require_harmless(path)
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if zipfile.is_zipfile(path) or "GLOBAL" in str(error):
            raise UserError(
                f"{path}: holds Python objects other than tensors and plain containers, which could run code "
                "when loaded. It was not loaded; save its state_dict alone and try again."
            ) from error
        raise DamagedWeights(f"{path}: {_what_it_is_instead(path)}") from error
    except Excessive as error:
        raise UserError(str(path), f"was not loaded, for {error}", remedy="Save its state_dict alone.") from error
    except Exception as error:  # of what anybody may have written: PyTorch's readers raise what comes
        raise DamagedWeights(f"{path}: {_what_it_is_instead(path)}") from error


_DAMAGED = "is not a PyTorch file or is damaged. Download or save it again."


def _what_it_is_instead(path: Path) -> str:
    """A file that is none of PyTorch's, and what to do."""
    with path.open("rb") as file:
        if not file.read(512).lstrip().startswith(b"<"):
            return _DAMAGED
    return (
        "is a web page, not weights: sites put one before a large download, or in its place when too many ask for the "
        "file. Open the link in a browser and save what it then offers."
    )


class _DType:
    """In place of numpy.dtype, whose state a file could set to anything: numbers and text, no objects."""

    def __init__(self, code: str, *_: object) -> None:
        if not re.fullmatch(r"[?biufcSU]\d*", code):
            raise pickle.UnpicklingError(f"NumPy's type {code!r} holds more than numbers.")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.dtype = self.dtype.newbyteorder(state[1])


class _Array(np.ndarray):
    """In place of numpy.ndarray, for the same reason: it begins empty, whatever a file gives it."""

    def __new__(cls, *_: object) -> Self:
        return super().__new__(cls, 0)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, fortran, raw = state
        super().__setstate__((1, shape, kind.dtype, fortran, raw))


def _scalar(kind: _DType, raw: bytes) -> object:
    return np.frombuffer(raw, kind.dtype)[0].item()


def _dict(*_: object) -> dict[object, object]:
    return {}


_PATH_ROOMS = ("pathlib", "pathlib._local")
# What may stand beside weights: what is made of it here, and its name in the file (in all versions of its library).
_HARMLESS: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (argparse.Namespace, "argparse.Namespace"),
    (_dict, "collections.defaultdict"),
    *((_dict, f"builtins.{kind}") for kind in ("list", "dict", "int", "float")),  # what such a dictionary is of
    *((PurePosixPath, f"{room}.{name}") for room in _PATH_ROOMS for name in ("PosixPath", "PurePosixPath")),
    *((PureWindowsPath, f"{room}.{name}") for room in _PATH_ROOMS for name in ("WindowsPath", "PureWindowsPath")),
    (_DType, "numpy.dtype"),
    (_Array, "numpy.ndarray"),
    *((_Array, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *((_scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
]


def named_tensors(state: object) -> dict[str, Tensor]:
    """The tensors of a state dict by the names that the modules gave them; none if it is no dictionary.

    `module.` (of a multi-GPU run) and `_orig_mod.` (of torch.compile) are taken out of the names wherever they are;
    what is no tensor is left out.
    """
    tensors: dict[str, Tensor] = {}
    for key, value in state.items() if isinstance(state, Mapping) else ():
        if isinstance(key, str) and isinstance(value, Tensor):
            name = ".".join(part for part in key.split(".") if part not in ("module", "_orig_mod"))
            tensors[key if name in tensors else name] = value  # of two with one name, the second fits nowhere
    return tensors


def load_state(module: nn.Module, state: object, where: str, remedy: str) -> None:
    """Load a state dict strictly; nothing is loaded unless every key and shape fits.

    state: what `named_tensors` finds in it is loaded.  where: names the file (and entry) in the error.  remedy: what
    the user can do.
    Raises UserError that lists missing, unexpected and differently shaped entries, and those with NaN or infinity.
    """
    found, wanted = named_tensors(state), module.state_dict()
    if not found and wanted:
        raise UserError(f"{where}: expected a dictionary of tensors, found {type(state).__name__}. {remedy}")
    same = wanted.keys() & found.keys()
    shapes = [
        f"{key} {tuple(found[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in same
        if found[key].shape != wanted[key].shape
    ]
    problems = {
        "missing": sorted(wanted.keys() - found.keys()),
        "unexpected": sorted(found.keys() - wanted.keys()),
        "of another shape": sorted(shapes),
        "not finite": [] if shapes else sorted(key for key in same if _spoilt(found[key], wanted[key])),
    }
    if any(problems.values()):
        parts = [f"{len(keys)} {kind} ({_first(keys)})" for kind, keys in problems.items() if keys]
        raise UserError(f"{where}: does not fit this model: {'; '.join(parts)}. {remedy}")
    module.load_state_dict(found)


def _spoilt(found: Tensor, own: Tensor) -> bool:
    """Whether a weight has NaN or infinity where the module's own, as an attention mask, has not the same."""
    if torch.isfinite(found).all():
        return False
    own = own.to(found)  # which a file's is on the CPU
    return not (torch.isfinite(found) | (torch.isinf(own) & (found == own))).all()


def _first(keys: Sequence[str], shown: int = 3) -> str:
    return ", ".join(keys[:shown]) + (", ..." if len(keys) > shown else "")
