"""Reading data: the published preprocessing to the bit, what a file may look like, and the samplers."""

import codecs
import json
import os
import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from core.batches import IndexSampler, PairSampler, evaluation_pairs, labeled_subset
from core.command import UserError
from dataset import GazeDataset, load_person_split, prepare_image
from tests.tiny import write_dataset
from utils import image_to_float

GOLDENS = Path(__file__).parent / "goldens"
TINY = GOLDENS / "tiny.h5"
NEW_HDF5 = pytest.mark.skipif(h5py.version.hdf5_version_tuple < (2, 0), reason="tiny.h5 was written by HDF5 2")
GOLDEN = json.loads((GOLDENS / "dataset.json").read_text())


def write_person(file: h5py.File, name: str, count: int, size: int = 8) -> None:
    rng = np.random.default_rng(count)
    group = file.create_group(name)
    rows = rng.integers(0, 256, (count, size, 1, 3), np.uint8)
    pixels = rows.repeat(size, axis=2)  # constant along a row, so that lzf does compress them
    chunks = (1, size, size, 3) if count else None
    group.create_dataset("pixels", data=pixels, chunks=chunks, compression="lzf" if count else None)
    group.create_dataset("labels", data=rng.uniform(-0.5, 0.5, (count, 4)).astype(np.float32))


def write_file(path: Path, **counts: int) -> Path:
    with h5py.File(path, "w") as file:
        for name, count in counts.items():
            write_person(file, name, count)
    return path


def replace(path: Path, key: str, data: np.ndarray) -> None:
    with h5py.File(path, "r+") as file:
        del file[key]
        file[key] = data


@pytest.fixture
def data(tmp_path: Path) -> GazeDataset:
    return GazeDataset(write_file(tmp_path / "data.h5", p00=7, p01=1, p02=12))


# The published preprocessing


@NEW_HDF5
@pytest.mark.parametrize("is_bgr", [False, True])
def test_preprocessed_entry_equals_the_published_one(is_bgr: bool):
    entry = GazeDataset(TINY, is_bgr=is_bgr)[3]
    golden = GOLDEN[f"image_bgr={is_bgr}"]
    image = image_to_float(entry["image"]).numpy().ravel()
    chosen = image[np.linspace(0, image.size - 1, 32).astype(int)]
    assert image.size == golden["n"]
    np.testing.assert_allclose(chosen, np.float32(golden["values"]), rtol=0, atol=1e-8)
    assert image.mean(dtype=np.float64) == pytest.approx(golden["mean"], abs=1e-7)
    assert image.std(dtype=np.float64) == pytest.approx(golden["std"], abs=1e-7)
    assert entry["gaze"].tolist() == GOLDEN["gaze"]
    assert entry["head"].tolist() == GOLDEN["head"]


@NEW_HDF5
def test_persons_and_minimum_select_the_published_index():
    data = GazeDataset(TINY, persons=["00010", "99999", "00002", "00003"], pick_at_least_per_person=2)
    assert data.person_ids == GOLDEN["prefixes"]
    persons = [data.person_ids[p] for p in data.person_of]
    assert [list(entry) for entry in zip(persons, data.sample_of.tolist(), strict=True)] == GOLDEN["index"]
    assert (data.missing_persons, data.dropped_persons) == (["99999"], ["00003"])


@NEW_HDF5
def test_labeled_subset_is_the_published_one():
    data = GazeDataset(TINY)
    chosen = labeled_subset(len(data), 6)
    persons = [data.person_ids[p] for p in data.person_of[chosen]]
    found = [list(entry) for entry in zip(persons, data.sample_of[chosen].tolist(), strict=True)]
    assert found == GOLDEN["labeled6"]


@pytest.mark.parametrize("count", [1000, 1379118])
def test_labeled_subset_shuffles_as_published(count: int):
    golden = GOLDEN[f"shuffle_{count}"]
    for num_labeled in range(1, len(golden) + 1) if count < 10_000 else [len(golden)]:
        assert labeled_subset(count, num_labeled).tolist() == sorted(golden[:num_labeled])


