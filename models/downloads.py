"""Files that torchvision publishes: where PyTorch keeps them, fetching them, and the hash that their names end with."""

from pathlib import Path
from urllib.error import URLError

import torch

from core.command import UserError
from core.files import file_sha256


def hub_file(url: str) -> Path:
    """Where PyTorch's hub caches the file."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name


def hash_in_name(name: str) -> str:
    """The first digits of the file's sha256, with which torchvision ends its name."""
    return Path(name).stem.rpartition("-")[2]


def download(url: str, file: Path) -> bool:
    """Fetch a file into its place, whole or not at all; whether that could be done."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(url, str(file), hash_prefix=hash_in_name(url))
    except (URLError, OSError, RuntimeError):  # offline, or cut off: the caller says what is missing
        return False
    return True


def require_hash(file: Path, url: str) -> None:
    """Raises UserError if the file is not what the URL's name says."""
    expected, found = hash_in_name(url), file_sha256(file)
    if not found.startswith(expected):
        raise UserError(str(file), f"sha256 {found[:8]}...", f"{expected}...", f"Get it again from {url}")
