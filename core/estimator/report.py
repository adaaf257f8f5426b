"""Measures a gaze and head estimator and writes what it found: report.json, report.md and plots."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from core.figures import new_figure
from core.files import atomic_write, write_text
from core.loading import PatientLoader
from core.tracking import progress_bar
from dataset import GazeDataset
from models.geometry import angular_error_deg, pitchyaw_to_vector, vector_to_pitchyaw
from utils import image_to_float

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ANGLES = {"gaze": slice(0, 2), "head": slice(2, 4)}  # columns of a row of labels
COLUMNS = {("gaze", "yaw"): 1, ("gaze", "pitch"): 0, ("head", "yaw"): 3, ("head", "pitch"): 2}
COLOURS = {"gaze": "tab:blue", "head": "tab:orange"}
NUM_BINS = 15
MIN_PER_BIN = 5
MANY_POINTS = 3000  # from here on single points would hide one another


@dataclass(frozen=True)
class Estimates:
    """What an estimator says of images of one data set.

    persons: ids.  person: (M,), an index into them.
    labels, angles: (M, 4) float64, true and estimated gaze pitch, yaw, head pitch, yaw in radians.
    """

    name: str
    persons: Sequence[str]
    person: np.ndarray
    labels: np.ndarray
    angles: np.ndarray

    def errors_deg(self, factor: str) -> np.ndarray:
        """(M,) angle between the true and the estimated direction of 'gaze' or 'head'."""
        true, seen = (torch.from_numpy(angles[:, ANGLES[factor]]) for angles in (self.labels, self.angles))
        return angular_error_deg(seen, true).numpy()

    def blind_errors_deg(self, factor: str) -> np.ndarray:
        """(M,) errors of one who does not look: always the mean true direction."""
        true = torch.from_numpy(self.labels[:, ANGLES[factor]])
        mean = vector_to_pitchyaw(pitchyaw_to_vector(true).mean(0))
        return angular_error_deg(mean.expand_as(true), true).numpy()

    def means(self) -> dict[str, float]:
        """gaze_deg and head_deg, means over all samples, and the number of samples."""
        errors = {f"{factor}_deg": float(self.errors_deg(factor).mean()) for factor in ANGLES}
        return errors | {"samples": len(self.person)}

    def summary(self) -> dict[str, object]:
        """Statistics of both errors over all samples, and by person."""
        errors = {factor: self.errors_deg(factor) for factor in ANGLES}
        whole = {factor: statistics(values) for factor, values in errors.items()}
        blind = {f"{factor}_label_blind_deg": float(self.blind_errors_deg(factor).mean()) for factor in ANGLES}
        rows = {self.persons[index]: self.person == index for index in np.unique(self.person)}
        by_person = {
            person: {"samples": int(own.sum())} | {factor: statistics(values[own]) for factor, values in errors.items()}
            for person, own in rows.items()
        }
        return {"samples": len(self.person), "persons": len(rows), **whole, **blind, "by_person": by_person}


def statistics(errors: np.ndarray) -> dict[str, float]:
    """Mean, median and 95th percentile of errors in degrees."""
    median, p95 = np.percentile(errors, (50, 95))
    return {"mean": float(errors.mean()), "median": float(median), "p95": float(p95)}


@torch.no_grad()
def measure(
    estimator: nn.Module,
    dataset: GazeDataset,
    device: torch.device,
    *,
    batch_size: int = 128,
    num_workers: int = 0,
    entries: np.ndarray | None = None,
) -> Estimates:
    """Estimate all images of a data set, or some entries, in evaluation mode; the mode is put back afterwards."""
    entries = np.arange(len(dataset)) if entries is None else entries
    parts = np.array_split(entries, math.ceil(len(entries) / batch_size))
    was_training = estimator.training
    estimator.eval()
    loader = PatientLoader(
        dataset,
        batch_sampler=[part.tolist() for part in parts],
        num_workers=num_workers if len(parts) > 4 else 0,
        generator=torch.Generator(),  # a loader draws a seed, and the global random state is not ours to move
    )
    bar, angles = progress_bar(len(entries), 0, f"measuring on {dataset.name}", unit="image", leave=False), []
    for batch in loader:
        estimate = estimator(image_to_float(batch["image"].to(device)))
        angles.append(torch.cat((estimate.gaze, estimate.head), dim=1).double().cpu())
        bar.update(len(angles[-1]))
    bar.close()
    estimator.train(was_training)
    labels = dataset.labels()[entries].astype(np.float64)
    return Estimates(dataset.name, dataset.person_ids, dataset.person_of[entries], labels, torch.cat(angles).numpy())


def write_evaluation(folder: Path, results: Sequence[Estimates], facts: Mapping[str, object]) -> Path:
    """Write report.json, report.md and two plots a data set; facts go into both reports. Returns report.md."""
    folder.mkdir(parents=True, exist_ok=True)
    summaries = {result.name: result.summary() for result in results}
    texts = {
        "report.json": json.dumps({**facts, "datasets": summaries}, indent=2) + "\n",
        "report.md": _markdown(summaries, facts),
    }
    for result in results:
        for kind, draw in (("errors", error_figure), ("angles", angle_figure)):
            with atomic_write(folder / plot_name(result.name, kind)) as temporary:
                draw(result).savefig(temporary, format="png", dpi=100)
    for name, text in reversed(texts.items()):  # report.json last: it says that the rest is there
        write_text(folder / name, text)
    return folder / "report.md"


def plot_name(dataset: str, kind: str) -> str:
    return f"{dataset.replace('/', '-')}_{kind}.png"


def table(summaries: Mapping[str, Mapping], first: str = "data set") -> str:
    """Markdown: a row a data set or person, statistics of gaze and head error in degrees."""
    names = [f"{factor} {kind}" for factor in ANGLES for kind in ("mean", "median", "p95")]
    lines = [f"| {first} | samples | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for name, row in summaries.items():
        cells = [f"{row[factor][kind]:.2f}" for factor in ANGLES for kind in ("mean", "median", "p95")]
        lines.append(f"| {name} | {row['samples']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _markdown(summaries: Mapping[str, Mapping], facts: Mapping[str, object]) -> str:
    lines = ["# Evaluation of an estimator", "", *(f"- {key}: {value}" for key, value in facts.items()), ""]
    lines += ["Angles between true and estimated direction, degrees; p95 is the 95th percentile.", ""]
    lines += [table(summaries), ""]
    for name, summary in summaries.items():
        blind = ", ".join(f"{factor} {summary[f'{factor}_label_blind_deg']:.2f}" for factor in ANGLES)
        lines += [f"## {name}", "", f"Always answering the mean direction would give {blind} degrees.", ""]
        lines += [f"![{kind}]({plot_name(name, kind)})" for kind in ("errors", "angles")]
        lines += ["", table(summary["by_person"], "person"), ""]
    return "\n".join(lines)


def error_figure(estimates: Estimates) -> "Figure":
    """Gaze and head error against true yaw and pitch: mean and middle half of each bin, and how many images."""
    figure = _figure(estimates, "error against the true angle (grey: how many images)", (10, 7))
    panels = figure.subplots(2, 2)
    for panel, ((factor, angle), column) in zip(panels.flat, COLUMNS.items(), strict=True):
        true, errors = np.rad2deg(estimates.labels[:, column]), estimates.errors_deg(factor)
        _draw_counts(panel, true)
        centres, means, low, high = binned(true, errors)
        panel.fill_between(centres, low, high, color=COLOURS[factor], alpha=0.25, label="middle half of the images")
        panel.plot(centres, means, "o-", color=COLOURS[factor], label="mean")
        panel.axhline(errors.mean(), color="0.4", linestyle="--", linewidth=1, label=f"overall {errors.mean():.2f}°")
        panel.set_ylim(0, 1.2 * max([errors.mean(), *high]))  # room for the legend
        panel.set(xlabel=f"true {factor} {angle} (degrees)", ylabel=f"{factor} error (degrees)")
        panel.legend(loc="upper center", ncols=3, fontsize=8, frameon=False)
    return figure


def angle_figure(estimates: Estimates) -> "Figure":
    """Estimated against true yaw and pitch of gaze and head."""
    figure = _figure(estimates, "estimated against true angle", (9, 8.5))
    for panel, ((factor, angle), column) in zip(figure.subplots(2, 2).flat, COLUMNS.items(), strict=True):
        true, seen = (np.rad2deg(angles[:, column]) for angles in (estimates.labels, estimates.angles))
        low, high = min(true.min(), seen.min()), max(true.max(), seen.max())
        margin = max(0.04 * (high - low), 1.0)
        limits = low - margin, high + margin
        panel.plot(limits, limits, color="black", linewidth=1, linestyle="--", zorder=3)
        _draw_points(panel, true, seen, limits, COLOURS[factor])
        panel.set(xlim=limits, ylim=limits, aspect="equal")
        panel.set(xlabel=f"true {factor} {angle} (degrees)", ylabel=f"estimated {factor} {angle} (degrees)")
        difference = f"mean |difference| {np.abs(seen - true).mean():.2f}°, bias {(seen - true).mean():+.2f}°"
        panel.set_title(difference, fontsize=9)
    return figure


def binned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Centres of equal bins of x, and mean and quartiles of y in those that hold enough samples to tell."""
    edges = np.linspace(x.min(), x.max(), NUM_BINS + 1)
    place = np.clip(np.digitize(x, edges) - 1, 0, NUM_BINS - 1)
    told = [i for i in range(NUM_BINS) if (place == i).sum() >= MIN_PER_BIN]
    parts = [y[place == i] for i in told]
    centres = (edges[:-1] + edges[1:])[told] / 2
    low, high = (np.array([np.percentile(part, q) for part in parts]) for q in (25, 75))
    return centres, np.array([part.mean() for part in parts]), low, high


def _figure(estimates: Estimates, what: str, size: tuple[float, float]) -> "Figure":
    figure = new_figure(size)
    count = len(np.unique(estimates.person))
    figure.suptitle(f"{estimates.name}: {what}; {len(estimates.person)} images of {count} persons")
    return figure


def _draw_counts(panel: "Axes", values: np.ndarray) -> None:
    """A histogram along the bottom, behind the curves."""
    behind = panel.twinx()
    counts, _, _ = behind.hist(values, NUM_BINS, color="0.88")
    behind.set_ylim(0, 4 * np.max(counts))
    behind.set_yticks([])
    panel.set_zorder(behind.get_zorder() + 1)
    panel.patch.set_visible(False)


def _draw_points(panel: "Axes", true: np.ndarray, seen: np.ndarray, limits: tuple[float, float], colour: str) -> None:
    if len(true) < MANY_POINTS:
        panel.scatter(true, seen, s=10, alpha=0.5, linewidths=0, color=colour)
    else:
        panel.hist2d(true, seen, bins=120, range=(limits, limits), cmin=1, norm="log", cmap="viridis")
