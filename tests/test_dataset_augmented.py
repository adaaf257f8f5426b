"""The redirected data set's file: what is read from it, ours and published, and that it is written whole or not."""

import pickle
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from core.batches import IndexSampler
from core.command import UserError
from dataset_augmented import TABLES, RedirectedDataset, RedirectedWriter, is_complete
from utils import image_to_float

RECIPE = {"seed": 0, "redirected_images": "uint8", "redirected_max_error": float("inf")}


def rows(count: int, seed: int = 0, size: int = 8) -> dict[str, np.ndarray]:
    """Entries of a person: real and redirected in turn, all different."""
    random = np.random.default_rng(seed)
    return {
        "image": random.integers(0, 256, (count, 3, size, size), np.uint8),
        "gaze": random.uniform(-1, 1, (count, 2)).astype(np.float32),
        "head": random.uniform(-1, 1, (count, 2)).astype(np.float32),
        "real": (np.arange(count) % 2 == 0).astype(np.float32),
    }


def write_published(path: Path, as_float: bool = True, **counts: int) -> Path:
    """The published layout: no attributes, contiguous."""
    with h5py.File(path, "w") as file:
        for i, (person, count) in enumerate(counts.items()):
            values = rows(count, i)
            if as_float:
                values["image"] = image_to_float(torch.from_numpy(values["image"])).numpy()
            for name, value in values.items():
                file[f"{person}/{name}"] = value
    return path


@pytest.fixture
def published(tmp_path: Path) -> Path:
    return write_published(tmp_path / "r.h5", **{"00007": 6, "00011": 1, "x y": 4})


# Reading


def test_the_published_float_layout_is_read_as_the_uint8_it_was_made_of(published: Path) -> None:
    data = RedirectedDataset(published)
    assert (len(data), data.image_size, data.name, data.person_ids) == (11, 8, "redirected", ["00007", "00011", "x y"])
    assert data.person_of.tolist() == [0] * 6 + [1] + [2] * 4
    assert data.person_start.tolist() == [0, 6, 7, 11]
    expected = rows(4, 2)
    for i in range(4):
        item = data[7 + i]
        assert item["image"].dtype == torch.uint8 and item["gaze"].dtype == torch.float32
        assert np.array_equal(item["image"], expected["image"][i])
        assert np.array_equal(item["gaze"], expected["gaze"][i]) and np.array_equal(item["head"], expected["head"][i])


@pytest.mark.parametrize(("use", "kept"), [("real", [0, 2, 4]), ("redirected", [1, 3, 5])])
def test_real_and_redirected_are_told_apart_by_their_entry(use: str, kept: list[int], published: Path) -> None:
    data = RedirectedDataset(published, use=use)
    assert data.person_ids == (["00007", "00011", "x y"] if use == "real" else ["00007", "x y"])
    assert data.sample_of[:3].tolist() == kept
    assert data.is_real.all() if use == "real" else not data.is_real.any()
    assert np.array_equal(data[1]["image"], rows(6, 0)["image"][kept[1]])
    assert np.array_equal(data.labels()[1, :2], rows(6, 0)["gaze"][kept[1]])


def test_opening_reads_no_image(published: Path) -> None:
    with h5py.File(published, "a") as file:
        values = file["00007/image"][()]
        del file["00007/image"]
        made = file.create_dataset("00007/image", data=values, chunks=(1, 3, 8, 8), compression="gzip")
        place = made.id.get_chunk_info(2)
    with published.open("r+b") as raw:
        raw.seek(place.byte_offset)
        raw.write(b"\xff" * place.size)
    data = RedirectedDataset(published, use="real")
    data[0]
    with pytest.raises(UserError, match="r.h5: person '00007': image of sample 2 cannot be read .*damaged"):
        data[1]


def test_labels_are_those_of_the_entries_and_read_only(published: Path) -> None:
    data = RedirectedDataset(published)
    labels = data.labels()
    assert all(torch.cat([data[i]["gaze"], data[i]["head"]]).tolist() == labels[i].tolist() for i in range(len(data)))
    data[0]["gaze"].zero_()
    assert labels[0].any()
    with pytest.raises(ValueError, match="read-only"):
        labels[0] = 0


