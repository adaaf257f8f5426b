"""The experiment that redirection is for: does an estimator with few labels gain from redirected images?

For each number of labels and each seed: an estimator is trained on the labelled images alone; ST-ED is trained from
the same labels, with this estimator in its losses; the labelled images are redirected; and a second estimator, with
as many steps, is trained on real and redirected ones together. Both are measured on every test set. What is done is
not done again. Source: ST-ED, section 4.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from core import sources
from core.command import DONE, UserError
from core.config_default import Config, fixed_in_experiment, unused_by
from core.config_rules import contradictions
from core.config_types import Command
from core.distributed import require_one_process
from core.estimator import run as estimator
from core.estimator.build import measuring_estimator
from core.estimator.train import is_trained
from core.estimator.trainer import real_of_batch
from core.experiment.report import ANGLES, BASELINE, Outcome, write_augmentation_report
from core.facts import differences, refuse_differences
from core.files import clean_run, file_sha256, read_json, read_text, require_writable, taken_apart, write_json
from core.owner import Owner, own
from core.prepare import prepare as prepare_redirector
from core.runtime import code_revision
from core.tracking import say
from dataset_augmented import FILE_NAME
from models.load_pretrained_model import find_estimator_checkpoint

MIN_LABELS = 5  # for a density of four angles


@dataclass(frozen=True)
class Cell:
    """One number of labels and one seed: the stages, each a configuration of its own."""

    config: Config
    num_labels: int
    seed: int

    @property
    def folder(self) -> Path:
        return Path(self.config.save_path) / f"labels_{self.num_labels}" / f"seed_{self.seed}"

    def estimator(self, variant: str) -> Config:
        """Trains an estimator on the labels alone, or with the variant's redirected images, too."""
        settings: dict[str, object] = {"gazenet_savepath": str(self.estimator_folder(variant)), "estimator": "gazenet"}
        if variant == BASELINE:
            settings |= {"estimator_num_labeled_samples": self.num_labels, "redirected_file": "."}
        else:
            settings |= {"redirected_file": str(self.redirected_file(variant))}
        return self._with(settings | self._own_settings(variant))

    def redirector(self) -> Config:
        """Trains ST-ED from the labels, with the estimator that knows no others in its losses."""
        return self._with(self._redirector_settings())

    def redirection(self, variant: str) -> Config:
        """Redirects the labelled images by the trained ST-ED."""
        settings = self._redirector_settings() | {
            "skip_training": True, "load_step": self.config.num_training_steps, "compute_full_result": False,
            "store_redirect_dataset": True, "redirected_file": str(self.redirected_file(variant)),
        }  # fmt: skip
        return self._with(settings | self._own_settings(variant))

    def estimator_folder(self, variant: str) -> Path:
        return self.folder / ("baseline" if variant == BASELINE else f"variant_{_slug(variant)}")

    def redirected_file(self, variant: str) -> Path:
        return self.estimator_folder(variant) / FILE_NAME

    def _redirector_settings(self) -> dict[str, object]:
        return {
            "semi_supervised": True, "num_labeled_samples": self.num_labels, "store_redirect_dataset": False,
            "gazenet_savepath": str(self.estimator_folder(BASELINE)), "save_path": str(self.folder / "redirector"),
        }  # fmt: skip

    def _own_settings(self, variant: str) -> dict[str, object]:
        return dict(self.config.augmentation_variants.get(variant, {}))

    def _with(self, settings: dict[str, object]) -> Config:
        own = {"seed": self.seed, "augmentation_labels": ()}
        return Config(**self.config.model_dump() | own | settings)

    def outcome(self, variant: str) -> Outcome:
        """What the estimator's own evaluation found."""
        report = read_json(_report_file(self.estimator_folder(variant)))
        errors = {name: {a: row[a]["mean"] for a in ANGLES} for name, row in report["datasets"].items()}
        return Outcome(self.num_labels, self.seed, variant, errors)


