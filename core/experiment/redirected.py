"""Makes the redirected data set: draws targets, redirects images to them, leaves out what misses them.

Source: ST-ED, section 4 (semi-supervised gaze estimation), and its release.
"""

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from core import distributed
from core.command import UserError
from core.files import file_sha256
from core.loading import PatientLoader
from core.person_parts import Facts, remove_parts
from core.runtime import stop_on_signal
from core.tracking import progress_bar, say
from dataset import GazeDataset
from dataset_augmented import FORMAT_VERSION, RedirectedWriter, is_complete
from models.geometry import angular_error_deg
from models.redirector import Redirector
from utils import batch_to_device, image_to_uint8

ANGLES = ("gaze pitch", "gaze yaw", "head pitch", "head yaw")
MAX_REDRAWS = 1000
TARGET_STREAM = 0x7461_7267  # of the seed, far from the streams that are numbered by epoch
DECODE_AT_ONCE = 64
LOOKED_AT = 16  # images that identify a source; all of them would take an hour of reading


def draw_targets(
    labels: np.ndarray,
    per_sample: int,
    *,
    seed: int,
    num_samples: int | None = None,
    bandwidth: float = 1.0,
    truncated: bool = False,
) -> np.ndarray:
    """(num_samples, per_sample, 4) float32: angles from a Gaussian kernel density estimate over the labels (N, 4).

    A function of the arguments alone, drawn all at once: who deals them out, and in which order, changes nothing.
    num_samples: None for as many as there are labels.  bandwidth: factor of Scott's.
    truncated: draw again what lies outside the range of the labels in any angle.
    Raises UserError if the labels are too few or too alike to estimate a density, or hardly any draw is inside.
    """
    labels = np.asarray(labels, np.float64)
    # Drawn here rather than by scipy's resample: a Cholesky root is unique, the same on every machine.
    root = np.linalg.cholesky(_kernel_covariance(labels, bandwidth))
    random = np.random.default_rng([seed, TARGET_STREAM])

    def draw(count: int) -> np.ndarray:
        centres = labels[random.integers(len(labels), size=count)]
        return centres + random.standard_normal((count, len(ANGLES))) @ root.T

    num_samples = len(labels) if num_samples is None else num_samples
    targets, low, high = draw(num_samples * per_sample), labels.min(0), labels.max(0)
    outside = np.arange(len(targets)) if truncated else np.empty(0, int)
    for _ in range(MAX_REDRAWS):
        outside = outside[((targets[outside] < low) | (targets[outside] > high)).any(axis=1)]
        if not outside.size:
            return targets.astype(np.float32).reshape(num_samples, per_sample, len(ANGLES))
        targets[outside] = draw(len(outside))
    raise UserError(
        f"redirected_truncated: {len(outside)} of {len(targets)} targets are outside the range of the labels after "
        f"{MAX_REDRAWS} draws. Lower redirected_bandwidth ({bandwidth:g}), or do not truncate."
    )


def _kernel_covariance(labels: np.ndarray, bandwidth: float) -> np.ndarray:
    """(4, 4): of the Gaussian that the density estimate puts on each label."""
    from scipy.stats import gaussian_kde  # most of a second to import, and few runs need it

    remedy = "Raise num_labeled_samples, or set store_redirect_dataset to false."
    if len(labels) <= len(ANGLES):
        raise UserError(
            f"store_redirect_dataset: {len(labels)} labelled samples, at least {len(ANGLES) + 1} are needed to "
            f"estimate the density of {len(ANGLES)} angles. {remedy}"
        )
    constant = [name for name, spread in zip(ANGLES, np.ptp(labels, axis=0), strict=True) if spread < 1e-6]
    if constant:
        raise UserError(
            f"store_redirect_dataset: all {len(labels)} labelled samples have the same {', '.join(constant)}, so "
            f"there is no density to draw targets from. {remedy}"
        )
    if np.linalg.matrix_rank(np.corrcoef(labels.T), tol=1e-6, hermitian=True) < len(ANGLES):
        raise UserError(
            f"store_redirect_dataset: the angles of the {len(labels)} labelled samples follow from one another, so "
            f"there is no density to draw targets from. {remedy}"
        )
    return gaussian_kde(labels.T, bw_method=lambda kde: kde.scotts_factor() * bandwidth).covariance


