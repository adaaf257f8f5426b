"""W+ codes of the faces of a data set: computed once, kept on disk, and dealt out with its entries.

A cache is a folder that holds an HDF5 file a person: `w_plus` (N, rows, D) float32, in the order of the person's
images; where an estimator was at hand, `gaze` and `head` (N, 2) float32, pitch and yaw in radians as it sees them on
the face drawn from the code; and the recipe as root attributes. So persons can be added at any time, by one process
at a time, and a kill at any moment costs the person at work. The folder's name follows from the recipe.

Conditions are estimated anew because an inversion moves gaze and head. Source: ReDirTrans (Jin et al., 2023); the
layout of the cache is ours.
"""

import glob
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from core.files import atomic_write
from core.runtime import stop_on_signal
from core.tracking import progress_bar, say
from dataset import GazeDataset
from dataset_aligned import AlignedDataset
from models.recrop import estimator_view
from utils import batch_to_device

Recipe = Mapping[str, str | int | float]  # whatever decides the codes and the estimates

FORMAT_VERSION = 1
LOOKED_AT = 64  # images that identify a data file; all of them would take an hour of reading
_MAX_LINES = 10
_READ_ERRORS = (OSError, RuntimeError, KeyError, ValueError)  # what h5py raises for a damaged file


def inversion_recipe(dataset: AlignedDataset, *, patch_size: int, **networks: str | int | float) -> Recipe:
    """All that decides the cache of a data set; persons and labels do not, so that the parts of a split share it.

    networks: the sha256 of the weights of encoder, generator and estimator, the noise mode, the precision.
    Raises OSError where the file is damaged.
    """
    return {
        "format_version": FORMAT_VERSION,
        "data_sha256": _data_sha256(dataset.path),
        "is_bgr": int(dataset.is_bgr),
        "image_size": dataset.image_size,
        "patch_size": patch_size,
        **networks,
    }


def inversion_folder(parent: Path, dataset: GazeDataset, recipe: Recipe) -> Path:
    """Where the cache of this recipe lies; caches of several recipes lie side by side."""
    digest = hashlib.sha256(json.dumps(dict(recipe), sort_keys=True).encode()).hexdigest()
    return Path(parent) / f"{dataset.path.stem}-{digest[:12]}"


@torch.no_grad()
def invert_dataset(
    dataset: AlignedDataset,
    folder: Path,
    recipe: Recipe,
    *,
    invert: Callable[[Tensor], Tensor],
    generate: Callable[[Tensor], Tensor],
    estimator: nn.Module | None,
    patch_size: int,
    batch_size: int,
    device: torch.device,
    workers: int,
) -> None:
    """Add the persons of the data set that are not in the cache yet; nothing but a sentence if all are.

    invert: images (B, 3, S, S) in [-1, 1] to W+ codes (B, rows, D).  generate: codes to images.  Both and the
    estimator are ready for inference and on the device; generate is called only for an estimator.
    A batch holds images of one person, so that one that is done again after a kill has the same batches.
    Raises ValueError if the folder holds codes of another recipe or a network's output is not finite, OSError if
    they do not fit on the disk, KeyboardInterrupt if the user asks to stop; what is written by then is kept.
    """
    names = ("w_plus",) if estimator is None else ("w_plus", "gaze", "head")
    starts, counts = dataset.person_start, np.diff(dataset.person_start)
    paths = [_person_file(folder, person) for person in dataset.person_ids]
    todo = [p for p, path in enumerate(paths) if not _is_done(path, recipe, names, counts[p])]
    num_todo, total = int(counts[todo].sum()), len(dataset)
    if not todo:
        say(f"W+ codes of {dataset.name or dataset.path.name}: all {total} are in {folder}.")
        return
    folder.mkdir(parents=True, exist_ok=True)
    first = batch_to_device({"image": dataset[int(starts[todo[0]])]["image"][None]}, device)
    _announce(dataset, folder, num_todo, num_todo * invert(first["image"])[0].numel() * 4)

    batches = {p: _split(int(starts[p]), int(starts[p + 1]), batch_size) for p in todo}
    loaded = _load(dataset, [batch for parts in batches.values() for batch in parts], device, workers)
    bar = progress_bar(total, total - num_todo, "inverting", unit="image")
    with stop_on_signal() as stop:
        for p, parts in batches.items():
            values: list[dict[str, np.ndarray]] = []
            for entries in parts:
                if stop:
                    say(f"Stopped before person {dataset.person_ids[p]}; the same command continues from there.")
                    raise KeyboardInterrupt
                batch = next(loaded)
                found = {"w_plus": invert(batch["image"]).float()}
                if estimator is not None:
                    seen = estimator(estimator_view(generate(found["w_plus"]), batch["crop"], patch_size))
                    found |= {"gaze": seen.gaze.float(), "head": seen.head.float()}
                _require_finite(dataset, p, found)
                values.append({name: value.cpu().numpy() for name, value in found.items()})
                bar.update(len(entries))
            _write_person(paths[p], recipe, values)
    bar.close()