@dataclass(frozen=True)
class Experiment:
    """All cells of a configuration, checked before anything is written."""

    config: Config
    cells: list[Cell]
    owner: Owner

    @property
    def folder(self) -> Path:
        return Path(self.config.save_path)

    def whereabouts(self) -> str:
        """Nothing to be said beside an error: what is done is not done again."""
        return ""

    def go(self) -> int:
        """Every stage that is not done, and the report after each cell; returns the exit code, 130 if stopped."""
        with self.owner:
            return self._go()

    def _go(self) -> int:
        _note_settings(self.config, self.folder / "experiment.json")
        clean_run(self.folder)
        for i, cell in enumerate(self.cells, 1):
            say(f"\n=== {cell.num_labels} labels, seed {cell.seed} ({i} of {len(self.cells)}) ===")
            for code in _stages(cell):
                if code:
                    return code
            report = self._report([cell for cell in self.cells if _is_done(cell)])
        say(f"\n{read_text(report)}\nReport: {report}")
        return DONE

    def _report(self, cells: Sequence[Cell]) -> Path:
        config = self.config
        outcomes = [cell.outcome(variant) for cell in cells for variant in (BASELINE, *config.augmentation_variants)]
        facts = {
            "data": config.gazecapture_file,
            "drawn faces": config.synthetic_data,
            "seeds": [*dict.fromkeys(cell.seed for cell in cells)],
            "steps of each estimator": config.estimator_num_steps,
            "steps of each redirector": config.num_training_steps,
            "variants": {name: dict(settings) for name, settings in config.augmentation_variants.items()},
            "code revision": code_revision(),
        }
        return write_augmentation_report(self.folder, outcomes, facts)


def prepare(config: Config) -> Experiment:
    """Check settings and data; makes the embedded data set where it is missing, and writes nothing else.

    Raises UserError or OSError with a message for the user.
    """
    require_one_process("augmentation.py")
    if problems := refusals(config):
        raise UserError("\n".join(problems))
    require_writable(config.save_path, "save_path")
    owner = own(Path(config.save_path), "save_path")
    with owner.released_on_error():
        return _prepare(config, owner)


def _prepare(config: Config, owner: Owner) -> Experiment:
    _refuse_other_settings(config, Path(config.save_path) / "experiment.json")
    sources.make_missing_data(config, faces=sources.wants_faces(config))
    available, wanted = len(sources.build_training_set(config)), max(config.augmentation_labels)
    if wanted > available:
        raise UserError(f"augmentation_labels: {wanted} labels asked for, {available} in the data. Set fewer.")
    for name in config.augmentation_variants:
        check_number_of_images(config, name, available)
    cells = [Cell(config, n, seed) for seed in config.augmentation_seeds for n in config.augmentation_labels]
    return Experiment(config, cells, owner)


def refusals(config: Config) -> list[str]:
    """What cannot be used, before hours of training find it out."""
    return (_contradictions(config) or _contradictions_of_stages(config)) + _problems_of_experiment(config)


def _contradictions(config: Config) -> list[str]:
    """Of the settings as they are given."""
    return [f"'{key}' {problem}" for key, problem in contradictions(config, unused_by("experiment"))]


def _contradictions_of_stages(config: Config) -> list[str]:
    """Of the settings that each stage will have."""
    cell = Cell(config, max(config.augmentation_labels), seed=0)
    stages: list[tuple[str, Config, Command]] = [
        ("", cell.estimator(BASELINE), "estimator"),
        ("", cell.redirector(), "train"),
    ]
    for name in config.augmentation_variants:
        where = f"augmentation_variants[{name!r}]: "
        stages += [(where, cell.redirection(name), "train"), (where, cell.estimator(name), "estimator")]
    found: dict[tuple[str, str], str] = {}  # what is said of the settings for all is not said of each variant, too
    for where, settings, command in stages:
        for problem in contradictions(settings, unused_by(command)):
            found.setdefault(problem, where)
    return [f"{where}'{key}' {problem}" for (key, problem), where in found.items()]


def check_number_of_images(config: Config, variant: str, available: int) -> None:
    """Raises UserError if a variant asks for more images than there are, or can never fill a batch."""
    for num_labels in config.augmentation_labels:
        own = Cell(config, num_labels, seed=0).estimator(variant)
        where, unlabeled = f"augmentation_variants[{variant!r}]", own.redirected_unlabeled_samples
        if num_labels + unlabeled > available:
            raise UserError(
                f"{where}: {unlabeled} redirected_unlabeled_samples asked for beside {num_labels} labelled ones, "
                f"{available} samples in the data. Set at most {available - num_labels}."
            )
        redirected, size = (num_labels + unlabeled) * own.redirected_per_sample, own.estimator_batch_size
        most = {"real": num_labels, "redirected": redirected, "both": num_labels + redirected}[own.redirected_use]
        num_real = 0 if own.estimator_real_share is None else real_of_batch(own.estimator_real_share, size)
        if most < size or num_labels < num_real or (num_real and redirected < size - num_real):
            raise UserError(
                f"{where}: {num_labels} real and at most {redirected} redirected images with {num_labels} labels do "
                f"not fill a batch of {size} as asked for. Lower estimator_batch_size, or make more."
            )


