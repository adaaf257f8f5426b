"""Error of the compact estimators against the CPU time of their training: `python -m benchmarks.estimators`.

Each line is a training of its own by config/estimator-compact.json but for its number of steps, measured on persons
it never saw. The embedded data set is made where it is missing. CPU-seconds are those of the training steps, on one
thread: neither the decoding of the images nor the measurement counts. Further flags are settings:
`--gazecapture-file`, `--gazecapture-split` for another place of the data, `--estimator-learning-rate` and so on.
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch
from torch import Tensor, nn

from core import sources
from core.config_default import Config, unused_by
from core.config_reader import load_config
from core.estimator.build import estimator_settings, measuring_estimator, training_estimator
from core.estimator.report import Estimates, measure
from core.estimator.spec import EstimatorSpec
from core.estimator.trainer import EstimatorTrainer
from core.runtime import tune_cpu
from core.schedules import Cadence
from core.tracking import Tracker
from dataset import GazeDataset

CONFIG = Path(__file__).resolve().parent.parent / "config" / "estimator-compact.json"
CPU = torch.device("cpu")
SPECS = {"gazenet": training_estimator, "eval_gazenet": measuring_estimator}


class Decoded:
    """A data set whose images are decoded already."""

    def __init__(self, dataset: GazeDataset) -> None:
        self.name, self.path, self.image_size = dataset.name, dataset.path, dataset.image_size
        self.entries = [dataset[i] for i in range(len(dataset))]

    def __len__(self) -> int:
        return len(self.entries)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.entries[index]


def train(config: Config, spec: EstimatorSpec, train_set: Decoded) -> tuple[nn.Module, float]:
    """The trained estimator and the CPU-seconds it took."""
    trainer = EstimatorTrainer(estimator_settings(config, spec), CPU)
    with tempfile.TemporaryDirectory() as folder:
        tracker = Tracker(Path(folder), use_tensorboard=False)
        start = time.process_time()
        trainer.fit(train_set, Path(folder), Cadence(), validate=lambda _: {}, tracker=tracker, stop=[])
        return trainer.estimator, time.process_time() - start


def row(config: Config, spec: EstimatorSpec, cpu_s: float, result: Estimates) -> str:
    """A line of the table."""
    summary, cells = result.summary(), []
    for name in ("gaze", "head"):
        cells += [f"{summary[name]['mean']:.2f}", f"{summary[f'{name}_label_blind_deg']:.1f}"]
    settings = spec.backbone, config.seed, config.estimator_num_steps
    return f"| {' | '.join(map(str, settings))} | {cpu_s:.0f} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[450, 1350])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--estimators", nargs="+", choices=list(SPECS), default=list(SPECS))
    arguments, flags = parser.parse_known_args()
    tune_cpu(1)
    config = load_config([str(CONFIG), *flags], prog="benchmarks.estimators", unused=unused_by("estimator"))
    sources.make_missing_data(config)
    train_set = Decoded(sources.build_training_set(config))
    test_set = sources.open_source(config, next(source for source in sources.TESTS if source.name == "gc/test"))
    lines = [f"| backbone | seed | steps | CPU-s | gaze, {test_set.name} | label-blind | head | label-blind |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for key in arguments.estimators:
        for seed in arguments.seeds:
            for steps in arguments.steps:
                changed = config.model_copy(update={"seed": seed, "estimator_num_steps": steps})
                spec = SPECS[key](changed)
                estimator, cpu_s = train(changed, spec, train_set)
                lines.append(row(changed, spec, cpu_s, measure(estimator, test_set, CPU)))
    print("\n".join(lines))


if __name__ == "__main__":
    main()