def redirect_batch(redirector: Redirector, image: Tensor, targets: Tensor) -> Tensor:
    """(B, K, 3, S, S) in [-1, 1]: each image (B, 3, S, S) with gaze and head at its K targets (B, K, 4), radians."""
    encoding, copies = redirector.encode(image), targets.shape[1]
    every = encoding[torch.arange(len(image), device=image.device).repeat_interleave(copies)]
    flat = targets.flatten(0, 1)
    # Few images of a person with many copies each are decoded together.
    parts = [slice(start, start + DECODE_AT_ONCE) for start in range(0, len(flat), DECODE_AT_ONCE)]
    views = [
        redirector.decode(redirector.rotate(every[part], {"gaze": flat[part, :2], "head": flat[part, 2:]}))
        for part in parts
    ]
    return torch.cat(views).unflatten(0, (len(image), copies)).clamp(-1, 1)


def target_errors_deg(estimator: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """(B, K, 2) degrees: asked-for against seen gaze and head of redirected images (B, K, 3, S, S)."""
    seen = [estimator(image) for image in images.unbind(1)]
    gaze = torch.stack([estimate.gaze for estimate in seen], dim=1)
    head = torch.stack([estimate.head for estimate in seen], dim=1)
    return torch.stack((angular_error_deg(gaze, targets[..., :2]), angular_error_deg(head, targets[..., 2:])), dim=-1)


@dataclass(frozen=True)
class Generation:
    """A redirected data set to be written; every random draw is done.

    entries: (N,) images of the data set, ascending.  is_labeled: (N,) bool; an image without a label is redirected,
    but is not in the file itself.  targets: (N, K, 4) radians.
    max_error: degrees that gaze and head may be off as the training estimator sees them; None keeps everything.
    facts: all that decides the content, but for the networks.
    """

    path: Path
    dataset: GazeDataset
    entries: np.ndarray
    is_labeled: np.ndarray
    targets: np.ndarray
    images: Literal["uint8", "float32"]
    max_error: float | None
    facts: Facts

    def check(self, checkpoint: Path | None, estimator_sha256: str) -> None:
        """Raises UserError if another file is in the way; else says what is to come.

        checkpoint: None if it is still to be trained.  estimator_sha256: the training estimator's, '' if it is.
        """
        if not is_complete(self.path, self._all_facts(checkpoint, estimator_sha256) if checkpoint else None):
            count, copies, _ = self.targets.shape
            image_bytes = 3 * self.dataset.image_size**2 * (1 if self.images == "uint8" else 4)
            num_labeled = int(self.is_labeled.sum())
            others = f" and {count - num_labeled} without a label" if count > num_labeled else ""
            size = (num_labeled + count * copies) * image_bytes / 1e9
            say(
                f"Redirected data set: {num_labeled} labelled images{others}, {copies} redirected of each, about "
                f"{size:.2g} GB at {self.path} (twice that while it is written)."
            )

    def _all_facts(self, checkpoint: Path, estimator_sha256: str) -> Facts:
        gate = "" if self.max_error is None else estimator_sha256
        return {**self.facts, "redirector_sha256": file_sha256(checkpoint), "estimator_sha256": gate}

    @torch.no_grad()
    def write(
        self,
        redirector: Redirector,
        checkpoint: Path,
        step: int,
        *,
        estimator: nn.Module | None,
        estimator_sha256: str,
        batch_size: int,
        device: torch.device,
        workers: int,
        code_revision: str,
    ) -> None:
        """Write the file or go on writing it; nothing but a sentence if it is complete.

        Several processes share out the persons, and the first joins them: the same file, to the byte.
        A batch holds images of one person, so that one that is written again after a kill has the same batches.
        Raises OSError where the disk is full, KeyboardInterrupt if the user asks to stop; what is written by then is
        kept.
        """
        writer = distributed.first_then_others(lambda: self._begun(checkpoint, estimator_sha256))
        if writer is None:
            return
        redirector.eval()
        persons = self._rows_of_persons()
        mine = distributed.own_share(list(persons))
        batches = {
            person: np.split(persons[person], range(batch_size, len(persons[person]), batch_size))
            for person in mine
            if not writer.has(person)
        }
        loaded = self._load([rows for parts in batches.values() for rows in parts], workers)
        total, todo = (sum(len(persons[person]) for person in some) for some in (mine, batches))
        bar = progress_bar(total, total - todo, "redirecting", unit="image")
        with distributed.together(), stop_on_signal() as stop:
            for person, parts in batches.items():
                with writer.person(person) as file:
                    for rows in parts:
                        if stop:
                            raise KeyboardInterrupt(
                                f"Stopped before person {person}; the same command continues from there."
                            )
                        counts, values = self._redirect(redirector, estimator, next(loaded), rows, device)
                        file.append(counts, **values)
                        bar.update(len(rows))
        bar.close()
        if not distributed.is_first():
            return
        more: dict[str, str | int | float] = {
            "source_file": str(self.dataset.path), "redirector_checkpoint": str(checkpoint), "redirector_step": step,
            "code_revision": code_revision,
        }  # fmt: skip
        self._say_result(writer.finish(list(persons), more))

    def _begun(self, checkpoint: Path, estimator_sha256: str) -> RedirectedWriter | None:
        """None, with a sentence, if the file is complete."""
        facts = self._all_facts(checkpoint, estimator_sha256)
        if not is_complete(self.path, facts):
            return RedirectedWriter(self.path, facts, helps=not distributed.is_first())
        say(f"{self.path} is complete; it is not written again.")
        remove_parts(self.path)
        return None

    def _rows_of_persons(self) -> dict[str, np.ndarray]:
        """Person -> rows of `entries`, in order."""
        person_of = self.dataset.person_of[self.entries]
        parts = np.split(np.arange(len(person_of)), np.flatnonzero(np.diff(person_of)) + 1)
        return {self.dataset.person_ids[person_of[rows[0]]]: rows for rows in parts}

    def _load(self, batches: list[np.ndarray], workers: int) -> Iterator[dict[str, Tensor]]:
        loader = PatientLoader(
            self.dataset,
            batch_sampler=[self.entries[rows].tolist() for rows in batches],
            num_workers=workers if len(batches) > 4 else 0,
        )
        return iter(loader)

    def _redirect(
        self,
        redirector: Redirector,
        estimator: nn.Module | None,
        batch: Mapping[str, Tensor],
        rows: np.ndarray,
        device: torch.device,
    ) -> tuple[dict[str, int], dict[str, np.ndarray]]:
        """What a batch adds to its person's counts and file: each real image, then its redirected ones that pass."""
        batch, targets = batch_to_device(batch, device), torch.from_numpy(self.targets[rows]).to(device)
        redirected = redirect_batch(redirector, batch["image"], targets)
        kept = torch.ones(len(rows), 1 + targets.shape[1], dtype=torch.bool, device=device)
        kept[:, 0] = torch.from_numpy(self.is_labeled[rows])
        counts = dict.fromkeys(("left_out", "left_out_gaze", "left_out_head"), 0)
        if self.max_error is not None:
            assert estimator is not None
            # Not "error > max_error": an error that is not a number is one, too.
            off = ~(target_errors_deg(estimator, redirected, targets) <= self.max_error)
            kept[:, 1:] = ~off.any(-1)
            gaze, head = off.sum((0, 1)).tolist()
            counts = {"left_out": int(off.any(-1).sum()), "left_out_gaze": gaze, "left_out_head": head}
        images = torch.cat((batch["image"][:, None], redirected), dim=1)[kept]
        own = torch.cat((batch["gaze"], batch["head"]), dim=1)
        labels = torch.cat((own[:, None], targets), dim=1)[kept].cpu().numpy()
        real = torch.zeros(kept.shape)
        real[:, 0] = 1
        images = image_to_uint8(images) if self.images == "uint8" else images
        return counts, {
            "image": images.cpu().numpy(), "gaze": labels[:, :2], "head": labels[:, 2:],
            "real": real[kept.cpu()].numpy(),
        }  # fmt: skip

    def _say_result(self, totals: Mapping[str, int]) -> None:
        say(
            f"Wrote {self.path}: {totals['num_real']} real and {totals['num_redirected']} redirected images of "
            f"{totals['num_persons']} persons."
        )
        if self.max_error is not None:
            say(
                f"{totals['left_out']} of {self.targets[..., 0].size} redirected images were left out, more than "
                f"{self.max_error:g} degrees off: gaze in {totals['left_out_gaze']}, head in "
                f"{totals['left_out_head']}."
            )
        if not totals["num_redirected"]:
            say("warning: no redirected image is left. Raise redirected_max_error, or train the redirector for longer.")


def plan_generation(
    path: Path,
    dataset: GazeDataset,
    labeled: np.ndarray,
    *,
    seed: int,
    unlabeled: np.ndarray | None = None,
    per_sample: int = 1,
    images: Literal["uint8", "float32"] = "uint8",
    bandwidth: float = 1.0,
    truncated: bool = False,
    max_error: float | None = None,
) -> Generation:
    """Draw the targets of these entries and note what decides the file's content.

    labeled, unlabeled: entries that are redirected; the labels of the first alone say where targets are.
    Raises UserError as `draw_targets` does.
    """
    labeled = np.sort(labeled)
    entries = labeled if unlabeled is None else np.union1d(labeled, unlabeled)
    labels = dataset.labels()[labeled]
    targets = draw_targets(
        labels, per_sample, seed=seed, num_samples=len(entries), bandwidth=bandwidth, truncated=truncated
    )
    facts: dict[str, str | int | float] = {
        "format_version": FORMAT_VERSION,
        "source_sha256": source_sha256(dataset, entries),
        "targets_sha256": _targets_sha256(targets),
        "seed": seed,
        "num_labeled_samples": len(labeled),
        "image_size": dataset.image_size,
        "redirected_per_sample": per_sample,
        "redirected_images": images,
        "redirected_bandwidth": bandwidth,
        "redirected_truncated": truncated,
        "redirected_max_error": math.inf if max_error is None else max_error,
    }
    if len(entries) > len(labeled):
        facts["redirected_unlabeled_samples"] = len(entries) - len(labeled)
    return Generation(path, dataset, entries, np.isin(entries, labeled), targets, images, max_error, facts)


def source_sha256(dataset: GazeDataset, entries: np.ndarray) -> str:
    """Identity of these entries wherever the file lies: persons, rows, labels, and some images as they are seen."""
    digest = hashlib.sha256()
    persons = [dataset.person_ids[person] for person in dataset.person_of[entries]]
    digest.update("\0".join(persons).encode())
    digest.update(dataset.sample_of[entries].astype("<i8").tobytes())
    digest.update(dataset.labels()[entries].astype("<f4").tobytes())
    for entry in np.unique(entries[np.linspace(0, len(entries) - 1, LOOKED_AT).astype(int)]):
        digest.update(dataset[int(entry)]["image"].numpy().tobytes())
    return digest.hexdigest()


def _targets_sha256(targets: np.ndarray) -> str:
    # To 1e-4 rad: another machine's rounding is the same draw.
    return hashlib.sha256(np.rint(targets.astype(np.float64) * 1e4).astype("<i4").tobytes()).hexdigest()