def test_images_are_resized_where_another_size_is_asked_for(tmp_path: Path) -> None:
    path = write_published(tmp_path / "r.h5", a=2)
    small, large = (RedirectedDataset(path, image_size=size)[0]["image"] for size in (4, 16))
    assert (small.shape, large.shape) == ((3, 4, 4), (3, 16, 16))
    halves = rows(2, 0)["image"][0].reshape(3, 4, 2, 4, 2).mean(axis=(2, 4))
    assert np.abs(small.numpy() - halves).max() <= 0.5  # INTER_AREA is the mean


def test_a_pickled_and_a_forked_copy_read_the_same(published: Path) -> None:
    data = RedirectedDataset(published)
    expected = [data[i]["image"] for i in range(len(data))]
    copy = pickle.loads(pickle.dumps(data))
    assert torch.equal(copy[3]["image"], expected[3])
    sampler = IndexSampler(data, batch_size=3, seed=0, num_steps=7)
    for batch, indices in zip(DataLoader(data, batch_sampler=sampler, num_workers=2), sampler, strict=True):
        assert torch.equal(batch["image"], torch.stack([expected[i] for i in indices]))
    assert torch.equal(data[5]["image"], expected[5])


def change(key: str, value: Callable[[np.ndarray], np.ndarray] | None) -> Callable[[h5py.File], None]:
    def apply(file: h5py.File) -> None:
        old = file[key][()]
        del file[key]
        if value is not None:
            file[key] = value(old)

    return apply