def test_labeled_subset_refuses_more_than_there_are():
    with pytest.raises(UserError, match="7 labelled samples asked for, 6 in the data.*num_labeled_samples"):
        labeled_subset(6, 7)


# Reading


def test_index_is_contiguous_by_person(data: GazeDataset):
    assert len(data) == 20
    assert data.person_start.tolist() == [0, 7, 8, 20]
    assert data.person_of.dtype == data.sample_of.dtype == np.int32
    assert data.person_of.tolist() == [0] * 7 + [1] + [2] * 12
    assert data.sample_of.tolist() == [*range(7), 0, *range(12)]


def test_pair_is_its_two_entries(data: GazeDataset):
    pair, a, b = data[(2, 9)], data[2], data[9]
    assert list(pair) == ["image_a", "gaze_a", "head_a", "image_b", "gaze_b", "head_b"]
    for key in a:
        assert torch.equal(pair[f"{key}_a"], a[key]) and torch.equal(pair[f"{key}_b"], b[key])


def test_without_equalisation_pixels_come_through_as_rgb(tmp_path: Path):
    path = write_file(tmp_path / "data.h5", p00=2)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    replace(path, "p00/pixels", pixels)
    rgb, bgr = (GazeDataset(path, is_bgr=is_bgr, equalize=False)[1]["image"].numpy() for is_bgr in (False, True))
    np.testing.assert_array_equal(rgb, pixels[1].transpose(2, 0, 1))
    np.testing.assert_array_equal(bgr, pixels[1, ..., ::-1].transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("attribute", "default", "chosen", "expected"),
    [
        (None, False, None, False),
        (None, True, None, True),
        ("BGR", False, None, True),
        (np.bytes_("RGB"), True, None, False),
        ("BGR", True, False, False),
    ],
)
def test_colour_order_argument_then_attribute_then_default(
    tmp_path: Path, attribute: Any, default: bool, chosen: bool | None, expected: bool
):
    path = write_file(tmp_path / "data.h5", p00=2)
    if attribute is not None:
        with h5py.File(path, "r+") as file:
            file.attrs["color_order"] = attribute
    assert GazeDataset(path, is_bgr=chosen, default_is_bgr=default).is_bgr is expected


@pytest.mark.parametrize(("size", "method"), [(4, cv2.INTER_AREA), (16, cv2.INTER_CUBIC)])
def test_image_size_resizes_before_equalisation(data: GazeDataset, size: int, method: int):
    resized = GazeDataset(data.path, image_size=size)
    with h5py.File(data.path) as file:
        pixels = cv2.resize(file["p00/pixels"][3], (size, size), interpolation=method)
    assert (data.image_size, resized.image_size) == (8, size)
    np.testing.assert_array_equal(resized[3]["image"].numpy(), prepare_image(pixels, size))


def test_images_of_several_sizes_need_an_image_size(tmp_path: Path):
    path = write_file(tmp_path / "data.h5", p00=2)
    with h5py.File(path, "r+") as file:
        write_person(file, "p01", 2, size=16)
    with pytest.raises(UserError, match=r"several sizes \[8, 16\]: choose an image_size"):
        GazeDataset(path)
    assert GazeDataset(path, image_size=8)[3]["image"].shape == (3, 8, 8)


def test_persons_of_any_name(tmp_path: Path):
    data = GazeDataset(write_file(tmp_path / "data.h5", **{"p00": 2, "00002": 3, "a b": 1, "Zoë": 2}))
    assert data.person_ids == ["00002", "Zoë", "a b", "p00"]
    assert len([data[i] for i in range(len(data))]) == 8