class InvertedDataset(AlignedDataset):
    """A data set with the W+ codes of a cache: entries, pairs, index and errors are those of `dataset`.

    relabel: `gaze` and `head`, of the entries and of `labels()`, are those seen on the inversions.
    Raises ValueError naming the persons that the cache does not hold, or holds damaged. Safe to fork and to pickle.
    """

    def __init__(self, dataset: AlignedDataset, folder: Path, *, relabel: bool = True) -> None:
        vars(self).update(dataset.__getstate__())  # the same index; the file is opened anew when it is read
        self.inversions, self.relabel = Path(folder), relabel
        self._labels, self._has_labels = np.zeros_like(self._labels), np.zeros_like(self._has_labels)
        names, counts = ("w_plus", "gaze", "head") if relabel else ("w_plus",), np.diff(self.person_start)
        paths = [_person_file(self.inversions, person) for person in self.person_ids]
        problems = [
            f"{path.name}: {problem}"
            for path, count in zip(paths, counts, strict=True)
            if (problem := _problem_of(path, names, int(count)))
        ]
        if problems:
            more = [f"... and {len(problems) - _MAX_LINES} more"] if len(problems) > _MAX_LINES else []
            raise ValueError(
                f"{self.inversions}: {len(problems)} of {len(counts)} persons of {self.path} have no usable W+ codes "
                "there. Remove these files, where they are there; they are computed again when training starts.\n  "
                + "\n  ".join(problems[:_MAX_LINES] + more)
            )

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Tensor]:
        """An entry as AlignedDataset gives it, with `w_plus` (rows, D) float32.

        Raises as AlignedDataset does, and OSError where the cache is damaged.
        """
        return super().__getitem__(index)

    def _entry(self, index: int, suffix: str) -> dict[str, Tensor]:
        person, sample = int(self.person_of[index]), int(self.sample_of[index])
        code = self._read_inversions(person, "w_plus", sample)
        return super()._entry(index, suffix) | {f"w_plus{suffix}": torch.from_numpy(code)}

    def _load_labels(self, person: int) -> None:
        if not self.relabel:
            return super()._load_labels(person)
        start, stop = self.person_start[person : person + 2]
        for columns, name in ((slice(0, 2), "gaze"), (slice(2, 4), "head")):
            self._labels[start:stop, columns] = self._read_inversions(person, name, slice(None))
        self._has_labels[person] = True

    def _read_inversions(self, person: int, name: str, rows: int | slice) -> np.ndarray:
        path = _person_file(self.inversions, self.person_ids[person])
        try:
            # Opened for each read, less than 1 ms: files held open would be thousands, and not survive a fork.
            with h5py.File(path) as file:
                return file[name][rows]
        except _READ_ERRORS as error:
            raise OSError(
                f"{path}: {name} cannot be read ({error}). The file is damaged: remove it and run the same command "
                "again, which computes it anew."
            ) from error


def _data_sha256(path: Path) -> str:
    """Identity of a data file wherever it lies: persons, homographies and some of the images."""
    digest = hashlib.sha256()
    try:
        with h5py.File(path) as file:
            digest.update(json.dumps([str(file.attrs.get(name)) for name in ("view", "patch_size")]).encode())
            groups = {person: group for person, group in file.items() if isinstance(group, h5py.Group)}
            groups = {
                person: group for person, group in groups.items() if isinstance(group.get("pixels"), h5py.Dataset)
            }
            total, start = sum(len(group["pixels"]) for group in groups.values()), 0
            looked_at = np.unique(np.linspace(0, total - 1, LOOKED_AT).astype(int))
            for person, group in groups.items():
                pixels = group["pixels"]
                digest.update(f"{person}\0{pixels.shape}".encode())
                if "homography" in group:
                    digest.update(group["homography"][()].astype("<f8").tobytes())
                for row in looked_at[(looked_at >= start) & (looked_at < start + len(pixels))] - start:
                    digest.update(pixels[row].tobytes())
                start += len(pixels)
    except _READ_ERRORS as error:
        raise OSError(f"{path}: cannot be read ({error}). Download it again or re-run preprocessing.") from error
    return digest.hexdigest()


