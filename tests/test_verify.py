"""`verify`, `report` and `convert`: what they find in damaged files, draw on a page, and write again."""

import base64
import json
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest

from core.command import UserError
from core.hdf5 import DamagedFile
from dataset import GazeDataset
from dataset_aligned import AlignedDataset
from preprocess.__main__ import main
from preprocess.inspect.page import make_page, spread_over
from preprocess.inspect.published import compare, find_published
from preprocess.inspect.verify import verify
from preprocess.rechunk import Storage, convert
from preprocess.synthetic.dataset import make_dataset

FIRST = "00000"
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("synthetic")
    make_dataset(out, persons=4, samples=6, seed=1, image_size=64, aligned_size=64, workers=1, progress=False)
    return out


def levels(path: Path, **options: object) -> dict[str, tuple[str, str]]:
    """Check -> (its worst level, all it found)."""
    order, found = ("ok", "note", "warning", "FAIL"), {}
    for check in verify(path, **options)[0]:
        level, text = found.get(check.name, ("ok", ""))
        found[check.name] = max(level, check.level, key=order.index), f"{text} {check.found}"
    return found


def failed(path: Path, **options: object) -> list[str]:
    return [name for name, (level, _) in levels(path, **options).items() if level == "FAIL"]


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files whose samples come in groups, as detected landmarks would place them."""
    out = tmp_path_factory.mktemp("grouped")
    sizes = {"persons": 4, "samples": 5, "image_size": 64, "aligned_size": 64, "group_size": 2}
    make_dataset(out, seed=1, framing="detected", workers=1, progress=False, **sizes)
    return out


# verify


@pytest.mark.parametrize("name", ["GazeCapture_64", "GazeCapture_aligned_64"])
def test_groups_are_counted_and_shown(grouped: Path, name: str, tmp_path: Path):
    expected = "12 of 1 to 2 images, 3 a person; 4 images are the only ones of their groups"
    assert levels(grouped / f"{name}.h5")["groups"] == ("note", " " + expected)
    make_page(grouped / f"{name}.h5", tmp_path / "page.html", persons=1, columns=2)
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert all(
        part in page for part in (expected, "<td>framing</td><td>detected</td>", "<td>group_size</td><td>2</td>")
    )


def test_a_file_without_groups_has_none_to_check(folder: Path, tmp_path: Path):
    assert "groups" not in levels(folder / "GazeCapture_64.h5")
    path = Path(shutil.copy(folder / "GazeCapture_64.h5", tmp_path))
    with h5py.File(path, "a") as file:
        for person in file.values():
            person["group"] = [0, 0, 0, 1, 1, 1]
    assert levels(path)["groups"] == ("ok", " 8 of 3 images, 2 a person")


def test_the_look_is_named_where_nothing_is_published(folder: Path, tmp_path: Path):
    path = Path(shutil.copy(folder / "GazeCapture_64.h5", tmp_path))
    assert "drawn faces" in levels(path)["published"][1]
    with h5py.File(path, "a") as file:
        file.attrs["look"] = "rendered"
    assert "rendered faces" in levels(path)["published"][1]


@pytest.mark.parametrize(
    "name", ["GazeCapture_64", "MPIIGaze_64", "Columbia_64", "EYEDIAP_64", "GazeCapture_aligned_64"]
)
def test_good_files_pass(folder: Path, name: str, capsys: pytest.CaptureFixture):
    assert main(["verify", str(folder / f"{name}.h5"), "--quiet"]) == 0
    assert capsys.readouterr().out.rstrip().endswith("Passed.")


def degrees(file: h5py.File) -> None:
    for group in file.values():
        group["labels"][...] = np.degrees(group["labels"][()])


def negate(columns: slice) -> Callable[[h5py.File], None]:
    def change(file: h5py.File) -> None:
        for group in file.values():
            labels = group["labels"][()]
            labels[:, columns] *= -1
            group["labels"][...] = labels

    return change


def shorter(file: h5py.File) -> None:
    labels = file[FIRST]["labels"][1:]
    del file[FIRST]["labels"]
    file[FIRST]["labels"] = labels


def wrong_type(file: h5py.File) -> None:
    pixels = file[FIRST]["pixels"][()]
    del file[FIRST]["pixels"]
    file[FIRST]["pixels"] = pixels.astype(np.float32)


def stray(file: h5py.File) -> None:
    file["split"] = np.zeros(3)


def not_finite(file: h5py.File) -> None:
    file["00002"]["labels"][3, 1] = np.nan


def blank(file: h5py.File) -> None:
    file["00001"]["pixels"][4] = 90


def shared(file: h5py.File) -> None:
    file["00001"]["pixels"][2] = file["00003"]["pixels"][5]


def contradicting(file: h5py.File) -> None:
    file["00001"]["pixels"][2] = file["00001"]["pixels"][5]
    file["00001"]["labels"][2, :4] = file["00001"]["labels"][5, :4] + 0.2


def bad_order(file: h5py.File) -> None:
    file.attrs["color_order"] = "rgb"


def unfinished(file: h5py.File) -> None:
    file.attrs["complete"] = False


def leaking(file: h5py.File) -> None:
    file.attrs["split"] = json.dumps({"train": ["00000", "00001"], "test": ["00001"]})


def changed_split(file: h5py.File) -> None:
    file.attrs.update({"split": json.dumps({"train": ["00000"]}), "split_sha256": "0" * 64})


def half_a_group(file: h5py.File) -> None:
    file["00001"]["group"] = np.arange(6.0)


def groups_of_one(file: h5py.File) -> None:
    file["00001"]["group"] = np.arange(6)


def person_gone(file: h5py.File) -> None:
    file.attrs["num_samples"] = 24
    del file["00002"]


DAMAGES = (
    (degrees, "range", "They look like degrees"),
    (negate(slice(1, 8, 2)), "eyes", "yaw is flipped"),
    (negate(slice(0, 8, 2)), "eyes", "pitch is flipped"),
    (shorter, "layout", "'00000': 6 pixels, 5 labels, expected as many of each"),
    (wrong_type, "layout", "pixels are float32"),
    (stray, "layout", "'split': is no group"),
    (not_finite, "labels", "1 of 24, the first in '00002', index 3"),
    (blank, "blank images", "1 of 24, the first in '00001', index 4"),
    (shared, "duplicates", "1 with another person (00001 and 00003)"),
    (contradicting, "duplicates", "1 with other labels"),
    (bad_order, "color_order", "'rgb'"),
    (unfinished, "complete", "not finished"),
    (leaking, "split", "1 persons in more than one part, such as '00001'"),
    (changed_split, "split", "its hash is another"),
    (person_gone, "num_samples", "24 said, 18 there"),
    (half_a_group, "layout", "'00001': group is float64 of shape (6,), expected integers (N,)"),
    (groups_of_one, "groups", "persons without a data set 'group', which others have: '00000', '00002', '00003'"),
)


@pytest.mark.parametrize(("damage", "check", "sentence"), DAMAGES, ids=[c[2] for c in DAMAGES])
def test_damage_fails_one_check_and_the_command(
    damage: Callable, check: str, sentence: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    path = Path(shutil.copy(folder / "GazeCapture_64.h5", tmp_path))
    with h5py.File(path, "a") as file:
        damage(file)
    assert failed(path) == [check]
    assert sentence in levels(path)[check][1]
    assert main(["verify", str(path), "--quiet"]) == 1
    assert "1 failed: do not train on this file." in capsys.readouterr().out


def mirrored(file: h5py.File) -> None:
    file[FIRST]["homography"][1] = file[FIRST]["homography"][1] @ np.diag([-1, 1, 1])


def inverted(file: h5py.File) -> None:
    for group in file.values():
        group["homography"][...] = np.linalg.inv(group["homography"][()])


def other_patch(file: h5py.File) -> None:
    file.attrs["patch_size"] = 64


def swapped_points(file: h5py.File) -> None:
    for group in file.values():
        group["points"][...] = group["points"][()][:, ::-1]


@pytest.mark.parametrize(
    ("damage", "check"),
    [
        (mirrored, "homographies"),
        (inverted, "homographies"),
        (swapped_points, "homographies"),
        (other_patch, "patch_size"),
    ],
)
def test_damaged_aligned_files_fail(damage: Callable, check: str, folder: Path, tmp_path: Path):
    path = Path(shutil.copy(folder / "GazeCapture_aligned_64.h5", tmp_path))
    with h5py.File(path, "a") as file:
        damage(file)
    assert failed(path) == [check]


def test_repeated_images_and_wrong_colours_only_warn(folder: Path, tmp_path: Path):
    path = Path(shutil.copy(folder / "GazeCapture_64.h5", tmp_path))
    with h5py.File(path, "a") as file:
        for name in ("pixels", "labels"):
            file[FIRST][name][2] = file[FIRST][name][3]
        file.attrs["color_order"] = "BGR"
    found = levels(path)
    assert found["duplicates"][0] == found["colours"][0] == "warning" and failed(path) == []


def test_some_images_a_person_are_looked_at(folder: Path, tmp_path: Path):
    path = Path(shutil.copy(folder / "GazeCapture_64.h5", tmp_path))
    with h5py.File(path, "a") as file:
        file[FIRST]["pixels"][5] = 7
    assert levels(path, per_person=1)["blank images"] == ("ok", " none of 4")
    assert levels(path, per_person=2)["blank images"][0] == "FAIL"


def test_a_file_without_gaze_passes_to_redirect_only(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    path = Path(shutil.copy(folder / "GazeCapture_64.h5", tmp_path))
    with h5py.File(path, "a") as file:
        file.attrs["gaze_known"] = False
    assert main(["verify", str(path), "--quiet"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "Passed, with 1 warning to look at. The file serves to redirect, not to train or evaluate."


def test_the_split_of_a_file_is_told(folder: Path, tmp_path: Path):
    path = Path(shutil.copy(folder / "GazeCapture_64.h5", tmp_path))
    with h5py.File(path, "a") as file:
        file.attrs["split"] = json.dumps({"train": ["00000", "00009"], "test": ["00003"]})
    assert levels(path)["split"] == ("note", " 1 of 2 train, 1 of 1 test, 2 persons in no part")


def test_a_published_file_of_four_columns_passes_with_remarks(tmp_path: Path, folder: Path):
    path = tmp_path / "MPIIGaze_128.h5"
    with h5py.File(path, "w") as file, h5py.File(folder / "MPIIGaze_64.h5") as source:
        for person, group in source.items():
            file.create_dataset(f"{person}/pixels", data=group["pixels"], chunks=(6, 64, 64, 3), compression="lzf")
            file[f"{person}/labels"] = group["labels"][:, :4]
    found = levels(path, dataset="MPIIGaze")
    assert failed(path) == []
    assert [found[name][0] for name in ("layout", "color_order", "eyes", "attributes")] == ["warning"] * 2 + [
        "note"
    ] * 2
    assert "2 of 15 persons, 12 of at most 45,000 images" in found["published"][1]


def test_what_is_no_file_of_faces_ends_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "text.h5").write_text("no")
    for name, message in (("text.h5", "cannot be read as HDF5"), ("none.h5", "no such file")):
        assert main(["verify", str(tmp_path / name)]) == 2
        assert message in capsys.readouterr().err
    with h5py.File(tmp_path / "empty.h5", "w"):
        pass
    assert main(["verify", str(tmp_path / "empty.h5"), "--quiet"]) == 1


def labels_of(gaze_deg: np.ndarray) -> np.ndarray:
    return np.radians(np.concatenate([gaze_deg, np.zeros_like(gaze_deg)], axis=1))


def test_published_targets_and_signs_are_compared():
    rng = np.random.default_rng(0)
    grid = np.stack([rng.choice([-10, 0, 10], 200), rng.choice(np.arange(-15, 16, 5), 200)], axis=1).astype(float)
    columbia, mpii = find_published("Columbia Gaze"), find_published("MPIIFaceGaze")
    assert compare(columbia, {"0001": 100, "0002": 100}, labels_of(grid - (0.17, 0))) == []
    assert [level for level, _ in compare(columbia, {"0001": 100}, labels_of(grid * 1.3))] == ["FAIL"]
    assert "106 images of '0001'" in compare(columbia, {"0001": 106}, labels_of(grid))[0][1]
    down = np.stack([rng.uniform(-20, 0, 200), rng.uniform(-20, 20, 200)], axis=1)
    assert compare(mpii, {"p00": 200}, labels_of(down)) == []
    assert [level for level, _ in compare(mpii, {"p00": 200}, labels_of(-down))] == ["FAIL"]
    assert compare(mpii, {"p00": 99}, labels_of(-down)[:99]) == []  # too few to say
    wide = labels_of(np.full((200, 2), 79.0))
    assert compare(find_published("ETH-XGaze"), {"subject0000": 200}, wide) == []
    assert "beyond 82 degrees" in compare(find_published("ETH-XGaze"), {"subject0000": 200}, wide + np.radians(3))[0][1]
    assert "named like '00'" in compare(mpii, {"00": 200}, labels_of(down))[0][1]


# report


def test_the_page_holds_all_it_shows(folder: Path, tmp_path: Path):
    out = tmp_path / "page.html"
    arguments = ["report", str(folder / "GazeCapture_64.h5"), "--out", str(out), "--persons", "3", "--columns", "4"]
    assert main(arguments) == 0
    page = out.read_text()
    assert not re.findall(r'(?:href|src)="(?!data:)|url\((?!#)|<script|@import|https?:', page)
    faces = [base64.b64decode(data) for data in re.findall(r"data:image/jpeg;base64,([^\"]+)", page)]
    assert len(faces) == 3 * 4 + 8
    assert all(cv2.imdecode(np.frombuffer(f, np.uint8), 1).shape == (64, 64, 3) for f in faces)
    assert page.count("<figure>") == 4 and "24 images of 64 pixels" in page and "Passed." in page
    for person in ("00000", "00002", "00003"):
        assert f"<b>{person}</b>" in page


def arrows(page: str) -> list[tuple[float, ...]]:
    pattern = r'<line x1="([\d.-]+)" y1="([\d.-]+)" x2="([\d.-]+)" y2="([\d.-]+)" stroke="#(ffe000|00c8ff)"'
    return [tuple(map(float, m[:4])) for m in re.findall(pattern, page) if m[4] == "ffe000"]


def test_arrows_point_where_the_gaze_goes(tmp_path: Path):
    """Yaw > 0 is image left, pitch > 0 is up: 30 degrees are half of 70 pixels of a patch of 128."""
    path, labels = tmp_path / "one.h5", np.zeros((1, 8), np.float32)
    labels[0, :2] = 0, np.pi / 6
    for expected in ((-35 / 2, 0), (0, -35 / 2)):
        with h5py.File(path, "w") as file:
            file["p00/pixels"] = np.random.default_rng(0).integers(0, 255, (1, 64, 64, 3), np.uint8)
            file["p00/labels"] = labels
        make_page(path, tmp_path / "page.html", 1, 1)
        x1, y1, x2, y2 = arrows((tmp_path / "page.html").read_text())[0]
        assert (x2 - x1, y2 - y1) == pytest.approx(expected, abs=0.11)
        labels[0, :2] = labels[0, 1::-1]


def test_arrows_on_aligned_faces_go_through_the_homography(folder: Path, tmp_path: Path):
    make_page(folder / "GazeCapture_aligned_64.h5", tmp_path / "page.html", 4, 6)
    found = np.array(arrows((tmp_path / "page.html").read_text()))[: 4 * 6]
    with h5py.File(folder / "GazeCapture_aligned_64.h5") as file:
        yaws, homographies = [], []
        for group in file.values():
            rows = spread_over(group["labels"][:, 1], 6)
            yaws += group["labels"][()][rows, 1].tolist()
            homographies += list(group["homography"][()][rows])
    for (x1, y1, x2, _), yaw, matrix in zip(found, yaws, homographies, strict=True):
        start = matrix @ (x1 - 0.5, y1 - 0.5, 1)
        assert start[:2] / start[2] == pytest.approx((63.5, 38.5), abs=0.2)
        if abs(yaw) > 0.2:
            assert (x2 - x1) * yaw < 0


def test_samples_are_spread_evenly():
    values = np.array([5.0, 1, 3, 2, 4])
    assert values[spread_over(values, 3)].tolist() == [1, 3, 5]
    assert values[spread_over(values, 9)].tolist() == [1, 2, 3, 4, 5]


# convert


def contents(path: Path) -> dict[str, np.ndarray]:
    with h5py.File(path) as file:
        return {f"{person}/{name}": data[()] for person, group in file.items() for name, data in group.items()}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name in expected:
        np.testing.assert_array_equal(found[name], expected[name], err_msg=name)


@pytest.mark.parametrize("storage", [("none", 1), ("lzf", 1), ("gzip", 4), ("none", 100), ("lzf", 5)])
def test_samples_survive_any_storage(storage: tuple[str, int], folder: Path, tmp_path: Path):
    source, out = folder / "GazeCapture_aligned_64.h5", tmp_path / "new" / "out.h5"
    arguments = ["--out", str(out), "--compression", storage[0], "--chunk", str(storage[1])]
    assert main(["convert", str(source), *arguments]) == 0
    assert_same(contents(out), contents(source))
    with h5py.File(out) as file, h5py.File(source) as old:
        pixels = file[FIRST]["pixels"]
        assert pixels.compression == (None if storage[0] == "none" else storage[0])
        assert pixels.chunks == (None if storage[1] == 100 else (storage[1], 64, 64, 3))
        assert {name: file.attrs[name] for name in old.attrs} == dict(old.attrs)
        assert (file.attrs["num_persons"], file.attrs["num_samples"]) == (4, 24)
    assert AlignedDataset(out).is_aligned and failed(out) == []


def test_the_same_command_gives_the_same_bytes(folder: Path, tmp_path: Path):
    for name in ("a.h5", "b.h5"):
        convert([folder / "EYEDIAP_64.h5"], tmp_path / name, storage=Storage("gzip", 9), progress=False)
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_files_are_joined_and_persons_chosen(folder: Path, tmp_path: Path):
    inputs = [folder / f"{name}_64.h5" for name in ("GazeCapture", "MPIIGaze")]
    expected = contents(inputs[0]) | contents(inputs[1])
    convert(inputs, tmp_path / "both.h5", progress=False)
    assert_same(contents(tmp_path / "both.h5"), expected)
    with h5py.File(tmp_path / "both.h5") as file:
        assert file.attrs["dataset"] == "GazeCapture + MPIIGaze"
        assert [source["file"] for source in json.loads(file.attrs["sources"])] == [path.name for path in inputs]
    convert(inputs, tmp_path / "two.h5", persons=["00002", "p01"], progress=False)
    assert_same(
        contents(tmp_path / "two.h5"), {k: v for k, v in expected.items() if k.split("/")[0] in ("00002", "p01")}
    )


def test_groups_are_carried_along(grouped: Path, folder: Path, tmp_path: Path):
    source, out = grouped / "GazeCapture_aligned_64.h5", tmp_path / "out.h5"
    convert([source], out, persons=["00001", "00003"], storage=Storage("lzf", 4, 2), progress=False)
    groups = AlignedDataset(out).groups()
    assert groups is not None and groups.tolist() == [0, 0, 1, 1, 2] * 2
    assert_same(contents(out), {k: v for k, v in contents(source).items() if k[:5] in ("00001", "00003")})
    with pytest.raises(UserError, match="persons differ in what they hold"):
        convert([grouped / "MPIIGaze_64.h5", folder / "GazeCapture_64.h5"], out, overwrite=True, progress=False)


def test_persons_of_a_part_of_a_split(folder: Path, tmp_path: Path):
    split, out = folder / "gazecapture_split.json", tmp_path / "test.h5"
    arguments = ["convert", str(folder / "GazeCapture_64.h5"), "--out", str(out)]
    assert main([*arguments, "--split", str(split), "--part", "test"]) == 0
    assert GazeDataset(out).person_ids == json.loads(split.read_text())["test"]


def test_bgr_files_become_rgb(folder: Path, tmp_path: Path):
    source, bgr = folder / "Columbia_64.h5", tmp_path / "bgr.h5"
    with h5py.File(bgr, "w") as file, h5py.File(source) as old:
        for person, group in old.items():
            file[f"{person}/pixels"], file[f"{person}/labels"] = group["pixels"][()][..., ::-1], group["labels"][()]
    convert([bgr], tmp_path / "rgb.h5", color_order="BGR", progress=False)
    assert_same(contents(tmp_path / "rgb.h5"), contents(source))
    assert not GazeDataset(tmp_path / "rgb.h5", default_is_bgr=True).is_bgr


def test_what_clashes_is_refused_in_one_message(folder: Path, tmp_path: Path):
    patches, aligned, out = folder / "GazeCapture_64.h5", folder / "GazeCapture_aligned_64.h5", tmp_path / "out.h5"
    with pytest.raises(UserError) as error:
        convert([patches, aligned], out, progress=False)
    for part in (
        "attribute view differs",
        "attribute patch_size differs",
        "4 persons are in more than one",
        "differ in what",
    ):
        assert part in str(error.value)
    assert not out.exists()


def test_prefixes_tell_persons_apart(folder: Path, tmp_path: Path):
    source, out = Path(shutil.copy(folder / "GazeCapture_64.h5", tmp_path)), tmp_path / "out.h5"
    with h5py.File(source, "a") as file:
        file.attrs["split"] = json.dumps({"train": ["00000"]})
    convert([source, source], out, prefixes=["a_", "b_"], progress=False)
    with h5py.File(out) as file:
        assert list(file) == [f"{prefix}0000{i}" for prefix in ("a_", "b_") for i in range(4)]
        assert "split" not in file.attrs  # it has the names without a prefix
    assert failed(out) == ["duplicates"]


def test_mistakes_of_convert_are_said_and_leave_files_alone(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    source, out = str(folder / "GazeCapture_64.h5"), tmp_path / "out.h5"
    out.write_text("mine")
    for arguments, message in (
        ([source, "--out", str(out)], "pass --overwrite"),
        ([source, "--out", source, "--overwrite"], "is an input"),
        ([source, "--out", str(tmp_path / "new.h5"), "--persons", "00001", "x"], "1 in none of the inputs (x)"),
        ([source, "--out", str(tmp_path / "new.h5"), "--chunk", "0"], "expected 1 or more"),
        ([source, "--out", str(tmp_path / "new.h5"), "--part", "test"], "belong together"),
        ([source, "--out", str(tmp_path / "new.h5"), "--prefixes", "a", "b"], "one for each of the 1 inputs"),
        (
            [source, "--out", str(tmp_path / "new.h5"), "--split", "none.json", "--part", "test"],
            "--split: none.json cannot",
        ),
        ([source, "--out", str(tmp_path), "--overwrite"], f"--out: {tmp_path} is a folder; name a file"),
        (
            [source, "--out", str(out / "new.h5")],
            f"{out} cannot be written ({out} is not a writable folder: Not a directory)",
        ),
    ):
        assert main(["convert", *arguments]) == 2
        assert message in capsys.readouterr().err
    assert out.read_text() == "mine" and [path.name for path in tmp_path.iterdir()] == ["out.h5"]


def test_long_attributes_are_kept(folder: Path, tmp_path: Path):
    source, names = Path(shutil.copy(folder / "Columbia_64.h5", tmp_path)), json.dumps(["x" * 9] * 20_000)
    with h5py.File(source, "a") as file:
        file.attrs["split"] = names
    convert([source], tmp_path / "out.h5", progress=False)
    with h5py.File(tmp_path / "out.h5") as file:
        assert file.attrs["split"] == names


def test_a_disk_without_room_is_found_before_the_work(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    needed = 24 * (64 * 64 * 3 + 8 * 4)  # pixels and labels
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(needed - 1))
    arguments = ["convert", str(folder / "GazeCapture_64.h5"), "--out", str(tmp_path / "out.h5")]
    assert main(arguments) == 2
    assert (
        "out.h5: No space left on device. The disk has 0.3 MB left, the samples take 0.3 MB" in capsys.readouterr().err
    )
    assert not list(tmp_path.iterdir())
    assert main([*arguments, "--compression", "gzip"]) == 0  # nobody knows how much these take
    monkeypatch.setattr(shutil, "disk_usage", lambda _: namedtuple("Usage", "free")(needed))
    assert main([*arguments, "--overwrite"]) == 0


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_a_disk_that_fills_up_gives_one_line_and_leaves_no_file(folder: Path, tmp_path: Path, compression: str):
    code = (
        "import resource, sys; from preprocess.__main__ import main\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    arguments = ["convert", str(folder / "GazeCapture_64.h5"), "--out", str(tmp_path / "out.h5")]
    command = [sys.executable, "-c", code, *arguments, "--compression", compression]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and not list(tmp_path.iterdir())
    said = f"python -m preprocess convert: {tmp_path}/out.h5: File too large. The disk has"
    assert done.stderr.startswith(said) and done.stderr.count("\n") == 1


def test_a_damaged_input_leaves_no_output(folder: Path, tmp_path: Path):
    path = tmp_path / "damaged.h5"
    convert([folder / "GazeCapture_64.h5"], path, storage=Storage("gzip"), progress=False)
    with h5py.File(path) as file:
        chunk = file["00003"]["pixels"].id.get_chunk_info(2)
    with path.open("r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(bytes(chunk.size))
    assert failed(path) == ["layout"]
    with pytest.raises(DamagedFile, match="damaged.h5: person '00003' cannot be read"):
        convert([path], tmp_path / "out.h5", progress=False)
    assert [found.name for found in tmp_path.iterdir()] == ["damaged.h5"]


# Attributes of other programs


@pytest.mark.parametrize(("value", "shown"), [([1, 0], "array([1, 0])"), ("few", "few"), (h5py.Empty("f4"), "Empty(")])
def test_attributes_of_another_type_fail_by_name(folder: Path, tmp_path: Path, value: object, shown: str) -> None:
    names = ("color_order", "gaze_known", "complete", "num_samples")
    path = Path(shutil.copy(folder / "GazeCapture_64.h5", tmp_path / "x.h5"))
    with h5py.File(path, "r+") as file:
        file.attrs.update(dict.fromkeys((*names, "view", "dataset", "split_sha256"), value))
    found = levels(path)
    assert [found[name][0] for name in (*names, "view")] == ["FAIL"] * 4 + ["warning"]
    assert all(shown in found[name][1] for name in names)
    assert main(["verify", str(path), "--quiet"]) == 1
    make_page(path, tmp_path / "x.html", persons=1, columns=1)
    with pytest.raises(UserError, match="color_order is"):
        convert([path], tmp_path / "out.h5", progress=False)


def test_a_patch_size_that_is_an_array_fails(folder: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(folder / "GazeCapture_aligned_64.h5", tmp_path / "x.h5"))
    with h5py.File(path, "r+") as file:
        file.attrs["patch_size"] = [128, 128]
    assert levels(path)["patch_size"] == ("FAIL", " 'array([128, 128])', expected 128")


def test_convert_keeps_an_array_as_it_is_but_joins_no_other_meaning(folder: Path, tmp_path: Path) -> None:
    path, out = Path(shutil.copy(folder / "GazeCapture_64.h5", tmp_path / "x.h5")), tmp_path / "out.h5"
    with h5py.File(path, "r+") as file:
        file.attrs.update({"patch_size": [128, 128], "dataset": [1, 2]})
    convert([path], out, progress=False)
    with h5py.File(out) as file:
        assert file.attrs["patch_size"].tolist() == [128, 128]
    with pytest.raises(UserError, match="attribute patch_size differs"):
        convert([path, folder / "Columbia_64.h5"], out, overwrite=True, progress=False)


def test_a_split_nested_too_deep_fails(folder: Path, tmp_path: Path) -> None:
    path = Path(shutil.copy(folder / "GazeCapture_64.h5", tmp_path / "x.h5"))
    with h5py.File(path, "r+") as file:
        file.attrs["split"] = "[" * 60_000
    assert levels(path)["split"] == ("FAIL", " the attribute cannot be read as JSON, part -> persons")
