"""How well estimates agree with a reference: correlation, slope, bias and difference, quantity by quantity."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
from numpy import ndarray

from core.redirection.iris import eye_in_head

QUANTITIES = ("head pitch", "head yaw", "eye-in-head pitch", "eye-in-head yaw", "gaze pitch", "gaze yaw")
NEEDED = 3  # samples; of fewer no correlation is told


@dataclass(frozen=True)
class Aim:
    """What is asked for on photographs: a correlation of at least this, a slope within these."""

    correlation: float
    slope: tuple[float, float] | None = None

    def __str__(self) -> str:
        slope = "" if self.slope is None else ", slope {:g} to {:g}".format(*self.slope)
        return f"r >= {self.correlation:g}{slope}"


AIMS = {
    "head pitch": Aim(0.93, (0.85, 1.15)),
    "head yaw": Aim(0.93, (0.85, 1.15)),
    "eye-in-head yaw": Aim(0.90, (0.8, 1.2)),
    "gaze yaw": Aim(0.8),
}
INTO_CAMERA_AIM = 5.0  # degrees from (0, 0), in the mean over portraits that look into the camera


@dataclass(frozen=True)
class Agreement:
    """Of estimates with a reference, degrees.

    slope: of the estimates over the reference (least squares); below 1 they shrink to the middle.  bias: mean of
    estimate - reference.  difference: mean absolute one.
    """

    correlation: float
    slope: float
    bias: float
    difference: float


def quantities(labels: ndarray) -> ndarray:
    """(N, 6) degrees, in the order of QUANTITIES, of labels (N, 4 or more) in radians: gaze, then head."""
    gaze, head = labels[:, :2].astype(np.float64), labels[:, 2:4].astype(np.float64)
    return np.degrees(np.hstack([head, eye_in_head(gaze, head), gaze]))


def agreement(reference: ndarray, estimates: ndarray) -> Agreement:
    """Of one quantity, (N,) each. Correlation and slope are NaN where they have no meaning."""
    apart = estimates - reference
    told = len(reference) >= NEEDED and np.ptp(reference) > 0
    slope = float(np.polyfit(reference, estimates, 1)[0]) if told else np.nan
    correlation = float(np.corrcoef(reference, estimates)[0, 1]) if told and np.ptp(estimates) > 0 else np.nan
    return Agreement(correlation, slope, float(apart.mean()), float(np.abs(apart).mean()))


def agreements(reference: ndarray, estimates: ndarray) -> dict[str, Agreement]:
    """By quantity, of labels (N, 4 or more), radians."""
    columns = quantities(reference).T, quantities(estimates).T
    return {name: agreement(*pair) for name, *pair in zip(QUANTITIES, *columns, strict=True)}


def is_met(aim: Aim, found: Agreement) -> bool:
    """Whether an agreement is as asked for; NaN is not."""
    low, high = aim.slope or (-np.inf, np.inf)
    return found.correlation >= aim.correlation and low <= found.slope <= high


def mean_of(runs: Sequence[Agreement]) -> Agreement:
    """Mean over runs that differ in their seed."""
    return Agreement(**{f.name: float(np.mean([getattr(run, f.name) for run in runs])) for f in fields(Agreement)})


def table(title: str, runs: Sequence[Mapping[str, Agreement]], aims: Mapping[str, Aim] | None = None) -> str:
    """Markdown: a row a quantity; the mean over runs, and their range where there are several."""
    head = f"| {title} | r | slope | bias | difference |" + (" aim | met |" if aims else "")
    lines = [head, "|---" * (head.count("|") - 1) + "|"]
    for name in QUANTITIES:
        found = [run[name] for run in runs]
        cells = [_cell([getattr(one, f.name) for one in found], 2 - (f.name in ("bias", "difference")))
                 for f in fields(Agreement)]  # fmt: skip
        if aims:
            aim = aims.get(name)
            cells += ["", ""] if aim is None else [str(aim), "yes" if is_met(aim, mean_of(found)) else "no"]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _cell(values: Sequence[float], digits: int) -> str:
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def as_json(run: Mapping[str, Agreement]) -> dict[str, dict[str, float | None]]:
    """Plain data; what is NaN is None."""
    plain = {name: asdict(found) for name, found in run.items()}
    return {name: {k: None if np.isnan(v) else v for k, v in found.items()} for name, found in plain.items()}
