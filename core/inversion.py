"""W+ codes of the faces of a data set: computed once, kept on disk, and dealt out with its entries.

A cache is a folder that holds an HDF5 file a person: `w_plus` (N, rows, D) float32, in the order of the person's
images; where an estimator was at hand, `gaze` and `head` (N, 2) float32, pitch and yaw in radians as it sees them on
the face drawn from the code; and the facts that decide all these as root attributes. So persons can be added at any
time, by one process at a time, and a kill at any moment costs the person at work. The folder's name follows from the
facts.

Conditions are estimated anew because an inversion moves gaze and head. Source: ReDirTrans (Jin et al., 2023); the
layout of the cache is ours.
"""

import hashlib
import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor, nn

from core import distributed
from core.command import UserError
from core.disk import said_where_full
from core.facts import differences, refuse_differences
from core.files import remove_left
from core.hdf5 import DamagedFile, open_hdf5, reading
from core.loading import PatientLoader
from core.owner import Owner, own
from core.person_parts import Facts, part_file, write_whole
from core.runtime import stop_on_signal
from core.tracking import progress_bar, say
from dataset import GazeDataset, Labels, PersonImages
from dataset_aligned import AlignedDataset
from models.recrop import estimator_view
from utils import batch_to_device

FORMAT_VERSION = 1
LOOKED_AT = 64  # images that identify a data file; all of them would take an hour of reading
_MAX_LINES = 10
REMEDY = "Remove it and run the same command again, which computes it anew."


def inversion_facts(dataset: AlignedDataset, *, patch_size: int, **networks: str | int | float) -> Facts:
    """All that decides the cache of a data set; persons and labels do not, so that the parts of a split share it.

    networks: the sha256 of the weights of encoder, generator and estimator, the noise mode, the precision.
    Raises UserError where the file cannot be read.
    """
    return {
        "format_version": FORMAT_VERSION,
        "data_sha256": _data_sha256(dataset.path),
        "is_bgr": int(dataset.is_bgr),
        "image_size": dataset.image_size,
        "patch_size": patch_size,
        **networks,
    }


def inversion_folder(parent: Path, dataset: GazeDataset, facts: Facts) -> Path:
    """Where the cache made by these facts lies; several caches lie side by side."""
    digest = hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()
    return Path(parent) / f"{dataset.path.stem}-{digest[:12]}"


