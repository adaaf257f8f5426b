"""Measures a redirector, by an estimator that took no part in its training. Source: ST-ED, section 4.

Every figure is a mean over samples, so the batch size does not change it; pairs and perturbations are
functions of the seed and of the image's index.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from core.batches import evaluation_pairs
from core.command import UserError
from core.distributed import of_all, rank, size
from core.loading import PatientLoader
from core.tracking import progress_bar
from dataset import GazeDataset
from dataset_aligned import moved_crop
from models.arcface import ArcFace, align_points, face_crop
from models.geometry import angular_error_deg, pitchyaw_to_vector, vector_to_pitchyaw
from models.recrop import look
from models.redirector import Encoding, Redirector, joined
from utils import batch_to_device, image_to_float

PERTURBATION = 0.1 * np.pi
GALLERY_PER_PERSON = 100
GALLERY_SIDE = 32
DECODE_AT_ONCE = 64


@dataclass(frozen=True)
class Measurements:
    """Per-sample values of one data set: metric name -> (M,) float64, NaN where a sample has no such value.

    pairs: (M, 2), the images they are of.  person: (M,).
    """

    name: str
    pairs: np.ndarray
    person: np.ndarray
    values: Mapping[str, np.ndarray]

    def summary(self) -> dict[str, dict[str, float]]:
        """Metric -> mean, standard error of the mean over samples, and count, of the samples that have it."""
        rows = {}
        for name, value in self.values.items():
            value = value[~np.isnan(value)]
            if len(value):
                error = float(value.std(ddof=1) / np.sqrt(len(value))) if len(value) > 1 else 0.0
                rows[name] = {"mean": float(value.mean()), "standard_error": error, "count": len(value)}
        return rows

    def tags(self) -> dict[str, float]:
        """Means under their TensorBoard tags."""
        return {f"{self.name}/{name}": row["mean"] for name, row in self.summary().items()}

    def ratio(self, metric: str, baseline: str) -> float:
        """Mean of one metric over the mean of another."""
        return float(self.values[metric].mean() / self.values[baseline].mean())


@torch.no_grad()
def evaluate(
    redirector: Redirector,
    estimator: nn.Module,
    dataset: GazeDataset,
    *,
    seed: int,
    fraction: float = 1.0,
    batch_size: int = 32,
    disentanglement: bool = True,
    pictures: bool = True,
    within_group: bool = False,
    lpips: nn.Module | None = None,
    arcface: ArcFace | None = None,
    device: torch.device = torch.device("cpu"),
    workers: int = 0,
) -> Measurements:
    """Redirect each image of the data set, or a fraction of them, to the labels of a partner of the same person.

    disentanglement: also perturb each factor and measure what else moves.
    pictures: also compare with the person's mean image and ask whether the identity is kept.
    within_group: see `evaluation_pairs`.
    """
    redirector.eval()
    pairs = evaluation_pairs(dataset, seed=seed, fraction=fraction, alone=False, within_group=within_group)
    if not len(pairs):
        raise UserError(
            f"{dataset.path}: no person has two images, so there is nothing to redirect to.",
            remedy="Use a file, or a part of the split, whose persons have more.",
        )
    gallery = Gallery(dataset, seed, device) if pictures else None
    blind = mean_direction(dataset.labels()[pairs[:, 1]], device)
    collected: dict[str, list[Tensor]] = {}
    taken = [np.empty(0, int)]
    for rows, batch in _batches(dataset, pairs, batch_size, device, workers):
        noise = perturbations(redirector, seed, pairs[rows, 0], device) if disentanglement else None
        values = measure(redirector, estimator, batch, noise=noise, lpips=lpips, arcface=arcface)
        values |= _baselines(estimator, batch, blind)
        if gallery is not None:
            values |= gallery.compare(values.pop("image_b_hat"), batch["image_b"], pairs[rows])
        for name in [name for name in values if name.startswith("image")]:
            del values[name]
        for name, value in values.items():
            collected.setdefault(name, []).append(value)
        taken.append(np.arange(rows.start, rows.stop))
    mine = {name: torch.cat(parts).double().cpu().numpy() for name, parts in collected.items()}
    values_of_all = _in_place(np.concatenate(taken), mine, len(pairs))
    return Measurements(dataset.name, pairs, dataset.person_of[pairs[:, 0]], values_of_all)


def _in_place(rows: np.ndarray, mine: Mapping[str, np.ndarray], count: int) -> dict[str, np.ndarray]:
    """What all processes measured, each at some rows; the first has all names."""
    parts = of_all((rows, mine))
    whole = {name: np.full(count, np.nan) for name in parts[0][1]}
    for taken, values in parts:
        for name, value in values.items():
            whole[name][taken] = value
    return whole


def measure(
    redirector: Redirector,
    estimator: nn.Module,
    batch: Mapping[str, Tensor],
    *,
    noise: Mapping[str, Tensor] | None = None,
    lpips: nn.Module | None = None,
    arcface: ArcFace | None = None,
) -> dict[str, Tensor]:
    """ST-ED's metrics of one batch, each (B,): degrees, or mean absolute pixel difference.

    arcface: of aligned faces, also the cosine of redirected and target face; None leaves it out.

    noise: factor name -> (B, dof) radians added to the conditions; None leaves disentanglement out.
    Also returns the images `image_b_hat` (gaze and head rotated to b's labels) and `image_b_hat_all`
    (all factors rotated to b's estimated conditions).
    """
    image_b = batch["image_b"]
    a, b = redirector.encode_pair(batch)
    still = redirector.canonical(a)
    values = {f"{name}_a": angular_error_deg(a.conditions[name], batch[f"{name}_a"]) for name in ("gaze", "head")}
    to_labels = redirector.rotate(a, {"gaze": batch["gaze_b"], "head": batch["head_b"]}, still)
    images = {
        "image_b_hat": redirector.decode(to_labels),
        "image_b_hat_all": redirector.decode(redirector.rotate(a, b.conditions, still)),
    }
    seen = look(estimator, images["image_b_hat"], batch.get("crop_b"))
    values["gaze_redirection"] = angular_error_deg(seen.gaze, batch["gaze_b"])
    values["head_redirection"] = angular_error_deg(seen.head, batch["head_b"])
    for image, suffix in ((images["image_b_hat"], ""), (images["image_b_hat_all"], "_all")):
        values["l1" + suffix] = (image - image_b).abs().mean(dim=(1, 2, 3))
        if lpips is not None:
            values["lpips" + suffix] = lpips(image, image_b).flatten()
    if noise is not None:
        values |= _induced_errors(redirector, estimator, a, noise, batch.get("crop_a"))
    if arcface is not None and "points_b" in batch:
        place = align_points(batch["points_b"])
        faces = [arcface(face_crop(image, place)) for image in (images["image_b_hat"], image_b)]
        values["identity_similarity"] = nn.functional.cosine_similarity(*faces)
    return values | images


def _induced_errors(
    redirector: Redirector, estimator: nn.Module, a: Encoding, noise: Mapping[str, Tensor], crop: Tensor | None
) -> dict[str, Tensor]:
    """How far gaze and head move against the reconstruction when another factor is perturbed; (B,) degrees.

    crop: of the source, where images are aligned faces; it moves along with the head.
    """
    moved = redirector.rotate(a, {name: a.conditions[name] + delta for name, delta in noise.items()})
    perturbed = [a.with_factor(name, moved) for name in noise]
    every, size = joined([a, *perturbed]), len(a.conditions["gaze"])
    # Small batches of small images are joined, others not made larger.
    rows = size if crop is not None else max(size, DECODE_AT_ONCE)
    parts = [slice(start, start + rows) for start in range(0, size * (1 + len(noise)), rows)]
    crops = None
    if crop is not None:
        before = a.conditions["head"]
        crops = torch.cat([moved_crop(crop, before, e.conditions["head"]) for e in (a, *perturbed)])
    seen = [look(estimator, redirector.decode(every[part]), None if crops is None else crops[part]) for part in parts]
    gaze, *gaze_moved = torch.cat([estimate.gaze for estimate in seen]).chunk(1 + len(noise))
    head, *head_moved = torch.cat([estimate.head for estimate in seen]).chunk(1 + len(noise))
    by_gaze = {name: angular_error_deg(gaze, moved) for name, moved in zip(noise, gaze_moved, strict=True)}
    by_head = {name: angular_error_deg(head, moved) for name, moved in zip(noise, head_moved, strict=True)}
    values = {"head_to_gaze": by_gaze["head"], "gaze_to_head": by_head["gaze"]}
    others = [name for name in noise if name not in ("gaze", "head")]
    if others:
        values["gaze_disentangle"] = torch.stack([by_gaze[name] for name in others]).mean(0)
        values["head_disentangle"] = torch.stack([by_head[name] for name in others]).mean(0)
    return values


def perturbations(redirector: Redirector, seed: int, indices: np.ndarray, device: torch.device) -> dict[str, Tensor]:
    """Factor name -> (B, dof), uniform in +-0.1 pi, a function of the seed and of each image's index."""
    steered = [factor for factor in redirector.factors if factor.dof]
    width = sum(factor.dof for factor in steered)
    drawn = [np.random.default_rng([seed, 1, int(i)]).uniform(-PERTURBATION, PERTURBATION, width) for i in indices]
    parts = torch.from_numpy(np.array(drawn, dtype=np.float32)).to(device).split([f.dof for f in steered], dim=1)
    return dict(zip([factor.name for factor in steered], parts, strict=True))


def mean_direction(labels: np.ndarray, device: torch.device) -> dict[str, Tensor]:
    """The best guess of one who ignores the labels: the mean gaze and head direction, (2,) radians each."""
    angles = torch.from_numpy(labels).to(device)
    parts = {"gaze": angles[:, 0:2], "head": angles[:, 2:4]}
    return {name: vector_to_pitchyaw(pitchyaw_to_vector(part).mean(0)) for name, part in parts.items()}


def _baselines(estimator: nn.Module, batch: Mapping[str, Tensor], blind: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """What the errors are to be compared with; (B,) degrees each.

    *_pair_angle: between the labels of source and target.  *_no_redirection: the source image handed back.
    *_label_blind: the mean direction, whatever is asked for.  *_real_target: the estimator's own error.
    """
    # Both through the target's crop, as the redirected image: of an aligned face it tells something of the head.
    source, target = (look(estimator, batch[f"image_{which}"], batch.get("crop_b")) for which in "ab")
    values = {"l1_no_redirection": (batch["image_a"] - batch["image_b"]).abs().mean(dim=(1, 2, 3))}
    for name, seen_a, seen_b in (("gaze", source.gaze, target.gaze), ("head", source.head, target.head)):
        wanted = batch[f"{name}_b"]
        values[f"{name}_pair_angle"] = angular_error_deg(batch[f"{name}_a"], wanted)
        values[f"{name}_no_redirection"] = angular_error_deg(seen_a, wanted)
        values[f"{name}_label_blind"] = angular_error_deg(blind[name].expand_as(wanted), wanted)
        values[f"{name}_real_target"] = angular_error_deg(seen_b, wanted)
    return values


class Gallery:
    """Up to 100 images of each person: the person's mean image, and who a picture looks like most."""

    def __init__(self, dataset: GazeDataset, seed: int, device: torch.device) -> None:
        random = np.random.default_rng([seed, 2])
        self.person_of, chosen = dataset.person_of, []
        means = []
        for person, (start, end) in enumerate(zip(dataset.person_start, dataset.person_start[1:], strict=False)):
            picked = start + random.permutation(end - start)[:GALLERY_PER_PERSON]
            images = image_to_float(torch.stack([dataset[int(i)]["image"] for i in picked]).to(device))
            means.append(images.mean(0))
            chosen.append((picked, _thumbnail(images), np.full(len(picked), person)))
        self.means = torch.stack(means)
        self.indices = torch.from_numpy(np.concatenate([c[0] for c in chosen])).to(device)
        self.thumbnails = torch.cat([c[1] for c in chosen])
        self.persons = torch.from_numpy(np.concatenate([c[2] for c in chosen])).to(device)

    def compare(self, image_hat: Tensor, image_b: Tensor, pairs: np.ndarray) -> dict[str, Tensor]:
        """(B,): L1 of the person's mean image, and 1 where the nearest other image is of the right person.

        Identity is NaN where it cannot be told: fewer than three images of the person, or no other person.
        """
        persons = torch.from_numpy(self.person_of[pairs[:, 0]]).to(image_b.device).long()
        return {
            "l1_person_mean": (self.means[persons] - image_b).abs().mean(dim=(1, 2, 3)),
            "identity_kept": self._is_nearest(image_hat, persons, pairs),
            "identity_real_target": self._is_nearest(image_b, persons, pairs),
        }

    def _is_nearest(self, images: Tensor, persons: Tensor, pairs: np.ndarray) -> Tensor:
        """Nearest by pixels at 32 px among the gallery without source and target themselves."""
        distance = torch.cdist(_thumbnail(images.clamp(-1, 1)), self.thumbnails, p=1)
        for own in torch.from_numpy(pairs).to(images.device).unbind(1):
            distance = distance.masked_fill(own[:, None] == self.indices[None], torch.inf)
        told = (self.persons.bincount()[persons] > 2) & (len(self.means) > 1)
        return torch.where(told, (self.persons[distance.argmin(1)] == persons).double(), torch.nan)


def _thumbnail(images: Tensor) -> Tensor:
    return nn.functional.adaptive_avg_pool2d(images, GALLERY_SIDE).flatten(1)


def _batches(
    dataset: GazeDataset, pairs: np.ndarray, batch_size: int, device: torch.device, workers: int
) -> Iterator[tuple[slice, dict[str, Tensor]]]:
    """In order, with the rows that each is; of several processes, every so many-th."""
    rows = [tuple(pair) for pair in pairs.tolist()]
    starts = range(0, len(rows), batch_size)[rank() % size() :: size()]
    loader = PatientLoader(
        dataset,
        batch_sampler=[rows[start : start + batch_size] for start in starts],
        num_workers=workers if len(pairs) > 4 * batch_size else 0,
    )
    bar = progress_bar(len(pairs), 0, f"evaluating {dataset.name}", unit="pair", leave=False)
    for start, batch in zip(starts, loader, strict=True):
        count = len(batch["image_a"])
        yield slice(start, start + count), batch_to_device(batch, device)
        bar.update(count * size())
    bar.close()