def _problems_of_experiment(config: Config) -> list[str]:
    """Of labels, seeds, variants' names and the estimator that measures."""
    labels, folders = config.augmentation_labels, [_slug(name) for name in config.augmentation_variants]
    least = max(config.estimator_batch_size, config.batch_size, MIN_LABELS)
    measuring = measuring_estimator(config)
    is_there = measuring.is_named and (config.train_missing_estimators or measuring.checkpoint() is not None)
    rules = {
        "augmentation_seeds: names no seed, or one twice.": not _are_distinct(config.augmentation_seeds),
        "augmentation_labels: names a number twice; name each once.": not _are_distinct(labels),
        f"augmentation_labels: {min(labels)} labels do not fill a batch; at least {least} are needed (the larger of "
        "estimator_batch_size and batch_size).": min(labels) < least,
        f"augmentation_variants: none may be called '{BASELINE}'.": BASELINE in config.augmentation_variants,
        "augmentation_variants: two names differ in signs alone, which folders do not keep; name them apart.": len(
            set(folders)
        )
        < len(folders),
        "eval_gazenet_savepath: no estimator there that measures; train it (train_facenet.py --estimator "
        "eval_gazenet), or set train_missing_estimators.": not is_there,
        "skip_training, load_step: the experiment trains its redirectors itself; leave them out.": (
            config.skip_training or config.load_step > 0
        ),
        "evaluate_only: the experiment trains and measures; leave it out.": config.evaluate_only,
    }
    return [problem for problem, is_wrong in rules.items() if is_wrong]


def _are_distinct(values: Sequence[int]) -> bool:
    return 0 < len(values) == len(set(values))


def _is_done(cell: Cell) -> bool:
    return all(_is_measured(cell.estimator_folder(v)) for v in (BASELINE, *cell.config.augmentation_variants))


def _stages(cell: Cell) -> Iterator[int]:
    """Exit codes of the stages that are not done yet, one by one."""
    if not _is_measured(cell.estimator_folder(BASELINE)):
        yield estimator.prepare(cell.estimator(BASELINE)).go()
    for variant in cell.config.augmentation_variants:
        if _is_measured(cell.estimator_folder(variant)):
            continue
        checkpoint = cell.folder / "redirector" / "checkpoints" / f"{cell.config.num_training_steps}.pt"
        if not checkpoint.is_file():
            yield prepare_redirector(cell.redirector()).go()
        yield prepare_redirector(cell.redirection(variant)).go()
        yield estimator.prepare(cell.estimator(variant)).go()


def _is_measured(folder: Path) -> bool:
    """Whether the folder holds a finished estimator and the measurement of just that."""
    report, file = _report_file(folder), find_estimator_checkpoint(folder)
    if file is None or not is_trained(folder) or not report.is_file():
        return False
    with taken_apart(report, "Remove it; it is made again."):
        return read_json(report)["sha256"] == file_sha256(file)


def _report_file(folder: Path) -> Path:
    return folder / "evaluation" / "report.json"


def _settings(config: Config) -> dict[str, object]:
    """What decides the results, but for the variants."""
    return {key: value for key, value in json.loads(config.to_json()).items() if key in fixed_in_experiment()}


def _refuse_other_settings(config: Config, path: Path) -> None:
    """Raises UserError if the folder holds an experiment that was made with other settings."""
    if not path.is_file():
        return
    with taken_apart(path, "Remove it if nothing else in its folder is to be kept, or choose another save_path."):
        before = read_json(path)
        changed = differences(before["settings"], _settings(config), only_known=True)
        variants = differences(before["variants"], config.augmentation_variants, only_known=True)
    changed += [f"augmentation_variants[{name!r}]" for name in variants]
    remedy = "Set them back, or choose another save_path."
    refuse_differences(changed, "save_path", f"{path.parent} holds an experiment", remedy)


def _note_settings(config: Config, path: Path) -> None:
    known = read_json(path)["variants"] if path.is_file() else {}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"settings": _settings(config), "variants": known | dict(config.augmentation_variants)})


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() else "_" for letter in name)
