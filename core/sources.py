"""Config to data: which files are read, for what, and in which order."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from core.batches import PairSampler, find_groups, labeled_subset
from core.command import UserError
from core.config_default import Config, ignored_by, is_set
from core.distributed import own_rows, size
from core.experiment.redirected import Generation, plan_generation
from core.loading import PatientLoader
from core.sense import require_sense
from core.tracking import say
from dataset import GazeDataset, PersonImages, knows_gaze, list_persons, load_person_split, read_person_split
from dataset_aligned import AlignedDataset
from dataset_augmented import FILE_NAME, RedirectedDataset


@dataclass(frozen=True)
class Source:
    """A data set by configuration key; part of the person split, or None for all persons."""

    name: str
    key: str
    part: str | None = None
    published_as_bgr: bool = False


TRAIN = Source("gc/train", "gazecapture", "train")
VALIDATION = Source("gc/val", "gazecapture", "val")
TESTS = (
    VALIDATION,
    Source("gc/test", "gazecapture", "test"),
    Source("mpi", "mpiigaze"),
    Source("columbia", "columbia", published_as_bgr=True),
    Source("eyediap", "eyediap", published_as_bgr=True),
)


def make_missing_data(config: Config, *, faces: bool = False) -> None:
    """See `core.embedded.make_missing`; nothing unless `synthetic_data` is set."""
    if config.synthetic_data:
        from core.embedded import make_missing  # the renderers take half a second to import

        make_missing(config, faces)


def wants_faces(config: Config) -> bool:
    """Whether the configured redirector is one of aligned faces; for those who do not build it."""
    return "gazecapture_aligned_file" not in ignored_by(config.redirector)


def build_training_set(config: Config, *, faces: bool = False) -> GazeDataset:
    """The training persons. Raises UserError: without it there is no training.

    faces: as aligned faces, an AlignedDataset.
    """
    return open_source(config, TRAIN, faces)


def build_estimator_training_set(config: Config) -> GazeDataset | RedirectedDataset:
    """What an estimator is trained on: the redirected data set where one is named, else the training persons.

    Raises UserError if it cannot be read.
    """
    if not is_set(config.redirected_file):
        return build_training_set(config)
    path, use = Path(config.redirected_file), config.redirected_use
    name = {"both": "real and redirected", "real": "real of redirected", "redirected": "redirected"}[use]
    dataset = RedirectedDataset(path, use, image_size=config.image_size, name=f"gc/train, {name}")
    say(f"{dataset.name}: {len(dataset)} images of {len(dataset.person_ids)} persons from {path}.")
    require_sense(dataset, is_learned=True)
    return dataset


def build_test_sets(config: Config, *, in_pairs: bool = True, faces: bool = False) -> list[GazeDataset]:
    """Every configured data set that is there; one sentence for each that is not.

    in_pairs: images are redirected to others of the same person, so single ones are of no use.
    faces: as aligned faces, AlignedDatasets.

    Raises UserError if a configured file is there and cannot be read.
    """
    sets = []
    for source in TESTS:
        key = _key_of(config, source, faces)
        path = getattr(config, key)
        if not is_set(path):
            say(f"{source.name}: left out, since {key} is not set.")
        elif not Path(path).is_file():
            patches = f" Set it to '.' to use the patches of {source.key}_file." if "aligned" in key else ""
            say(f"{source.name}: left out, since {key} ({path}) is not there.{patches}")
        elif nobody := _nobody_of_part(config, source, Path(path), faces):
            say(f"{source.name}: left out, since {nobody}")
        else:
            dataset = open_source(config, source, faces)
            if not in_pairs or _can_be_evaluated(dataset):
                sets.append(dataset)
                if in_pairs and config.eval_pairs_within_group:
                    say_alone_in_group(dataset)
    return sets


def _nobody_of_part(config: Config, source: Source, path: Path, faces: bool) -> str:
    """Why a part of the person split has nobody in the file, as that of a split of train persons alone; or ''."""
    if not source.part:
        return ""
    _require_gaze(config, source, faces)
    split = _split_file(config)
    persons = load_person_split(split, source.part) if source.part in read_person_split(split) else []
    if not persons:
        return f"{split} has nobody in its part {source.part!r}."
    inside = set(persons) & set(list_persons(path))
    return "" if inside else f"none of the {len(persons)} persons of part {source.part!r} of {split} is in {path}."


def _can_be_evaluated(dataset: GazeDataset) -> bool:
    """Whether some person has two images; says how many images have no other to be redirected to."""
    alone = int((np.diff(dataset.person_start) == 1).sum())
    if alone == len(dataset.person_ids):
        say(f"{dataset.name}: left out, since no person has two images to redirect from and to.")
    elif alone:
        say(f"{dataset.name}: {alone} images are not evaluated, for they are the only ones of their persons.")
    return alone < len(dataset.person_ids)


def say_alone_in_group(dataset: PersonImages) -> None:
    """A sentence on those images that have no other in their group, for when pairs within a group are asked for."""
    groups = find_groups(dataset)
    if groups is None:
        say(f"{dataset.name}: no groups in it; partners are any other images of the person.")
    elif groups.num_alone:
        say(
            f"{dataset.name}: {groups.num_alone} of {len(dataset)} images are the only ones of their groups; their "
            "partners are any other images of the person."
        )


def open_source(config: Config, source: Source, faces: bool = False) -> GazeDataset:
    """One data set; says how many images and persons it has and which persons it lacks.

    faces: as aligned faces, see `open_faces`.
    Raises UserError if the file or its person split cannot be read.
    """
    if faces:
        return open_faces(config, source)
    dataset = GazeDataset(image_size=config.image_size, **_where_and_who(config, source, faces=False))
    _say_what_is_in(config, source, dataset)
    return dataset


def open_faces(config: Config, source: Source) -> AlignedDataset:
    """A data set as aligned faces, from their own file if that is set, else the patches. Says and raises likewise."""
    dataset = AlignedDataset(image_size=config.face_size, **_where_and_who(config, source, faces=True))
    _say_what_is_in(config, source, dataset)
    if not dataset.is_aligned:
        say(
            f"{source.name}: normalised patches, enlarged to {config.face_size} px, stand for aligned faces: they show "
            f"less than a face generator knows, its codes of them are worse, and fine detail is lost; "
            f"{source.key}_aligned_file is better."
        )
    return dataset


def _where_and_who(config: Config, source: Source, faces: bool) -> dict[str, Any]:
    """File, persons and colour order of a data set: arguments of GazeDataset."""
    key = _key_of(config, source, faces)
    path = Path(getattr(config, key))
    if "aligned" in key and not path.is_file():
        raise UserError(
            f"{key}: {path}: no such file. Correct the path, or set it to '.' to use the patches of {source.key}_file."
        )
    if not path.is_file():
        raise UserError(f"{key}: {path}: no such file. Correct the path, or download or make it.")
    _require_gaze(config, source, faces)
    split = _split_file(config)
    persons = load_person_split(split, source.part) if source.part else None
    if source.part and split != Path(config.gazecapture_split):
        say(f"{source.name}: persons by the split {'stored with' if split == path else 'in'} {split}.")
    return {
        "path": path,
        "name": source.name,
        "persons": persons,
        "is_bgr": getattr(config, f"{source.key}_is_bgr"),
        "default_is_bgr": source.published_as_bgr,
        "pick_at_least_per_person": config.pick_at_least_per_person if source is TRAIN else None,
    }


def _say_what_is_in(config: Config, source: Source, dataset: GazeDataset) -> None:
    for persons, reason in (
        (dataset.missing_persons, "in the person split but not in the file"),
        (dataset.dropped_persons, f"with fewer than {config.pick_at_least_per_person} images left out"),
    ):
        if persons:
            some = ", ".join(persons[:5]) + ", ..." * (len(persons) > 5)
            say(f"{source.name}: {len(persons)} persons {reason} ({some}).")
    order = "BGR" if dataset.is_bgr else "RGB"
    say(f"{source.name}: {len(dataset)} images of {len(dataset.person_ids)} persons from {dataset.path} ({order}).")
    require_sense(dataset, is_learned=source is TRAIN)


def _require_gaze(config: Config, source: Source, faces: bool) -> None:
    """Raises UserError if a file's gaze labels are none, or if it cannot be read.

    They are not needed where they are replaced: in training by what an estimator sees of inversions.
    """
    key = _key_of(config, source, faces)
    path = Path(getattr(config, key))
    if not knows_gaze(path) and not (faces and source is TRAIN and config.relabel_inversions):
        raise UserError(
            f"{key}: {path} says that nobody knows where its people look (gaze_known is False): its gaze labels only "
            "repeat the head's. It serves to redirect faces; set a file with gaze labels to train and evaluate."
        )


def _key_of(config: Config, source: Source, faces: bool) -> str:
    """The configuration key of the file that is read."""
    aligned = f"{source.key}_aligned_file"
    return aligned if faces and is_set(getattr(config, aligned)) else f"{source.key}_file"


def _split_file(config: Config) -> Path:
    """The file that is named; else the one beside the data, unless it is of other data; else the data file's own."""
    given, data = Path(config.gazecapture_split), Path(config.gazecapture_file)
    beside = data.parent / given.name
    if given.is_file():
        return given
    if beside.is_file() and _is_of(beside, data):
        return beside
    try:
        read_person_split(data)
    except (OSError, ValueError):
        return beside if beside.is_file() else given
    return data  # a converter stored it with the data


