"""What estimators of normalised patches see in aligned faces: `python -m benchmarks.recrop`.

Draws faces of persons of another seed in both views, 64 and 256 px, and measures the quickstart's estimators on the
patches themselves, on aligned faces warped into the patch and equalised, and on those warped alone. It needs the
estimators: `python train_st_ed.py config/quickstart.json` trains them on the way.
"""

import argparse
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from dataset import GazeDataset
from dataset_aligned import AlignedDataset
from models.geometry import angular_error_deg
from models.load_pretrained_model import load_estimator
from models.recrop import estimator_view, warp
from preprocess.synthetic.dataset import make_dataset
from utils import image_to_float

ESTIMATORS = {"compact": "train", "compact-residual": "eval"}
SIDE = 64  # of the patches that the estimators know


def batch(data: GazeDataset, count: int) -> dict[str, Tensor]:
    """Entries spread over the persons."""
    rows = torch.linspace(0, len(data) - 1, count).round().int().tolist()
    entries = [data[row] for row in rows]
    return {name: torch.stack([entry[name] for entry in entries]) for name in entries[0]}


@torch.no_grad()
def errors(estimator: nn.Module, images: Tensor, truth: dict[str, Tensor]) -> str:
    """Mean gaze / head error, degrees."""
    seen = estimator(images)
    means = [angular_error_deg(getattr(seen, name), truth[name]).mean() for name in ("gaze", "head")]
    return " / ".join(f"{mean:.2f}" for mean in means)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--estimators", type=Path, default=Path("runs/quickstart-estimators"))
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--variation", default="calm")
    arguments = parser.parse_args()
    networks = {
        backbone: load_estimator(arguments.estimators / folder, backbone, key="--estimators")
        for backbone, folder in ESTIMATORS.items()
    }
    print("| | direct patch | re-cropped and equalised | re-cropped, not equalised |\n|---|---|---|---|")
    for size in (256, 64):
        with tempfile.TemporaryDirectory() as folder:
            make_dataset(
                Path(folder), persons=40, samples=25, seed=77, image_size=SIDE, aligned_size=size,
                variation=arguments.variation,
            )  # fmt: skip
            patches = batch(GazeDataset(Path(folder) / f"GazeCapture_{SIDE}.h5"), arguments.images)
            path = Path(folder) / f"GazeCapture_aligned_{size}.h5"
            faces = batch(AlignedDataset(path), arguments.images)
        assert torch.equal(patches["gaze"], faces["gaze"])
        image = image_to_float(faces["image"])
        seen = (image_to_float(patches["image"]), estimator_view(image, faces["crop"], SIDE),
                warp(image, faces["crop"], SIDE))  # fmt: skip
        for backbone, network in networks.items():
            cells = " | ".join(errors(network, images, faces) for images in seen)
            print(f"| {backbone}, faces of {size} px | {cells} |")


if __name__ == "__main__":
    main()
