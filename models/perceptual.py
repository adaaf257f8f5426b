"""LPIPS, the perceptual distance of the metrics: its heads ship with the package, its AlexNet trunk does not."""

import warnings
from pathlib import Path

from torch import nn

from core.command import UserError
from models.downloads import download, hub_file, require_hash
from utils import load_state, named_tensors, read_torch_file

TRUNK = "alexnet-owt-7be5be79.pth"
TRUNK_URL = f"https://download.pytorch.org/models/{TRUNK}"


def build_lpips(trunk: Path | None) -> nn.Module:
    """LPIPS (AlexNet), frozen: (B, 3, S, S) x 2 in [-1, 1] -> (B, 1, 1, 1).

    trunk: torchvision's AlexNet weights; None leaves the trunk random, which is for tests of plumbing only.
    Raises UserError if the file is not what torchvision publishes.
    """
    import lpips  # optional at run time, and slow to import

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # torchvision's, of an argument that the package still uses
        metric = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    if trunk is not None:
        _load_trunk(metric.net, trunk)
    return metric.requires_grad_(False).eval()


def find_trunk(path: str, allow_download: bool) -> Path | None:
    """The AlexNet trunk: the given file, or the one in PyTorch's hub cache, or a download into that cache.

    Returns None where there is none and it cannot be fetched.
    Raises UserError if a given file is missing, or if a file's hash is wrong.
    """
    file = Path(path) if path else hub_file(TRUNK_URL)
    if not file.is_file():
        if path:
            raise UserError(f"lpips_weights: {file}: no such file. Get it from {TRUNK_URL}")
        if not allow_download or not download(TRUNK_URL, file):
            return None
    require_hash(file, TRUNK_URL)
    return file


def _load_trunk(net: nn.Module, file: Path) -> None:
    """The package splits AlexNet's `features` into five slices but keeps the layers' numbers."""
    state, keys = named_tensors(read_torch_file(file)), net.state_dict()
    named = {key: f"features.{key.split('.', 1)[1]}" for key in keys}
    found = {key: state[name] for key, name in named.items() if name in state}
    load_state(net, found, f"{file} (torchvision's AlexNet)", f"Get it again from {TRUNK_URL}")
