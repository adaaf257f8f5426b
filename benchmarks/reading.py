"""Reading data: what a random pair costs, beside the published way. Run `python -m benchmarks.reading`.

The published way is written down here from its description: the group is looked up by name for every sample,
the partner comes from a list of all the person's other samples, labels are read from the file each time, and
images become floats in float64. Files: 128 x 128 images, one a chunk, persons as large as the average of
GazeCapture; compressed by lzf, as the published files are, and not. The two ways take turns in one run, and
the median of the rounds counts. Undoing lzf costs both of them the same and cannot be hurried from Python.
"""

import argparse
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import h5py
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from core.batches import PairSampler
from dataset import GazeDataset
from utils import image_to_float

PERSONS, SAMPLES, SIZE = 8, 936, 128  # 936: samples a person in GazeCapture
INDEX_PERSONS, INDEX_ENTRIES = 1474, 1_379_118
BATCH_SIZE = 20


class PublishedWay(Dataset):
    """The cost model of the published reader; its entries are the same, as floats."""

    def __init__(self, path: Path) -> None:
        self.path, self.file = path, None
        with h5py.File(path) as file:
            self.index = [(person, i) for person in sorted(file) for i in range(len(file[person]["pixels"]))]

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        if self.file is None:
            self.file = h5py.File(self.path, "r")
        person, a = self.index[index]
        others = [i for i in range(len(self.file[person]["pixels"])) if i != a]
        return self.sample(person, a, "_a") | self.sample(person, random.choice(others), "_b")

    def sample(self, person: str, i: int, suffix: str) -> dict[str, Tensor]:
        image = preprocess_in_float64(self.file[person]["pixels"][i])
        labels = self.file[person]["labels"][i, :4]
        arrays = {"image": image, "gaze": labels[:2], "head": labels[2:]}
        return {key + suffix: torch.from_numpy(array) for key, array in arrays.items()}


def preprocess_in_float64(pixels: np.ndarray) -> np.ndarray:
    """(S, S, 3) uint8 RGB to (3, S, S) float32 in [-1, 1]."""
    ycrcb = cv2.cvtColor(pixels, cv2.COLOR_RGB2YCrCb)
    ycrcb[:, :, 0] = cv2.equalizeHist(ycrcb[:, :, 0])
    image = cv2.cvtColor(ycrcb, cv2.COLOR_YCrCb2RGB).transpose(2, 0, 1)
    return (2.0 * image / 255.0 - 1).astype(np.float32)


def write_images(path: Path, compression: str | None, persons: int = PERSONS) -> None:
    """A file of gradients with noise, which lzf compresses to about nine tenths, as it does faces."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:SIZE, :SIZE][..., None]
    slopes, colors = rng.uniform(-0.7, 0.7, (2, 256, 1, 1, 1)), rng.uniform(80, 170, (256, 1, 1, 3))
    images = np.stack([a * y + b * x + c for a, b, c in zip(*slopes, colors, strict=True)])
    images = np.clip(images + rng.normal(0, 2, images.shape), 0, 255).astype(np.uint8)
    with h5py.File(path, "w") as file:
        for person in range(persons):
            pixels = images[rng.integers(len(images), size=SAMPLES)]
            labels = rng.uniform(-0.5, 0.5, (SAMPLES, 8)).astype(np.float32)
            for key, data in {"pixels": pixels, "labels": labels}.items():
                chunks = (1, *data.shape[1:])
                file.create_dataset(f"{person:05d}/{key}", data=data, chunks=chunks, compression=compression)


def write_empty(path: Path) -> None:
    """As many persons and samples as GazeCapture has, none of them ever written."""
    counts = np.full(INDEX_PERSONS, INDEX_ENTRIES // INDEX_PERSONS)
    counts[: INDEX_ENTRIES % INDEX_PERSONS] += 1
    with h5py.File(path, "w") as file:
        for person, count in enumerate(counts.tolist()):
            for key, shape, dtype in (("pixels", (SIZE, SIZE, 3), "u1"), ("labels", (8,), "f4")):
                name = f"{person:05d}/{key}"
                file.create_dataset(name, (count, *shape), dtype, chunks=(1, *shape), compression="lzf")


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turns(works: Sequence[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of each, one after the other in every round."""
    times = [[seconds(work) for work in works] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*times, strict=True)]


