"""A redirector as one ONNX file, for programs that know nothing of this project.

The file takes patches and the gaze and head that are asked for, and gives the redirected patches, what gaze and head
were, and the parts that the redirector decodes, if any. What it expects stands in its metadata.
"""

import argparse
import copy
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from core.command import DONE, UserError
from core.files import atomic_write, require_writable
from core.redirection.load import Loaded, load
from core.tracking import say
from models.redirector import Redirector
from preprocess.normalization import ST_ED

PACKAGES = ("onnx", "onnxscript", "onnxruntime")
INPUTS = ("image", "gaze", "head")
PARTS = ("flow", "mirror_flow", "warp", "mirror", "paint", "shares")
AGREEMENT = 1e-3  # of pixels in [-1, 1], positions and radians
_NEWER = "Take newer ones: pip install --upgrade -r requirements-export.txt"
ANGLES = "radians, pitch and yaw in the patch's camera: 0 0 looks into it, pitch > 0 up, yaw > 0 towards image left"
MEANING = {
    "image": "RGB in -1 to 1, channels first: normalised patches whose luma (of YCrCb) has an equalised histogram",
    "gaze": f"what is asked for; {ANGLES}; nan keeps what it is",
    "head": "as gaze",
    "redirected": "as image; a little beyond -1 and 1 here and there: clip it",
    "source_gaze": f"what the redirector sees in image; {ANGLES}",
    "source_head": "as source_gaze",
    "flow": "where each pixel comes from: x right and y down from itself, in half patches",
    "mirror_flow": "the same in the mirror image",
    "warp": "image, moved by flow",
    "mirror": "its mirror image, moved by mirror_flow",
    "paint": "what is painted, as image",
    "shares": "of warp, mirror and paint, which add up to redirected",
}


class Whole(nn.Module):
    """Encode, rotate and decode in one call.

    image: (B, 3, S, S) in [-1, 1].  gaze, head: (B, 2) radians; nan keeps what it is.
    Returns the redirected image, the source's gaze and head, and the parts of the decoded image, in this order.
    """

    def __init__(self, redirector: Redirector) -> None:
        super().__init__()
        self.redirector = redirector

    def forward(self, image: Tensor, gaze: Tensor, head: Tensor) -> tuple[Tensor, ...]:
        source = self.redirector.encode(image)
        own = source.conditions
        targets = {
            name: torch.where(asked.isnan(), own[name], asked) for name, asked in (("gaze", gaze), ("head", head))
        }
        decoded = self.redirector.decode_parts(self.redirector.rotate(source, targets))
        parts = [decoded.parts[name] for name in PARTS] if self.redirector.carries_pixels else []
        return decoded.image, own["gaze"], own["head"], *parts


def outputs(redirector: Redirector) -> tuple[str, ...]:
    """Names of what the file gives."""
    return ("redirected", "source_gaze", "source_head", *(PARTS if redirector.carries_pixels else ()))


def export_file(arguments: argparse.Namespace) -> int:
    """`redirect.py --export`; the exit code. Raises UserError or OSError with a message for the user."""
    path = arguments.export
    if path.suffix.lower() != ".onnx" or path.is_dir():
        raise UserError(f"--export: {path} is no name of an ONNX file; let it end in .onnx.")
    require_writable(path.parent, "--export")
    _packages()
    off = export(load(arguments.checkpoint, arguments.config, "cpu"), path)
    size = path.stat().st_size / 2**20
    say(f"Wrote {path}: {size:.1f} MiB, in onnxruntime at most {off:.0e} from what PyTorch gives.")
    return DONE


def export(loaded: Loaded, path: str | Path) -> float:
    """Write a redirector as an ONNX file, for any number of patches at a time.

    Returns the largest difference between what onnxruntime and PyTorch make of the same patches. Raises UserError
    where a package is missing or too old, or where they differ by more than 0.001; nothing is then written.
    """
    _packages()
    whole, path = Whole(copy.deepcopy(loaded.redirector)).to("cpu").eval(), Path(path)
    program = _exported(whole, loaded.size)
    program.model.metadata_props.update(about(loaded))
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        program.save(temporary)
        off = difference(whole, temporary, loaded.size)
        if not off <= AGREEMENT:
            raise UserError(f"--export: onnxruntime and PyTorch differ by {off:.2g}; try other versions of them.")
    return off


def about(loaded: Loaded) -> dict[str, str]:
    """The file's metadata: what it is and what it expects."""
    view = ST_ED.resized(loaded.size)
    camera = (
        f"the photograph's, turned to the face and with a head that leans, focal length {view.focal:g} px, the face "
        f"scaled to {view.distance_mm:g} mm before it, in the middle of the patch"
    )
    named = (*INPUTS, *outputs(loaded.redirector))
    about = {"redirector": loaded.settings.redirector, "image_size": str(loaded.size), "camera": camera}
    return about | {name: MEANING[name] for name in named}


def difference(whole: Whole, path: Path, size: int, batch: int = 3) -> float:
    """The largest difference between what onnxruntime and PyTorch give, over all outputs, of smooth random images."""
    import onnxruntime  # only this needs it

    random = torch.Generator().manual_seed(0)
    coarse, gaze, head = (torch.rand(batch, *shape, generator=random) - 0.5 for shape in ((3, 8, 8), (2,), (2,)))
    image = F.interpolate(2 * coarse, size=size, mode="bilinear")
    head[0] = torch.nan
    given = {"image": image.numpy(), "gaze": gaze.numpy(), "head": head.numpy()}
    try:
        session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
        found = session.run(None, given)
    except Exception as error:  # its own kinds have no base but this
        found_one = f"onnxruntime {onnxruntime.__version__} cannot run what PyTorch {torch.__version__} writes"
        raise UserError("--export", found_one, remedy=_NEWER) from error
    with torch.no_grad():
        wanted = whole(image, gaze, head)
    return max(float((torch.from_numpy(a) - b).abs().max()) for a, b in zip(found, wanted, strict=True))


def _exported(whole: Whole, size: int) -> Any:
    """PyTorch's ONNXProgram, without what names this machine's files."""
    batch = torch.export.Dim("batch")
    with warnings.catch_warnings(), _quiet("onnx_ir", "onnxscript"):
        warnings.filterwarnings("ignore", "# The axis name: batch")  # all three share one, as is meant
        try:
            program = torch.onnx.export(
                whole,
                (torch.zeros(2, 3, size, size), torch.zeros(2, 2), torch.zeros(2, 2)),
                input_names=INPUTS,
                output_names=outputs(whole.redirector),
                dynamic_shapes={name: {0: batch} for name in INPUTS},
                dynamo=True,
                verbose=False,
            )
        except RuntimeError as error:  # what torch.onnx raises where it does not know an operation or a shape
            raise UserError(
                "--export", f"PyTorch {torch.__version__} cannot export this network", remedy=_NEWER
            ) from error
    assert program is not None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # the lines of code that it came from
    return program


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Without what loggers say of every operator that they do not simplify."""
    before = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.ERROR)
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)


def _packages() -> None:
    """Raises UserError where a package is missing that only this needs."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise UserError(
            f"--export needs packages that are not installed: {', '.join(missing)}. Install them: "
            "pip install -r requirements-export.txt"
        )