def _person_file(folder: Path, person: str) -> Path:
    return Path(folder) / f"{quote(person, safe='')}.h5"


def _is_done(path: Path, recipe: Recipe, names: Sequence[str], count: int) -> bool:
    """Whether a person's codes are there; a damaged file, as a power cut can leave it, is not.

    Raises ValueError if they are of another recipe.
    """
    if _problem_of(path, names, count):
        return False
    with h5py.File(path) as file:
        found = dict(file.attrs)
    different = sorted(key for key in recipe.keys() | found.keys() if recipe.get(key) != found.get(key))
    if different:
        raise ValueError(
            f"{path}: these W+ codes were made with other values of {', '.join(different)}. "
            "Move or remove the folder, or choose another one."
        )
    return True


def _problem_of(path: Path, names: Sequence[str], count: int) -> str:
    """What is wrong with a person's file, or ''."""
    if not path.exists():
        return "no such file"
    try:
        with h5py.File(path) as file:
            lengths = {name: len(file[name]) if name in file else None for name in names}
    except _READ_ERRORS as error:
        return f"damaged ({error})"
    wrong = [f"{'no' if found is None else found} {name}" for name, found in lengths.items() if found != count]
    return f"{', '.join(wrong)}, expected {count}" if wrong else ""


def _announce(dataset: AlignedDataset, folder: Path, count: int, num_bytes: int) -> None:
    """Say what is to come. Raises OSError if the disk has no room for it."""
    free = shutil.disk_usage(folder).free
    say(
        f"W+ codes of {dataset.name or dataset.path.name}: {count} of {len(dataset)} are still to be computed, about "
        f"{num_bytes / 1e9:.2g} GB at {folder}."
    )
    if free < num_bytes:
        raise OSError(
            f"{folder}: the W+ codes of {count} images take {num_bytes / 1e9:.3g} GB, but the disk has "
            f"{free / 1e9:.3g} GB left. Make room, choose a folder on another disk, or use fewer persons."
        )


def _split(start: int, stop: int, batch_size: int) -> list[list[int]]:
    return [list(range(at, min(at + batch_size, stop))) for at in range(start, stop, batch_size)]


def _load(
    dataset: AlignedDataset, batches: list[list[int]], device: torch.device, workers: int
) -> Iterator[dict[str, Tensor]]:
    loader = torch.utils.data.DataLoader(dataset, batch_sampler=batches, num_workers=workers if len(batches) > 4 else 0)
    return (batch_to_device(batch, device) for batch in loader)


def _require_finite(dataset: AlignedDataset, person: int, values: Mapping[str, Tensor]) -> None:
    bad = [name for name, value in values.items() if not value.isfinite().all()]
    if bad:
        raise ValueError(
            f"{dataset.path}: person {dataset.person_ids[person]!r}: {', '.join(bad)} of the inversion is not finite. "
            "Check the weights of the encoder, the generator and the estimator, or use float32."
        )


def _write_person(path: Path, recipe: Recipe, batches: list[dict[str, np.ndarray]]) -> None:
    # Made in memory, 1 GB for a person of 10,000 images: HDF5 itself crashes where the disk is full.
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        file.attrs.update(recipe)
        for name in batches[0]:
            value = np.concatenate([batch[name] for batch in batches])
            chunks = (1 if name == "w_plus" else len(value), *value.shape[1:])  # a code is read alone
            file.create_dataset(name, data=value, chunks=chunks, fletcher32=True, track_times=False)
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):  # by a kill
        left.unlink()
    try:
        with atomic_write(path) as temporary, temporary.open("wb") as written:
            written.write(memory.getbuffer())
            written.flush()
            os.fsync(written.fileno())  # before it gets the name of a file that is done
    except OSError as error:
        raise OSError(
            f"{path}: cannot be written ({error}). Make room or choose another folder; the same command goes on."
        ) from error
