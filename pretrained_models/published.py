"""The published files of weights: where each may lie, its sha256, and whether it loads."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from checkpoints_manager import checkpoint_path, load_checkpoint
from core.build import build_discriminator, build_redirector
from core.command import UserError
from core.config_reader import load_config
from core.files import file_sha256
from models.downloads import hash_in_name, hub_file
from models.load_pretrained_model import (
    ARCFACE_FILE,
    E4E_FILE,
    IMAGENET_URLS,
    PUBLISHED_FILES,
    STYLEGAN2_FILE,
    build_estimator,
    estimator_checkpoint,
    load_arcface,
    load_e4e,
    load_estimator,
    load_imagenet_weights,
    load_stylegan2,
)
from models.perceptual import TRUNK_URL, build_lpips

ROOT = Path(__file__).resolve().parent.parent
ST_ED_STEP = 206865


class Published(NamedTuple):
    """A file by its published name.

    key: the configuration key that points at it.  places: where it may lie.  load: raises UserError or ImportError
    with the reason if it cannot be used.  sha256: how its hash begins, where the publisher says so.
    """

    name: str
    key: str
    places: tuple[Path, ...]
    load: Callable[[Path], object]
    sha256: str = ""


def published_files(folder: Path) -> list[Published]:
    """What this code can use, with its places in the folder of weights (and where else a training looks)."""
    files = [
        Published(E4E_FILE, "e4e_weights", (folder / E4E_FILE,), load_e4e),
        Published(ARCFACE_FILE, "arcface_weights", (folder / ARCFACE_FILE,), load_arcface),
    ]
    for key, backbone, name in (
        ("gazenet_savepath", "vgg16", "estimator_vgg"),
        ("eval_gazenet_savepath", "resnet50", "estimator_resnet"),
    ):
        places = (estimator_checkpoint(folder / name, 0), folder / PUBLISHED_FILES[backbone])
        load = partial(load_estimator, backbone=backbone, key=key)
        files.append(Published(PUBLISHED_FILES[backbone], key, places, load))
    in_run = checkpoint_path(Path("runs/ST-ED"), ST_ED_STEP)
    files += [
        Published(in_run.name, "save_path, load_step", (in_run, folder / in_run.name), load_st_ed),
        Published(STYLEGAN2_FILE, "stylegan2_weights", (folder / STYLEGAN2_FILE,), load_stylegan2),
        _of_torchvision(folder, TRUNK_URL, "lpips_weights", build_lpips),
    ]
    for backbone, url in IMAGENET_URLS.items():
        files.append(_of_torchvision(folder, url, "estimator_init", partial(_load_imagenet, backbone)))
    return files


def _of_torchvision(folder: Path, url: str, key: str, load: Callable[[Path], object]) -> Published:
    name = Path(url).name
    return Published(name, key, (folder / name, hub_file(url)), load, hash_in_name(name))


def load_st_ed(file: Path) -> None:
    """Loads a redirector and its discriminator of the published sizes.

    Raises UserError, naming the entry and the keys, if the file does not hold them.
    """
    config = load_config([str(ROOT / "config" / "ST-ED.json")])
    with torch.device("meta"):
        redirector = build_redirector(config)
        discriminator = build_discriminator(config, redirector)
    parts = nn.ModuleDict(dict(redirector.named_children())).to_empty(device="cpu")
    load_checkpoint(file, {**parts, "discriminator": discriminator.to_empty(device="cpu")})


def check(published: Published, file: Path) -> tuple[str, str]:
    """The file's sha256, and why it cannot be used: '' if it can."""
    digest = file_sha256(file)
    if not digest.startswith(published.sha256):
        return digest, f"sha256 should begin with {published.sha256}. Download it again."
    try:
        published.load(file)
    except (UserError, OSError, ImportError) as error:
        return digest, str(error)
    return digest, ""


def print_table(folder: Path) -> bool:
    """A row for each file, and where it is or is expected. Returns whether all that are there load."""
    _print_row("file", "configuration key", "MB", "loads")
    num_bad = 0
    for published in published_files(folder):
        found = [file for file in published.places if file.is_file()]
        for file in found:
            digest, problem = check(published, file)
            num_bad += bool(problem)
            _print_row(published.name, published.key, f"{file.stat().st_size / 1e6:.1f}", "NO" if problem else "yes")
            print(f"    {file}\n    sha256 {digest}" + f"\n    {problem}" * bool(problem))
        if not found:
            _print_row(published.name, published.key, "-", "not there")
            print(f"    expected at {' or '.join(map(str, published.places))}")
    return num_bad == 0


def _load_imagenet(backbone: str, file: Path) -> None:
    load_imagenet_weights(build_estimator(backbone), backbone, file)


def _print_row(name: str, key: str, size: str, loads: str) -> None:
    print(f"{name:<30} {key:<24} {size:>8}  {loads}", flush=True)
