"""Compact estimators at the quickstart's budget, one for each kind of synthetic data set and each seed."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from core.command import UserError
from core.estimator.train import is_trained
from core.tracking import say
from preprocess.synthetic.dataset import SPLIT_FILE, make_dataset
from preprocess.synthetic.samples import FRAMINGS, LOOKS

ROOT = Path(__file__).resolve().parent.parent
CONFIG = ROOT / "config" / "estimator-compact.json"
PERSONS, SAMPLES, SIZE = 400, 25, 128  # of the training file, as in that configuration


@dataclass(frozen=True)
class Kind:
    """Of a data set."""

    look: str
    variation: str
    framing: str

    def __str__(self) -> str:
        variation = f", {self.variation}" if self.look == "drawn" else ""
        return f"{self.look}{variation}, {self.framing}"

    @property
    def folder(self) -> str:
        return f"{self.look}-{self.variation}-{self.framing}"


def all_kinds() -> list[Kind]:
    """Drawn calm and full, and rendered where there is that look, each with both framings."""
    pairs = [("drawn", "calm"), ("drawn", "full"), *((look, "full") for look in LOOKS if look != "drawn")]
    return [Kind(look, variation, framing) for look, variation in pairs for framing in FRAMINGS]


def trained(kind: Kind, seed: int, work: Path, steps: int, workers: int | None) -> Path:
    """The folder of an estimator, trained on its own data; what is in `work` already is not made again."""
    data = work / "data" / f"{kind.folder}-{seed}"
    folder = work / "estimators" / f"{kind.folder}-{steps}-{seed}"
    if is_trained(folder):
        return folder
    if not (data / f"GazeCapture_{SIZE}.h5").is_file():
        say(f"{kind}, seed {seed}: making its data in {data} ...")
        make_dataset(
            data, persons=PERSONS, samples=SAMPLES, seed=seed, image_size=SIZE, variation=kind.variation,
            look=kind.look, framing=kind.framing, workers=workers,
        )  # fmt: skip
    say(f"{kind}, seed {seed}: training for {steps} steps in {folder} ...")
    _train(data, folder, seed, steps)
    return folder


def _train(data: Path, folder: Path, seed: int, steps: int) -> None:
    """`train_facenet.py` on the persons of one file, chosen by those held out of it; its output is kept."""
    flags = {
        "gazecapture-file": data / f"GazeCapture_{SIZE}.h5", "gazecapture-split": data / SPLIT_FILE,
        "mpiigaze-file": ".", "columbia-file": ".", "eyediap-file": ".",
        "gazenet-savepath": folder, "seed": seed, "estimator-num-steps": steps,
    }  # fmt: skip
    words = [word for key, value in flags.items() for word in (f"--{key}", str(value))]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "output.txt").open("wb") as output:
        command = [sys.executable, str(ROOT / "train_facenet.py"), str(CONFIG), "--no-synthetic-data", *words]
        status = subprocess.run(command, stdout=output, stderr=output, cwd=ROOT).returncode
    if status:
        raise UserError(
            f"The training of {folder} failed; see {folder / 'output.txt'}.",
            remedy="Mend what it says and run the same command again.",
        )