def test_labels_are_those_of_the_entries_and_read_only(data: GazeDataset):
    labels = data.labels()
    assert (labels.shape, labels.dtype) == ((20, 4), np.float32)
    fresh = GazeDataset(data.path)
    for i in range(len(data)):
        assert torch.cat([fresh[i]["gaze"], fresh[i]["head"]]).tolist() == labels[i].tolist()
    with pytest.raises(ValueError, match="read-only"):
        labels[0] = 0


def test_changing_an_entry_does_not_change_the_data(data: GazeDataset):
    before = data[0]["gaze"].clone()
    data[0]["gaze"].zero_()
    assert torch.equal(data[0]["gaze"], before)


def test_pickled_data_set_reads_the_same_without_the_handle(data: GazeDataset):
    expected = data[4]
    copy = pickle.loads(pickle.dumps(data))
    assert copy.file._file is None and data.file._file is not None
    assert all(torch.equal(copy[4][key], value) for key, value in expected.items())


@pytest.mark.parametrize("Sampler", [PairSampler, IndexSampler])
def test_workers_give_the_same_batches(data: GazeDataset, Sampler: type[IndexSampler]):
    data[0]  # so that the workers inherit an open file
    sampler = Sampler(data, batch_size=4, seed=1, num_steps=7)
    alone, helped = (list(DataLoader(data, batch_sampler=sampler, num_workers=n)) for n in (0, 2))
    assert len(alone) == len(helped) == 7
    for batch, other in zip(alone, helped, strict=True):
        assert batch.keys() == other.keys() and all(torch.equal(batch[key], other[key]) for key in batch)
    data[0]  # and still reads here


# What a file must look like


def test_missing_file(tmp_path: Path):
    with pytest.raises(UserError, match="nowhere.h5: no such file. Correct the path"):
        GazeDataset(tmp_path / "nowhere.h5")


@pytest.mark.parametrize("content", [b"", b"<html>quota exceeded</html>", TINY.read_bytes()[:50_000]])
def test_not_hdf5_or_truncated(tmp_path: Path, content: bytes):
    path = tmp_path / "data.h5"
    path.write_bytes(content)
    with pytest.raises(UserError, match="data.h5: cannot be read as HDF5 .*Re-download it or re-run preproc"):
        GazeDataset(path)


def test_no_persons(tmp_path: Path):
    with pytest.raises(UserError, match="data.h5: no persons in it.*Re-run preprocessing"):
        GazeDataset(write_file(tmp_path / "data.h5"))


def remove(key: str) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        with h5py.File(path, "r+") as file:
            del file[key]

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove("p01/labels"), "expected a group with the data sets 'pixels' and 'labels'"),
        (remove("p01/pixels"), "expected a group with the data sets 'pixels' and 'labels'"),
        (lambda path: replace(path, "p01", np.zeros(3)), "expected a group with the data sets"),
        (
            lambda path: replace(path, "p01/labels", np.zeros((3, 2))),
            r"labels are float64 of shape \(3, 2\), expected floats \(N, 4 or more\): gaze pitch",
        ),
        (
            lambda path: replace(path, "p01/labels", np.zeros(3)),
            r"labels are float64 of shape \(3,\), expected",
        ),
        (
            lambda path: replace(path, "p01/labels", np.zeros((3, 4), int)),
            "labels are int64 .* expected floats",
        ),
        (
            lambda path: replace(path, "p01/labels", np.zeros((5, 4))),
            "3 pixels, 5 labels, expected as many of each",
        ),
        (
            lambda path: replace(path, "p01/pixels", np.zeros((3, 8, 8, 3), np.float32)),
            r"pixels are float32 of shape \(3, 8, 8, 3\), expected uint8 \(N, S, S, 3\)",
        ),
        (lambda path: replace(path, "p01/pixels", np.zeros((3, 3, 8, 8), np.uint8)), r"shape \(3, 3, 8, 8\)"),
        (lambda path: replace(path, "p01/pixels", np.zeros((3, 8, 9, 3), np.uint8)), r"shape \(3, 8, 9, 3\)"),
    ],
)
def test_layout_errors_name_file_person_found_and_expected(
    tmp_path: Path, change: Callable[[Path], None], message: str
):
    path = write_file(tmp_path / "data.h5", p00=2, p01=3)
    change(path)
    with pytest.raises(UserError, match=f"(?s)data.h5: not the expected.*Re-run.*person 'p01': .*{message}"):
        GazeDataset(path)
    assert len(GazeDataset(path, persons=["p00"])) == 2  # only the persons asked for matter


