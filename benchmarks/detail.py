"""How much of a picture a redirector keeps: `python -m benchmarks.detail runs/flow-quickstart runs/quickstart`.

Of finished runs, on the pairs of gc/test that their reports are on. A column a run; runs given as one word with commas
between them are seeds of one kind, of which mean and standard error are told. `--sheet FILE.png` shows some faces: of
one run what its images are made of, of several what each makes of the same pairs.

Laplacians see what is finest: their correlation with the target's says whether it is in the right place, their energy
over the target's whether there is as much of it. 'At 128 px' is of redirectors that give back the size they are given;
beside it is what comes out at the networks' size, enlarged. Of one that was trained on images larger than its networks
see (`flow_size`), what comes out is averaged down to that size.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from checkpoints_manager import saved_steps
from core.batches import evaluation_pairs
from core.command import UserError
from core.files import write_json
from core.redirection.load import Loaded, load
from core.report import PARTS
from core.runtime import tune_cpu
from core.sources import build_test_sets
from models.st_ed_flow import reduced
from utils import image_grid, image_to_float, write_png

LARGE = 128
LAPLACIAN = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])[None, None]
SAME = 0.05  # L1 that is left between an image at two sizes, each equalised: 0.022 of drawn faces
WINDOW, SMALLEST, SMALLEST_CONTRAST = 7, 0.01**2, 0.03**2  # of the structural similarity, for greys of [0, 1]


def grey(images: Tensor) -> Tensor:
    """(B, 3, S, S) in [-1, 1] to (B, 1, S, S) in [0, 1]."""
    return images.mean(dim=1, keepdim=True) / 2 + 0.5


def laplacian(images: Tensor) -> Tensor:
    """(B, 3, S, S) to (B, (S - 2)^2): of their greys, without the border."""
    return F.conv2d(grey(images), LAPLACIAN.to(images)).flatten(1)


def laplacian_correlation(images: Tensor, targets: Tensor) -> Tensor:
    """(B,) correlation of the Laplacians of images with those of their targets."""
    ours, wanted = (x - x.mean(dim=1, keepdim=True) for x in (laplacian(images), laplacian(targets)))
    return F.cosine_similarity(ours, wanted, dim=1)


def structural_similarity(images: Tensor, targets: Tensor) -> Tensor:
    """(B,) mean structural similarity of greys, in windows of 7 x 7.

    Source: "Image quality assessment: from error visibility to structural similarity", with an even window.
    """
    a, b = grey(images), grey(targets)
    mean_a, mean_b, of_aa, of_bb, of_ab = (F.avg_pool2d(x, WINDOW, 1) for x in (a, b, a * a, b * b, a * b))
    var_a, var_b, both = of_aa - mean_a**2, of_bb - mean_b**2, of_ab - mean_a * mean_b
    similar = (2 * mean_a * mean_b + SMALLEST) * (2 * both + SMALLEST_CONTRAST)
    return (similar / ((mean_a**2 + mean_b**2 + SMALLEST) * (var_a + var_b + SMALLEST_CONTRAST))).mean(dim=(1, 2, 3))


def figures(images: Tensor, targets: Tensor, where: str) -> dict[str, float]:
    """Title -> figure of redirected images beside their targets."""
    energy = laplacian(images).square().mean() / laplacian(targets).square().mean()
    return {
        f"L1, {where}": (images - targets).abs().mean().item(),
        f"structural similarity, {where}": structural_similarity(images, targets).mean().item(),
        f"correlation of Laplacians, {where}": laplacian_correlation(images, targets).mean().item(),
        f"energy of Laplacians, {where}": energy.item(),
    }


def load_run(folder: Path) -> Loaded:
    """A run's redirector of patches, from its newest checkpoint. Raises UserError if there is none."""
    if not (folder / "config.json").is_file() or not saved_steps(folder):
        raise UserError(f"{folder}: no config.json or no checkpoint in it. Name the folder of a finished run.")
    return load(folder, device="cpu")


def sizes_of(loaded: Loaded) -> list[int]:
    """Pixels a side of the images that it is given: those of its training, and LARGE where it gives that back."""
    return [loaded.size, LARGE] if loaded.redirector.carries_pixels and loaded.size < LARGE else [loaded.size]


