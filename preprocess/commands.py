"""The commands of `python -m preprocess`: where each is, and what it is for. Imports none of them."""

from typing import NamedTuple


class Command(NamedTuple):
    """module: has add_parser(subparsers), which sets `run`, a function of the arguments.  help: one line."""

    module: str
    help: str


_DATASETS = "preprocess.datasets"
COMMANDS = {
    "synthetic": Command("preprocess.synthetic.dataset", "procedural faces with exact labels: data without a download"),
    "gazecapture": Command(f"{_DATASETS}.gazecapture", "GazeCapture, from the official tree"),
    "mpiifacegaze": Command(
        f"{_DATASETS}.mpiifacegaze", "MPIIFaceGaze, from the raw images or the normalised .mat files"
    ),
    "columbia": Command(f"{_DATASETS}.columbia", "Columbia Gaze, from the official tree"),
    "eyediap": Command(f"{_DATASETS}.eyediap", "EYEDIAP, from the official tree"),
    "eth-xgaze": Command(f"{_DATASETS}.eth_xgaze", "ETH-XGaze, from the raw images or the HDF5 release of patches"),
    "images": Command(f"{_DATASETS}.images", "a folder of one's own photographs"),
    "ffhq-aligned": Command(
        f"{_DATASETS}.ffhq_aligned",
        "FFHQ-aligned faces with homographies, from any command that starts from photographs",
    ),
    "verify": Command("preprocess.inspect.verify", "is this a file to train on? exit code 0 or 1"),
    "report": Command("preprocess.inspect.page", "a page with faces, arrows and label densities"),
    "convert": Command("preprocess.rechunk", "join, subset, re-chunk and compress files"),
}