# Groups


def write_groups(path: Path, **groups: Any) -> Path:
    with h5py.File(path, "r+") as file:
        for person, values in groups.items():
            file[person]["group"] = values
    return path


@pytest.mark.parametrize("kind", [np.int32, np.uint8, np.uint64])
def test_groups_are_those_of_the_persons_that_are_read(tmp_path: Path, kind: type):
    path = write_file(tmp_path / "data.h5", p00=2, p01=3, p02=1)
    assert GazeDataset(path).groups() is None
    write_groups(path, p00=np.array([7, 7], kind), p01=np.array([0, 1, 0], kind), p02=np.array([4], kind))
    groups = GazeDataset(path, persons=["p02", "p01"]).groups()
    assert groups is not None and groups.dtype == np.int64 and groups.tolist() == [4, 0, 1, 0]


@pytest.mark.parametrize(
    ("group", "message"),
    [
        (np.zeros(3), r"group is float64 of shape \(3,\), expected integers \(N,\): one number for what shares"),
        (np.zeros((3, 1), int), r"group is int64 of shape \(3, 1\), expected integers \(N,\)"),
        (np.zeros(2, int), "3 pixels, 3 labels, 2 group, expected as many of each"),
        (b"day01", r"group is object of shape \(\), expected integers"),
    ],
)
def test_groups_that_do_not_fit_are_refused(tmp_path: Path, group: Any, message: str):
    path = write_groups(write_file(tmp_path / "data.h5", p00=2, p01=3), p00=np.zeros(2, int), p01=group)
    with pytest.raises(UserError, match=f"(?s)data.h5: not the expected.*person 'p01': {message}"):
        GazeDataset(path)


def test_groups_of_some_persons_only_are_refused(tmp_path: Path):
    path = write_groups(write_file(tmp_path / "data.h5", p00=2, p01=3, p02=1), p01=np.zeros(3, int))
    with pytest.raises(UserError, match="persons without a data set 'group', which others have: 'p00', 'p02'"):
        GazeDataset(path)
    assert GazeDataset(path, persons=["p01"]).has_groups and not GazeDataset(path, persons=["p00"]).has_groups


def test_pairs_of_a_file_are_drawn_within_its_groups_by_any_number_of_workers(tmp_path: Path):
    path = write_groups(write_file(tmp_path / "data.h5", p00=4, p01=6), p00=[0, 1, 0, 1], p01=[2, 2, 0, 0, 1, 1])
    data = GazeDataset(path)
    sampler = PairSampler(data, batch_size=5, seed=1, num_steps=6, within_group=1.0)
    partner = {0: 2, 2: 0, 1: 3, 3: 1, **{i: i ^ 1 for i in range(4, 10)}}
    assert all(partner[a] == b for batch in sampler for a, b in batch)
    alone, helped = (list(DataLoader(data, batch_sampler=sampler, num_workers=n)) for n in (0, 2))
    assert all(torch.equal(u["image_b"], v["image_b"]) for u, v in zip(alone, helped, strict=True))


def test_empty_person(tmp_path: Path):
    with pytest.raises(UserError, match="person 'p01': no samples, expected at least 1"):
        GazeDataset(write_file(tmp_path / "data.h5", p00=2, p01=0))


def test_unknown_colour_order(tmp_path: Path):
    path = write_file(tmp_path / "data.h5", p00=2)
    with h5py.File(path, "r+") as file:
        file.attrs["color_order"] = "GRB"
    with pytest.raises(UserError, match="color_order is 'GRB', expected 'RGB' or 'BGR'"):
        GazeDataset(path)


