"""What redirected data is worth: errors of estimators without and with it, as a table, JSON and a plot."""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from core.figures import new_figure
from core.files import atomic_write, write_text

ANGLES = ("gaze", "head")
BASELINE = "labels alone"


@dataclass(frozen=True)
class Outcome:
    """One estimator's mean errors. variant: BASELINE, or how it was trained with redirected data.

    errors: data set -> 'gaze' or 'head' -> degrees.
    """

    num_labels: int
    seed: int
    variant: str
    errors: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Spread:
    """Mean over seeds and its standard error; the error is None for a single seed."""

    mean: float
    error: float | None

    def __str__(self) -> str:
        return f"{self.mean:.2f}" + (f" ± {self.error:.2f}" if self.error is not None else "")


def spread(values: Sequence[float]) -> Spread:
    """Of at least one value."""
    error = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else None
    return Spread(statistics.fmean(values), error)


def write_augmentation_report(folder: Path, outcomes: Sequence[Outcome], facts: Mapping[str, object]) -> Path:
    """Write augmentation.json, augmentation.md and augmentation.png; returns the Markdown file."""
    folder.mkdir(parents=True, exist_ok=True)
    single = [vars(outcome) for outcome in outcomes]
    texts = {
        "augmentation.json": json.dumps({**facts, "means": _means(outcomes), "outcomes": single}, indent=2) + "\n",
        "augmentation.md": _markdown(outcomes, facts),
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    with atomic_write(folder / "augmentation.png") as temporary:
        _draw(outcomes, temporary)
    return folder / "augmentation.md"


def differences(outcomes: Sequence[Outcome], dataset: str, angle: str, num_labels: int, variant: str) -> list[float]:
    """Error with redirected data less error without, of each seed that has both, degrees."""
    errors = {
        (outcome.seed, outcome.variant): outcome.errors[dataset][angle]
        for outcome in outcomes
        if outcome.num_labels == num_labels and dataset in outcome.errors
    }
    seeds = sorted({seed for seed, name in errors if name == variant})
    return [errors[seed, variant] - errors[seed, BASELINE] for seed in seeds if (seed, BASELINE) in errors]


def _errors(outcomes: Sequence[Outcome], dataset: str, angle: str, num_labels: int, variant: str) -> list[float]:
    return [
        outcome.errors[dataset][angle]
        for outcome in outcomes
        if (outcome.num_labels, outcome.variant) == (num_labels, variant) and dataset in outcome.errors
    ]


def _in_order(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _axes(outcomes: Sequence[Outcome]) -> tuple[list[str], list[int], list[str]]:
    """Data sets, numbers of labels and variants, the baseline first."""
    datasets = _in_order(name for outcome in outcomes for name in outcome.errors)
    variants = [BASELINE, *(v for v in _in_order(outcome.variant for outcome in outcomes) if v != BASELINE)]
    return datasets, sorted({outcome.num_labels for outcome in outcomes}), variants


def _means(outcomes: Sequence[Outcome]) -> list[dict[str, object]]:
    """A row for each data set, angle, number of labels and variant."""
    datasets, labels, variants = _axes(outcomes)
    rows = []
    for dataset, angle, count, variant in (
        (d, a, n, v) for d in datasets for a in ANGLES for n in labels for v in variants
    ):
        values = _errors(outcomes, dataset, angle, count, variant)
        if values:
            error, gains = spread(values), differences(outcomes, dataset, angle, count, variant)
            gain = spread(gains) if gains else Spread(math.nan, None)
            rows.append({
                "dataset": dataset, "angle": angle, "num_labels": count, "variant": variant, "seeds": len(values),
                "mean_deg": error.mean, "standard_error_deg": error.error,
                "difference_deg": gain.mean if gains else None, "difference_standard_error_deg": gain.error,
            })  # fmt: skip
    return rows


def _markdown(outcomes: Sequence[Outcome], facts: Mapping[str, object]) -> str:
    datasets, labels, variants = _axes(outcomes)
    lines = ["# Estimators with redirected data", "", *(f"- {key}: {value}" for key, value in facts.items()), ""]
    lines += [
        "Mean angular error in degrees, and its standard error over seeds. In brackets: the difference to "
        f"'{BASELINE}' with the same labels and seed; negative is a gain.",
        "",
    ]
    for dataset in datasets:
        for angle in ANGLES:
            lines += [f"## {dataset}, {angle}", "", f"| labels | seeds | {' | '.join(variants)} |"]
            lines += ["|---" * (len(variants) + 2) + "|"]
            lines += [_row(outcomes, dataset, angle, count, variants) for count in labels] + [""]
    return "\n".join([*lines, "![error against the number of labels](augmentation.png)", ""])


def _row(outcomes: Sequence[Outcome], dataset: str, angle: str, num_labels: int, variants: Sequence[str]) -> str:
    cells = []
    for variant in variants:
        values = _errors(outcomes, dataset, angle, num_labels, variant)
        cell = str(spread(values)) if values else "-"
        gains = differences(outcomes, dataset, angle, num_labels, variant)
        if gains and variant != BASELINE:
            gain = spread(gains)
            cell += f" ({gain.mean:+.2f}" + (f" ± {gain.error:.2f})" if gain.error is not None else ")")
        cells.append(cell)
    seeds = len(_errors(outcomes, dataset, angle, num_labels, BASELINE))
    return f"| {num_labels} | {seeds} | {' | '.join(cells)} |"


def _draw(outcomes: Sequence[Outcome], path: Path) -> None:
    """A panel a data set and angle: error against the number of labels, a line a variant."""
    datasets, labels, variants = _axes(outcomes)
    figure = new_figure((3.2 * len(datasets), 6))
    panels = figure.subplots(len(ANGLES), len(datasets), squeeze=False, sharex=True)
    for row, angle in zip(panels, ANGLES, strict=True):
        for panel, dataset in zip(row, datasets, strict=True):
            for variant in variants:
                found = {n: v for n in labels if (v := _errors(outcomes, dataset, angle, n, variant))}
                spreads = [spread(values) for values in found.values()]
                bars = [s.error or 0.0 for s in spreads]
                panel.errorbar(list(found), [s.mean for s in spreads], bars, marker="o", capsize=3, label=variant)
            panel.set(title=f"{dataset}, {angle}", xscale="log", xlabel="labels", xticks=labels)
            panel.set_xticks([], minor=True)
            panel.set_xticklabels([str(count) for count in labels])
            panel.grid(alpha=0.3)
    for row in panels:
        row[0].set_ylabel("error, degrees")
    panels[0][0].legend(fontsize="small")
    figure.savefig(path, format="png", dpi=100)
