"""LPIPS, the perceptual distance of the metrics: its heads ship with the package, its AlexNet trunk does not."""

from pathlib import Path
from urllib.error import URLError

import torch
from torch import nn

from core.files import file_sha256
from utils import read_torch_file

TRUNK = "alexnet-owt-7be5be79.pth"
TRUNK_URL = f"https://download.pytorch.org/models/{TRUNK}"
TRUNK_SHA256_PREFIX = "7be5be79"


def build_lpips(trunk: Path | None) -> nn.Module:
    """LPIPS (AlexNet), frozen: (B, 3, S, S) x 2 in [-1, 1] -> (B, 1, 1, 1).

    trunk: torchvision's AlexNet weights; None leaves the trunk random, which is for tests of plumbing only.
    Raises ValueError if the file is not what torchvision publishes.
    """
    import lpips  # optional at run time, and slow to import

    metric = lpips.LPIPS(net="alex", pnet_rand=True, verbose=False)
    if trunk is not None:
        _load_trunk(metric.net, trunk)
    return metric.requires_grad_(False).eval()


def find_trunk(path: str, allow_download: bool) -> Path | None:
    """The AlexNet trunk: the given file, or the one in PyTorch's hub cache, or a download into that cache.

    Returns None where there is none and it cannot be fetched.
    Raises FileNotFoundError if a given file is missing, ValueError if a file's hash is wrong.
    """
    file = Path(path) if path else Path(torch.hub.get_dir()) / "checkpoints" / TRUNK
    if not file.is_file():
        if path:
            raise FileNotFoundError(f"lpips_weights: {file}: no such file. Get it from {TRUNK_URL}")
        if not allow_download or not _download(file):
            return None
    digest = file_sha256(file)
    if not digest.startswith(TRUNK_SHA256_PREFIX):
        raise ValueError(f"{file}: sha256 {digest[:8]}..., expected {TRUNK_SHA256_PREFIX}... Get it from {TRUNK_URL}")
    return file


def _download(file: Path) -> bool:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(TRUNK_URL, str(file), hash_prefix=TRUNK_SHA256_PREFIX, progress=False)
    except (URLError, OSError, RuntimeError):  # offline, or cut off: the caller says what is missing
        return False
    return True


def _load_trunk(net: nn.Module, file: Path) -> None:
    """The package splits AlexNet's `features` into five slices but keeps the layers' numbers."""
    state = read_torch_file(file)
    renamed = {key: state[f"features.{key.split('.', 1)[1]}"] for key in net.state_dict()}
    net.load_state_dict(renamed)