def test_all_problems_in_one_message_ten_lines_and_a_count(tmp_path: Path):
    path = write_file(tmp_path / "data.h5", **{f"p{i:02d}": 2 for i in range(13)})
    for i in range(13):
        replace(path, f"p{i:02d}/labels", np.zeros((2, 3)))
    with pytest.raises(UserError, match=r"labels are float64 of shape \(2, 3\)") as raised:
        GazeDataset(path)
    lines = str(raised.value).splitlines()
    assert (len(lines), lines[-1].strip()) == (12, "... and 3 more")


def test_split_of_another_data_set(data: GazeDataset):
    with pytest.raises(UserError, match=r"none of the 2 persons asked for \('1', '2'\).*3 of the file \('p00', "):
        GazeDataset(data.path, persons=["1", "2"])


def test_person_asked_for_twice(data: GazeDataset):
    with pytest.raises(UserError, match="asked for more than once: 'p00'"):
        GazeDataset(data.path, persons=["p00", "p02", "p00"])


def test_minimum_nobody_reaches(data: GazeDataset):
    with pytest.raises(UserError, match="no person has 13 samples.*the most is 12"):
        GazeDataset(data.path, pick_at_least_per_person=13)


@pytest.mark.parametrize("read", [lambda data: data.labels(), lambda data: data[1]])
def test_labels_that_are_not_finite(tmp_path: Path, read: Callable[[GazeDataset], Any]):
    path = write_file(tmp_path / "data.h5", p00=4)
    replace(path, "p00/labels", np.array([[0.0] * 4, [0, np.nan, 0, 0], [0] * 4, [0, 0, 0, np.inf]]))
    with pytest.raises(UserError, match="data.h5: person 'p00' has labels that are not finite, 2 of 4.*index 1"):
        read(GazeDataset(path))


def test_damaged_image_names_file_person_and_index(tmp_path: Path):
    path = write_file(tmp_path / "data.h5", p00=3)
    with h5py.File(path) as file:
        chunk = file["p00/pixels"].id.get_chunk_info(2)
    with path.open("r+b") as file:
        file.seek(chunk.byte_offset)
        file.write(b"\xff" * chunk.size)
    data = GazeDataset(path)
    data[1]
    with pytest.raises(UserError, match="data.h5: person 'p00': pixels of sample 2 cannot be read .*damaged"):
        data[2]


# The person split


def test_person_split_gives_the_persons_of_a_part(tmp_path: Path):
    path = tmp_path / "split.json"
    path.write_text(json.dumps({"train": ["00002", "00003"], "val": ["00010"]}))
    assert load_person_split(path, "train") == ["00002", "00003"]
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file.attrs["split"] = path.read_text()
    assert load_person_split(tmp_path / "data.h5", "val") == ["00010"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a JSON file"),
        pytest.param("[" * 200_000, "not a JSON file", id="nested"),
        ('{"train": [], "val": []}', "no part 'test' in it, found 'train', 'val'"),
        ('["00002"]', "found a list, expected an object of lists"),
        ('{"test": [2, 3]}', "part 'test' is not a list of strings"),
        ('{"test": "00002"}', "part 'test' is not a list of strings"),
    ],
)
def test_person_split_errors(tmp_path: Path, content: str, message: str):
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(UserError, match=f"{re.escape(str(path))}: {message}"):
        load_person_split(path, "test")


def test_a_person_split_is_read_with_a_byte_order_mark(tmp_path: Path):
    (tmp_path / "split.json").write_bytes(codecs.BOM_UTF8 + b'{"train": ["00002"]}')
    assert load_person_split(tmp_path / "split.json", "train") == ["00002"]


def test_missing_person_split(tmp_path: Path):
    h5py.File(tmp_path / "data.h5", "w").close()
    with pytest.raises(UserError, match="data.h5: no person split with it"):
        load_person_split(tmp_path / "data.h5", "test")
    with pytest.raises(UserError, match="split.json: no such file"):
        load_person_split(tmp_path / "split.json", "test")