def ours(path: Path, pairs: int, to_float: bool = False) -> Callable[[], None]:
    dataset = GazeDataset(path)
    batches = list(PairSampler(dataset, batch_size=BATCH_SIZE, seed=0, num_steps=pairs // BATCH_SIZE))

    def read() -> None:
        for batch in batches:
            entries = [dataset[pair] for pair in batch]
            if to_float:
                for key in ("image_a", "image_b"):
                    image_to_float(torch.stack([entry[key] for entry in entries]))

    return read


def published(path: Path, pairs: int) -> Callable[[], None]:
    dataset = PublishedWay(path)
    order = np.random.default_rng(0).permutation(len(dataset))[:pairs].tolist()

    def read() -> None:
        for index in order:
            dataset[index]

    return read


def exhaust(loader: DataLoader) -> Callable[[], None]:
    """One pass over all batches, the start of the workers included."""
    return lambda: [None for _ in loader][:0]


def published_loader(path: Path, pairs: int) -> Callable[[], None]:
    theirs = torch.utils.data.Subset(PublishedWay(path), np.random.default_rng(0).permutation(pairs).tolist())
    return exhaust(DataLoader(theirs, batch_size=BATCH_SIZE, num_workers=2))


def our_loader(path: Path, pairs: int) -> Callable[[], None]:
    dataset = GazeDataset(path)
    sampler = PairSampler(dataset, batch_size=BATCH_SIZE, seed=0, num_steps=pairs // BATCH_SIZE)
    return exhaust(DataLoader(dataset, batch_sampler=sampler, num_workers=2))


def cold(way: Callable[[Path, int], Callable[[], None]], path: Path, pairs: int) -> float:
    """Seconds in a fresh process, after asking the system to forget the file."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    # Not a pool: its daemonic processes may not start loader workers.
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_time_way, way, path, pairs).result()


def _time_way(way: Callable[[Path, int], Callable[[], None]], path: Path, pairs: int) -> float:
    return seconds(way(path, pairs))


def report(what: str, theirs: float, mine: float, pairs: int) -> None:
    print(f"{what:<50}{theirs / pairs * 1e6:>10.0f}{mine / pairs * 1e6:>8.0f}{theirs / mine:>7.1f}x")


def measure(folder: Path, pairs: int, rounds: int) -> None:
    versions = f"h5py {h5py.__version__}, OpenCV {cv2.__version__}, torch {torch.__version__}"
    torch.set_num_threads(1)  # one process means one core
    print(f"{versions}, {os.cpu_count()} CPUs; {rounds} rounds of {pairs} pairs")
    print(f"{'microseconds a pair':<50}{'published':>10}{'here':>8}{'ratio':>8}")
    files = {"lzf": folder / "lzf.h5", "uncompressed": folder / "uncompressed.h5"}
    for kind, path in files.items():
        write_images(path, "lzf" if kind == "lzf" else None)
        measure_file(kind, path, pairs, rounds)
    lzf, plain = files.values()
    report(
        "published on lzf, here on uncompressed",
        *in_turns([published(lzf, pairs), ours(plain, pairs)], rounds),
        pairs,
    )
    print(f"labels of {PERSONS * SAMPLES} samples: {seconds(GazeDataset(lzf).labels):.3f} s")
    write_empty(folder / "empty.h5")
    index = seconds(lambda: GazeDataset(folder / "empty.h5"))
    print(f"index of {INDEX_ENTRIES} samples of {INDEX_PERSONS} persons: {index:.2f} s")


def measure_file(kind: str, path: Path, pairs: int, rounds: int) -> None:
    print(f"{kind}: {path.stat().st_size / PERSONS / SAMPLES / 1024:.1f} KB an image")
    works = [published(path, pairs), ours(path, pairs), ours(path, pairs, to_float=True)]
    theirs, mine, mine_to_float = in_turns(works, rounds)
    report("  warm cache, one process", theirs, mine, pairs)
    report("  the same, and batches of floats made on this CPU", theirs, mine_to_float, pairs)
    two = in_turns([published_loader(path, pairs), our_loader(path, pairs)], rounds)
    report("  warm cache, 2 loader workers with their start", *two, pairs)
    report("  cold cache, one process", *(cold(way, path, pairs) for way in (published, ours)), pairs)
    loaders = published_loader, our_loader
    report("  cold cache, 2 loader workers with their start", *(cold(way, path, pairs) for way in loaders), pairs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=2000, help="pairs a round, at most 7480")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", help="where files of 700 MB go for the time of the run")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        measure(Path(folder), arguments.pairs, arguments.rounds)


if __name__ == "__main__":
    main()