@torch.no_grad()
def measure(folder: Path) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Figures of a run, and at its largest size the images of the sheet by title, (B, 3, S, S)."""
    loaded = load_run(folder)
    config, redirector, sizes = loaded.settings, loaded.redirector, sizes_of(loaded)
    found: dict[str, float] = {}
    images: list[Tensor] = []
    shown: dict[str, Tensor] = {}
    for size in sizes:
        sets = {data.name: data for data in build_test_sets(config.model_copy(update={"image_size": size}))}
        if "gc/test" not in sets:
            raise UserError(f"{folder}: its data, {config.gazecapture_file}, are not here. Run this where it trained.")
        data = sets["gc/test"]
        pairs = evaluation_pairs(data, seed=config.seed, alone=False, within_group=config.eval_pairs_within_group)
        a, b = (image_to_float(torch.stack([data[int(i)]["image"] for i in rows])) for rows in pairs.T)
        labels = torch.from_numpy(data.labels()[pairs[:, 1]])
        encoding = redirector.encode(a)
        decoded = redirector.decode_parts(redirector.rotate(encoding, {"gaze": labels[:, :2], "head": labels[:, 2:4]}))
        images.append(decoded.image)
        found |= figures(decoded.image, b, f"at {size} px")
        found[f"L1 of the source, not redirected, at {size} px"] = (redirector.decode(encoding) - a).abs().mean().item()
        parts = {name: decoded.parts[name] for name in PARTS if name in decoded.parts}
        shown = {"source": a, "target": b, "redirected": decoded.image} | parts
    small = config.flow_size or loaded.size
    if redirector.carries_pixels and small < sizes[-1]:
        image, target = shown["redirected"], shown["target"]
        if small < sizes[0]:  # nothing smaller was looked at yet
            images = [reduced(image, small)]
            found |= figures(images[0], reduced(target, small), f"at {small} px")
        enlarged = F.interpolate(images[0], size=sizes[-1], mode="bicubic", align_corners=False)
        found |= figures(enlarged, target, f"{small} px enlarged")
    return found, shown


def sheet(shown: dict[str, Tensor], faces: int) -> Tensor:
    """(faces, columns, 3, S, S) of faces spread over the pairs."""
    rows = torch.linspace(0, len(shown["source"]) - 1, faces).round().long()
    columns = [images[rows] * 2 - 1 if name == "shares" else images[rows] for name, images in shown.items()]
    return torch.stack(columns, dim=1).clamp(-1, 1)


def side_by_side(kinds: Sequence[dict[str, Tensor]]) -> dict[str, Tensor]:
    """Source and target of the first run, and what each run made of them, at the largest size among them.

    Raises UserError if they are not of the same pairs.
    """
    first, side = kinds[0], max(shown["redirected"].shape[-1] for shown in kinds)
    columns = {name: _sized(first[name], side) for name in ("source", "target")}
    for i, shown in enumerate(kinds, start=1):
        if not _same(shown["target"], first["target"]):
            raise UserError(f"run {i} is of other pairs than the first. Name runs with the same data and --seed.")
        columns[f"redirected {i}"] = _sized(shown["redirected"], side)
    return columns


def _sized(images: Tensor, side: int) -> Tensor:
    return F.interpolate(images, size=(side, side), mode="bicubic", align_corners=False)


def _same(images: Tensor, others: Tensor) -> bool:
    if len(images) != len(others):
        return False
    side = min(images.shape[-1], others.shape[-1])
    return bool((reduced(images, side) - reduced(others, side)).abs().mean() < SAME)


def columns_of(kinds: Sequence[Sequence[dict[str, float]]], titles: Sequence[str]) -> str:
    """Markdown: a row a figure, a column a kind, mean and standard error where it has several runs."""
    lines = [f"| gc/test | {' | '.join(titles)} |", "|---" * (len(titles) + 1) + "|"]
    names = dict.fromkeys(name for runs in kinds for name in runs[0])
    for name in names:
        lines.append(f"| {name} | {' | '.join(_cell([run[name] for run in runs if name in run]) for runs in kinds)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float]) -> str:
    if not values:
        return ""
    error = f" ± {statistics.stdev(values) / len(values) ** 0.5:.3f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.3f}{error}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="RUN[,RUN...]", help="run folders; with commas: seeds of one kind")
    parser.add_argument("--sheet", type=Path, metavar="FILE.png", help="some faces")
    parser.add_argument("--faces", type=int, default=12, help="on the sheet (%(default)s)")
    parser.add_argument("--out", type=Path, metavar="FILE.json")
    arguments = parser.parse_args(argv)
    tune_cpu(torch.get_num_threads())
    try:
        measured = [[measure(Path(folder)) for folder in kind.split(",")] for kind in arguments.runs]
        firsts = [runs[0][1] for runs in measured]
        shown = firsts[0] if len(firsts) == 1 or not arguments.sheet else side_by_side(firsts)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    kinds = [[found for found, _ in runs] for runs in measured]
    print("\n" + columns_of(kinds, [kind.split(",")[0] for kind in arguments.runs]))
    if arguments.out:
        write_json(arguments.out, dict(zip(arguments.runs, kinds, strict=True)))
    if arguments.sheet:
        write_png(arguments.sheet, image_grid(sheet(shown, arguments.faces)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