@torch.no_grad()
def invert_dataset(
    dataset: AlignedDataset,
    folder: Path,
    facts: Facts,
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
    A batch holds images of one person, so that one that is done again after a kill has the same batches. Several
    processes share out the persons.
    Raises UserError if the folder holds codes made by other facts, or what cannot be opened, or another process writes
    there, or a network's output is not finite; OSError if they do not fit on the disk; KeyboardInterrupt if the user
    asks to stop, and what is written by then is kept.
    """
    names = ("w_plus",) if estimator is None else ("w_plus", "gaze", "head")
    starts, counts = dataset.person_start, np.diff(dataset.person_start)
    paths = [part_file(folder, person) for person in dataset.person_ids]
    mine = distributed.own_share(range(len(paths)))
    todo = [p for p in mine if not _is_done(paths[p], facts, names, counts[p])]
    num_todo, total = int(counts[todo].sum()), int(counts[mine].sum())
    everyones = sum(distributed.of_all(num_todo))
    if not everyones:
        say(f"W+ codes of {dataset.name or dataset.path.name}: all {len(dataset)} are in {folder}.")
        return
    batches = {p: _split(int(starts[p]), int(starts[p + 1]), batch_size) for p in todo}
    with distributed.first_then_others(lambda: _taken(folder)), distributed.together(), stop_on_signal() as stop:
        if todo:
            first = batch_to_device({"image": dataset[int(starts[todo[0]])]["image"][None]}, device)
            _announce(dataset, folder, everyones, everyones * invert(first["image"])[0].numel() * 4)
        loaded = _load(dataset, [batch for parts in batches.values() for batch in parts], device, workers)
        bar = progress_bar(total, total - num_todo, "inverting", unit="image")
        for p, parts in batches.items():
            values: list[dict[str, np.ndarray]] = []
            for entries in parts:
                if stop:
                    raise KeyboardInterrupt(
                        f"Stopped before person {dataset.person_ids[p]}; the same command continues from there."
                    )
                batch = next(loaded)
                found = {"w_plus": invert(batch["image"]).float()}
                if estimator is not None:
                    seen = estimator(estimator_view(generate(found["w_plus"]), batch["crop"], patch_size))
                    found |= {"gaze": seen.gaze.float(), "head": seen.head.float()}
                _require_finite(dataset, p, found)
                values.append({name: value.cpu().numpy() for name, value in found.items()})
                bar.update(len(entries))
            _write_person(paths[p], facts, values)
        bar.close()


def _taken(folder: Path) -> Owner:
    """The folder, made where it is missing; that of the first process alone."""
    if not distributed.is_first():
        return Owner(None)
    owner = own(folder)
    with owner.released_on_error():
        remove_left(folder)
    return owner


class InvertedDataset(PersonImages):
    """A data set with the W+ codes of a cache: entries, pairs, index and errors are those of `faces`.

    relabel: `gaze` and `head`, of the entries and of `labels()`, are those seen on the inversions.
    Raises UserError naming the persons that the cache does not hold, or holds damaged. Safe to fork and to pickle.
    """

    def __init__(self, faces: AlignedDataset, folder: Path, *, relabel: bool = True) -> None:
        self.faces, self.inversions, self.relabel = faces, Path(folder), relabel
        self.path, self.name, self.image_size = faces.path, faces.name, faces.image_size
        self.person_ids, self.person_start = faces.person_ids, faces.person_start
        self.person_of, self.sample_of = faces.person_of, faces.sample_of
        self._seen = Labels(self.person_start)
        self._require_codes()

    def _require_codes(self) -> None:
        names = ("w_plus", "gaze", "head") if self.relabel else ("w_plus",)
        counts, problems = np.diff(self.person_start).tolist(), []
        for person, count in zip(self.person_ids, counts, strict=True):
            path = part_file(self.inversions, person)
            if problem := _problem_of(path, names, count):
                problems.append(f"{path.name}: {problem}")
        if problems:
            more = [f"... and {len(problems) - _MAX_LINES} more"] if len(problems) > _MAX_LINES else []
            raise UserError(
                f"{self.inversions}: {len(problems)} of {len(counts)} persons of {self.path} have no usable W+ codes "
                "there. Remove these files, where they are there; they are computed again when training starts.\n  "
                + "\n  ".join(problems[:_MAX_LINES] + more)
            )

    def entry(self, index: int) -> dict[str, Tensor]:
        """An entry as AlignedDataset gives it, with `w_plus` (rows, D) float32.

        Raises UserError as AlignedDataset does, and where the cache is damaged.
        """
        person, sample = int(self.person_of[index]), int(self.sample_of[index])
        label = self._seen.of(index, person, self._load_seen) if self.relabel else self.faces.label(index)
        code = self._read(person, "w_plus", sample)
        return self.faces.entry_with(index, label) | {"w_plus": torch.from_numpy(code)}

    def labels(self) -> np.ndarray:
        """(N, 4) float32, read-only: gaze pitch, yaw, head pitch, yaw in radians."""
        return self._seen.all(self._load_seen) if self.relabel else self.faces.labels()

    def groups(self) -> np.ndarray | None:
        """As PersonImages says."""
        return self.faces.groups()

    def _load_seen(self, person: int) -> np.ndarray:
        return np.concatenate([self._read(person, name, slice(None)) for name in ("gaze", "head")], axis=1)

    def _read(self, person: int, name: str, rows: int | slice) -> np.ndarray:
        path = part_file(self.inversions, self.person_ids[person])
        # Opened for each read, less than 1 ms: files held open would be thousands, and not survive a fork.
        with open_hdf5(path, damaged=REMEDY) as file, reading(path, f"{name} cannot be read", damaged=REMEDY):
            return file[name][rows]


def _data_sha256(path: Path) -> str:
    """Identity of a data file wherever it lies: persons, homographies and some of the images."""
    digest = hashlib.sha256()
    with open_hdf5(path) as file, reading(path):
        digest.update(json.dumps([str(file.attrs.get(name)) for name in ("view", "patch_size")]).encode())
        groups = {person: group for person, group in file.items() if isinstance(group, h5py.Group)}
        groups = {person: group for person, group in groups.items() if isinstance(group.get("pixels"), h5py.Dataset)}
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
    return digest.hexdigest()


def _is_done(path: Path, facts: Facts, names: Sequence[str], count: int) -> bool:
    """Whether a person's codes are there; a damaged file, as a power cut can leave it, is not.

    Raises UserError if they were made by other facts, or the file cannot be opened.
    """
    if _problem_of(path, names, count):
        return False
    with open_hdf5(path) as file, reading(path):
        found = dict(file.attrs)
    remedy = "Move or remove the folder, or choose another one."
    refuse_differences(differences(found, facts), str(path), "these W+ codes were made", remedy)
    return True


def _problem_of(path: Path, names: Sequence[str], count: int) -> str:
    """What is wrong with a person's file, or ''. Raises UserError where it cannot be opened."""
    if not path.exists():
        return "no such file"
    try:
        with open_hdf5(path) as file, reading(path):
            lengths = {name: len(file[name]) if name in file else None for name in names}
    except DamagedFile as error:
        return f"damaged ({error.__cause__})"
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
    loader = PatientLoader(dataset, batch_sampler=batches, num_workers=workers if len(batches) > 4 else 0)
    return (batch_to_device(batch, device) for batch in loader)


def _require_finite(dataset: AlignedDataset, person: int, values: Mapping[str, Tensor]) -> None:
    bad = [name for name, value in values.items() if not value.isfinite().all()]
    if bad:
        raise UserError(
            f"{dataset.path}: person {dataset.person_ids[person]!r}: {', '.join(bad)} of the inversion is not finite. "
            "Check the weights of the encoder, the generator and the estimator, or use float32."
        )


def _write_person(path: Path, facts: Facts, batches: list[dict[str, np.ndarray]]) -> None:
    with said_where_full(path), write_whole(path) as (file, _):
        file.attrs.update(facts)
        for name in batches[0]:
            value = np.concatenate([batch[name] for batch in batches])
            chunks = (1 if name == "w_plus" else len(value), *value.shape[1:])  # a code is read alone
            file.create_dataset(name, data=value, chunks=chunks, fletcher32=True, track_times=False)