def _is_of(split: Path, data: Path) -> bool:
    """Whether anybody of a person split is in a file; True, too, where that cannot be read, for others say why."""
    try:
        persons = {person for part in read_person_split(split).values() for person in part}
        return not persons.isdisjoint(list_persons(data))
    except (OSError, ValueError, TypeError):
        return True


def build_batches(
    config: Config, dataset: PersonImages, start_step: int, device: torch.device
) -> torch.utils.data.DataLoader:
    """Training pairs from `start_step` on, the same for any number of workers; of several processes, those of this one.

    Raises UserError where there is no batch of them.
    """
    candidates = (
        labeled_subset(len(dataset), config.num_labeled_samples, config.seed) if config.semi_supervised else None
    )
    sampler = PairSampler(
        dataset,
        batch_size=config.batch_size,
        seed=config.seed,
        start_step=start_step,
        num_steps=config.num_training_steps,
        candidates=candidates,
        within_group=config.pairs_within_group,
        share=own_rows(config.batch_size // size()),
    )
    return PatientLoader(
        dataset,
        batch_sampler=sampler,
        num_workers=config.num_data_loaders,
        pin_memory=device.type == "cuda",
        persistent_workers=False,
    )


def plan_redirected(config: Config, dataset: GazeDataset) -> Generation:
    """The redirected data set to write: all random draws are made.

    Raises UserError if there are fewer labels than asked for, or too few or too alike to draw targets.
    """
    num_labeled = config.num_labeled_samples if config.semi_supervised else len(dataset)
    labeled, unlabeled = labeled_subset(len(dataset), num_labeled, config.seed), None
    if more := config.redirected_unlabeled_samples:
        if num_labeled + more > len(dataset):
            raise UserError(
                f"redirected_unlabeled_samples: {more} asked for beside {num_labeled} labelled ones, "
                f"{len(dataset)} samples in the data. Set at most {len(dataset) - num_labeled}."
            )
        # The next ones of the same shuffle.
        unlabeled = np.setdiff1d(labeled_subset(len(dataset), num_labeled + more, config.seed), labeled)
    return plan_generation(
        Path(config.redirected_file) if is_set(config.redirected_file) else Path(config.save_path) / FILE_NAME,
        dataset,
        labeled,
        seed=config.seed,
        unlabeled=unlabeled,
        per_sample=config.redirected_per_sample,
        images=config.redirected_images,
        bandwidth=config.redirected_bandwidth,
        truncated=config.redirected_truncated,
        max_error=config.redirected_max_error,
    )