# Samplers


def test_each_entry_once_an_epoch_with_another_of_its_person(data: GazeDataset):
    pairs = np.concatenate(list(PairSampler(data, batch_size=5, seed=0, num_steps=4)))
    a, b = pairs.T
    assert sorted(a) == list(range(20))
    assert (data.person_of[a] == data.person_of[b]).all()
    assert ((a != b) | (a == 7)).all() and b[a == 7] == 7  # entry 7 is alone


def test_incomplete_batches_are_dropped_and_epochs_differ(data: GazeDataset):
    batches = list(IndexSampler(data, batch_size=8, seed=0, num_steps=4))
    epochs = batches[0] + batches[1], batches[2] + batches[3]
    assert [len(set(epoch)) for epoch in epochs] == [16, 16]
    assert epochs[0] != epochs[1]


@pytest.mark.parametrize("Sampler", [PairSampler, IndexSampler])
def test_batch_depends_on_seed_and_step_only(data: GazeDataset, Sampler: type[IndexSampler]):
    whole = list(Sampler(data, batch_size=6, seed=3, num_steps=11))
    resumed = Sampler(data, batch_size=6, seed=3, start_step=4, num_steps=11)
    assert (len(resumed), list(resumed)) == (7, whole[4:])
    assert [resumed.batch(step) for step in (10, 0, 5)] == [whole[10], whole[0], whole[5]]
    assert list(Sampler(data, batch_size=6, seed=4, num_steps=11)) != whole


def test_partners_are_uniform_over_the_others(data: GazeDataset):
    sampler = PairSampler(data, batch_size=20, seed=0, num_steps=3000)
    partners = [b for batch in sampler for a, b in batch if a == 2]
    counts = np.bincount(partners, minlength=7)
    assert counts[2] == 0 and counts.sum() == 3000
    assert (abs(np.delete(counts, 2) - 500) < 100).all()  # standard deviation 20


def test_candidates_restrict_the_source_not_the_partner(data: GazeDataset):
    sampler = PairSampler(data, batch_size=2, seed=0, num_steps=200, candidates=np.array([3, 5]))
    a, b = np.concatenate(list(sampler)).T
    assert set(a) == {3, 5} and set(b) == {0, 1, 2, 3, 4, 5, 6}


def test_fewer_candidates_than_a_batch(data: GazeDataset):
    with pytest.raises(UserError, match="2 samples to draw from, fewer than a batch of 3. Lower batch_size"):
        PairSampler(data, batch_size=3, seed=0, num_steps=1, candidates=np.array([3, 5]))


def test_evaluation_pairs_cover_every_entry_with_another_of_its_person(data: GazeDataset):
    a, b = evaluation_pairs(data, seed=0).T
    assert a.tolist() == list(range(20)) and b.dtype == np.int64
    assert (data.person_of[a] == data.person_of[b]).all()
    assert ((a != b) == (a != 7)).all()


def test_evaluation_partner_depends_on_the_seed_not_on_the_fraction(data: GazeDataset):
    everything = dict(evaluation_pairs(data, seed=5).tolist())
    some = evaluation_pairs(data, seed=5, fraction=0.25).tolist()
    assert len(some) == 5 and some == sorted(some)
    assert all(everything[a] == b for a, b in some)
    assert len(evaluation_pairs(data, seed=5, fraction=1e-6)) == 1
    assert dict(evaluation_pairs(data, seed=6).tolist()) != everything


def test_a_file_that_is_cut_while_it_is_read_is_no_black_image(tmp_path: Path) -> None:
    data = GazeDataset(write_dataset(tmp_path / "tiny.h5", size=128))
    data[0], data[6]  # both are open
    os.truncate(data.path, 4096)
    for index in (5, 11):
        with pytest.raises(UserError, match="tiny.h5: person .* bytes when it was opened, and is of 4,096 now"):
            data[index]