def not_a_number(labels: np.ndarray) -> np.ndarray:
    labels[3] = np.nan
    return labels


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            change("x y/head", None),
            "person 'x y': no data set 'head', .* sets 'image', 'gaze', 'head' and 'real'",
        ),
        (change("x y/head", lambda v: v[:, :1]), r"head is float32 of shape \(4, 1\), expected floats \(M, 2\)"),
        (change("x y/real", lambda v: v[:, None]), r"real is float32 of shape \(4, 1\), expected floats \(M,\)"),
        (change("x y/real", lambda v: v[:3]), "4 image, 4 gaze, 4 head, 3 real, expected as many of each"),
        (change("x y/real", lambda v: v * 2), "real holds 2, expected 1"),
        (change("x y/gaze", not_a_number), "labels that are not finite, 1 of 4, the first at index 3"),
        (change("x y/image", lambda v: v.transpose(0, 2, 3, 1)), r"shape \(4, 8, 8, 3\), expected .* \(M, 3, S, S\)"),
        (change("x y/image", lambda v: v.astype(np.int32)), "image is int32"),
        (lambda file: file.attrs.update(color_order="BGR"), "color_order is 'BGR', expected 'RGB'"),
        (lambda file: file.attrs.update(complete=False), "complete is false.*run the command that wrote it again"),
        (change("x y/image", lambda v: v[..., :4, :4]), r"several sizes \[4, 8\]"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_person(
    spoil: Callable[[h5py.File], None], message: str, published: Path
) -> None:
    with h5py.File(published, "a") as file:
        spoil(file)
    with pytest.raises(UserError, match=f"(?s)r.h5: not a redirected data set. Write it anew.*{message}"):
        RedirectedDataset(published)


def test_a_missing_a_truncated_and_an_empty_file(tmp_path: Path, published: Path) -> None:
    with pytest.raises(UserError, match="none.h5: no such file"):
        RedirectedDataset(tmp_path / "none.h5")
    published.write_bytes(published.read_bytes()[:-1000])
    with pytest.raises(UserError, match="r.h5: cannot be read as HDF5 .*truncated"):
        RedirectedDataset(published)
    with pytest.raises(UserError, match="no persons in it"):
        RedirectedDataset(write_published(tmp_path / "empty.h5"))
    with pytest.raises(UserError, match="one.h5: none of its images is redirected.*redirected_use"):
        RedirectedDataset(write_published(tmp_path / "one.h5", a=1), use="redirected")


# Writing


def write(path: Path, persons: list[str], recipe: dict[str, object] = RECIPE) -> RedirectedWriter:
    """Persons not there yet, in two batches each."""
    writer = RedirectedWriter(path, recipe)
    for i, person in enumerate(persons):
        if not writer.has(person):
            values = rows(5, i)
            with writer.person(person) as file:
                file.append({"left_out": 1}, **{name: value[:2] for name, value in values.items()})
                file.append({"left_out": 2}, **{name: value[2:] for name, value in values.items()})
    return writer


def test_a_written_file_holds_what_was_appended_and_its_counts(tmp_path: Path) -> None:
    path, persons = tmp_path / "r.h5", ["00002", "a b", "Zoë .h5"]
    totals = write(path, persons).finish(persons, {"source_file": "gc.h5"})
    assert totals == {"num_persons": 3, "num_real": 9, "num_redirected": 6, "left_out": 9}
    with h5py.File(path) as file:
        assert sorted(file) == sorted(persons)
        for i, person in enumerate(persons):
            assert all(np.array_equal(file[person][name], rows(5, i)[name]) for name in TABLES)
        assert file["00002/image"].chunks == (1, 3, 8, 8)
        attributes = dict(file.attrs)
    assert attributes == {**RECIPE, **totals, "source_file": "gc.h5", "color_order": "RGB", "complete": True}
    assert len(RedirectedDataset(path)) == 15
    assert list(tmp_path.iterdir()) == [path]


def test_a_person_who_lost_all_images_is_not_counted(tmp_path: Path) -> None:
    writer = write(tmp_path / "r.h5", ["00002"])
    with writer.person("00003") as file:
        file.append({"left_out": 4}, **{name: value[:0] for name, value in rows(5, 1).items()})
    totals = writer.finish(["00002", "00003"], {})
    assert totals == {"num_persons": 1, "num_real": 3, "num_redirected": 2, "left_out": 7}
    assert RedirectedDataset(tmp_path / "r.h5").person_ids == ["00002"]


def test_a_person_is_wholly_there_or_not(tmp_path: Path) -> None:
    path, persons = tmp_path / "r.h5", ["a", "b"]
    writer = write(path, ["a"])
    with pytest.raises(RuntimeError, match="half way"), writer.person("b") as file:
        file.append(**rows(2))
        raise RuntimeError("half way")
    assert not path.exists()
    again = RedirectedWriter(path, RECIPE)
    assert again.has("a") and not again.has("b")
    write(path, persons).finish(persons, {})
    assert len(RedirectedDataset(path)) == 10


def test_a_part_that_a_power_cut_emptied_is_written_again(tmp_path: Path) -> None:
    writer = write(tmp_path / "r.h5", ["a"])
    (part,) = writer.parts.folder.glob("*.h5")
    part.write_bytes(part.read_bytes()[:500])
    assert not RedirectedWriter(tmp_path / "r.h5", RECIPE).has("a")


@pytest.mark.parametrize("recipe_file", ["other", "none"])
def test_parts_of_another_recipe_are_removed_and_that_is_said(
    recipe_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    writer = write(tmp_path / "r.h5", ["a"], RECIPE | {"seed": 1})
    if recipe_file == "none":
        (writer.parts.folder / "recipe.json").unlink()
    assert not RedirectedWriter(tmp_path / "r.h5", RECIPE).has("a")
    assert "seed" in capsys.readouterr().out
    write(tmp_path / "r.h5", ["a"])
    assert RedirectedWriter(tmp_path / "r.h5", RECIPE).has("a")


def test_only_the_same_recipe_counts_as_complete_and_anything_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "r.h5"
    assert not is_complete(path, RECIPE) and not is_complete(path, None)
    write(path, ["a"]).finish(["a"], {})
    assert is_complete(path, RECIPE)
    with pytest.raises(UserError, match="r.h5: this file was made with other values of seed. Move or remove it"):
        is_complete(path, RECIPE | {"seed": 1})
    with pytest.raises(UserError, match="another redirector than the one still to be trained"):
        is_complete(path, None)
    for content in (write_published(tmp_path / "p.h5", a=2).read_bytes(), b"mine"):
        path.write_bytes(content)
        with pytest.raises(UserError, match="was not finished by this code"):
            is_complete(path, RECIPE)


def test_arrays_where_truth_and_text_are_to_be_are_refused(published: Path) -> None:
    with h5py.File(published, "r+") as file:
        file.attrs.update({"complete": [1, 0], "color_order": [1, 0]})
    with pytest.raises(UserError, match=r"(?s)color_order is 'array\(\[1, 0\]\)'.*complete is 'array\(\[1, 0\]\)'"):
        RedirectedDataset(published)
    with pytest.raises(UserError, match="was not finished by this code"):
        is_complete(published, {"seed": 0})


def test_images_in_a_null_dataspace_are_refused(published: Path) -> None:
    with h5py.File(published, "r+") as file:
        del file["00007/image"]
        file["00007/image"] = h5py.Empty("u1")
    with pytest.raises(UserError, match="'00007': image is without any elements"):
        RedirectedDataset(published)
