"""What every converter writes, taken on to the end: it passes `verify`, and both kinds of redirector train and are
evaluated on it. The trees are those of the converters' own tests, a few images each."""

import json
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

from core import sources
from core.config_default import Config
from dataset import GazeDataset
from dataset_aligned import AlignedDataset
from preprocess.__main__ import main as preprocess
from tests import (
    test_columbia,
    test_eth_xgaze,
    test_eyediap,
    test_ffhq_aligned,
    test_gazecapture,
    test_mpiifacegaze,
    test_train_redirtrans,
    test_train_st_ed,
)
from tests.raw_trees import make_person, photograph, read_attributes, write_image, write_landmarks
from train_st_ed import main as train

setup = test_train_st_ed.setup  # the fixtures: a folder with estimators and config.json, or gan.json and a pair
gan = test_train_redirtrans.gan
RECORDINGS = {"00002": "train", "00003": "train", "00028": "val", "00033": "test"}
SUBJECTS = [f"subject{i:04d}" for i in (0, 3, 4, 7)]


@dataclass(frozen=True)
class Converted:
    """A folder of raw trees, each in a folder of its own with its landmarks, and of the files made from them."""

    folder: Path
    files: dict[str, Path] = field(default_factory=dict)

    def tree(self, name: str) -> Path:
        """Where a raw tree goes."""
        (self.folder / name).mkdir(exist_ok=True)
        return self.folder / name / "raw"

    def convert(self, name: str, tree: Path, *command: str) -> None:
        """Runs `python -m preprocess` on a tree; the file is `files[name]`."""
        out, landmarks = self.folder / "data" / f"{name}.h5", tree.with_name("landmarks")
        given = [str(tree)] if "images" in command else ["--raw", str(tree)]
        given += ["--out", str(out), "--workers", "1"]
        given += ["--landmarks", str(landmarks), "--min-coverage", "0.9"] if landmarks.is_dir() else []
        assert preprocess([*command, *given]) == 0
        self.files[name] = out


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """A file by every converter, from a few drawn images each."""
    made = Converted(tmp_path_factory.mktemp("converted"))
    tree = made.tree("gazecapture")
    for i, (person, part) in enumerate(RECORDINGS.items()):
        shots = test_gazecapture.shots_of(test_gazecapture.PORTRAIT, 3, seed=i)
        test_gazecapture.write_recording(tree, person, shots, part=part, seed=i)
    made.convert("gazecapture", tree, "gazecapture")
    made.convert("aligned", tree, "ffhq-aligned", "gazecapture")
    raw, mat = made.tree("mpii"), made.tree("mpii-mat")
    for i in range(2):
        test_mpiifacegaze.write_person(raw, f"p{i:02d}", test_mpiifacegaze.shots_of(2, seed=i), seed=i)
        test_mpiifacegaze.write_mat(mat, f"p{i:02d}", test_mpiifacegaze.normalized_shots(3, seed=i))
    made.convert("mpii", raw, "mpiifacegaze")
    made.convert("mpii-mat", mat, "mpiifacegaze")
    test_columbia.write_person(made.tree("columbia"), "0001", test_columbia.ANGLES[:3])
    made.convert("columbia", made.tree("columbia"), "columbia")
    test_eyediap.write_session(made.tree("eyediap"), "1_A_DS_S", test_eyediap.shots_of(0))
    made.convert("eyediap", made.tree("eyediap"), "eyediap")
    raw, release = made.tree("xgaze"), made.tree("xgaze-448")
    for i, subject in enumerate(SUBJECTS):
        test_eth_xgaze.write_subject(raw, subject, {0: test_eth_xgaze.shots_of(0, 2, seed=i)}, seed=i)
    made.convert("xgaze", raw, "eth-xgaze")
    shots = test_eth_xgaze.release_shots(2, seed=0, size=448)
    test_eth_xgaze.write_release(release / "train/subject0003.h5", shots, size=448)
    made.convert("xgaze-448", release, "eth-xgaze")
    tree = made.tree("own")
    for i, shot in enumerate(test_ffhq_aligned.SHOTS):
        write_image(tree / "anna" / f"{i}.jpg", photograph(make_person(), shot))
        write_landmarks(tree.with_name("landmarks"), f"anna/{i}.jpg", shot.landmarks())
    made.convert("own", tree, "images", "--focal", "900")
    return made


def flags(**files: Path) -> list[str]:
    """Of train_st_ed.py, for settings that name files."""
    return [part for key, path in files.items() for part in (f"--{key.replace('_', '-')}", str(path))]


def report_of(run: Path) -> dict:
    """Data set -> measurements, of the newest report."""
    newest = max((run / "report").iterdir(), key=lambda folder: int(folder.name))
    return json.loads((newest / "report.json").read_text())["datasets"]


@pytest.mark.parametrize(
    ("name", "dataset", "count"),
    [
        ("gazecapture", "GazeCapture", 12), ("aligned", "GazeCapture", 12), ("mpii", "MPIIFaceGaze", 4),
        ("mpii-mat", "MPIIFaceGaze", 6), ("columbia", "Columbia", 3), ("eyediap", "EYEDIAP", 3),
        ("xgaze", "ETH-XGaze", 8), ("xgaze-448", "ETH-XGaze", 2), ("own", "photographs", 2),
    ],
)  # fmt: skip
def test_every_file_passes(converted: Converted, name: str, dataset: str, count: int, capsys) -> None:
    assert preprocess(["verify", str(converted.files[name]), "--quiet"]) == 0
    said = capsys.readouterr().out
    assert "Passed" in said and "FAIL" not in said
    attributes = read_attributes(converted.files[name])
    assert (attributes["dataset"], attributes["num_samples"]) == (dataset, count)


@pytest.mark.parametrize(
    ("name", "source", "is_bgr"), [("gazecapture", "gc/val", False), ("columbia", "columbia", True)]
)
def test_a_published_file_made_by_hand_is_read_the_same(
    converted: Converted, tmp_path: Path, name: str, source: str, is_bgr: bool
) -> None:
    """As published: no attribute, compressed, several images a chunk, float64; Columbia and EYEDIAP are BGR."""
    published = tmp_path / "published.h5"
    with h5py.File(converted.files[name]) as ours, h5py.File(published, "w") as theirs:
        persons = sorted(ours)
        for person in persons:
            pixels = ours[person]["pixels"][()]
            order = pixels[..., ::-1] if is_bgr else pixels
            options = {"chunks": (2, *pixels.shape[1:]), "compression": "lzf"}
            theirs.create_dataset(f"{person}/pixels", data=order, **options)
            theirs[f"{person}/labels"] = ours[person]["labels"][()].astype(np.float64)
    (tmp_path / "split.json").write_text(json.dumps(dict.fromkeys(("train", "val", "test"), persons)))
    read = []
    for path in (converted.files[name], published):
        config = Config(gazecapture_split=str(tmp_path / "split.json"), image_size=128)
        key = "gazecapture_file" if source == "gc/val" else f"{source}_file"
        config = config.model_copy(update={key: str(path)})
        read.append(next(data for data in sources.build_test_sets(config) if data.name == source))
    ours, theirs = read
    assert len(ours) == len(theirs) > 2 and np.array_equal(ours.labels(), theirs.labels())
    for i in range(len(ours)):
        assert all(torch.equal(value, theirs[i][key]) for key, value in ours[i].items())


def test_st_ed_trains_and_is_evaluated_on_converted_files(converted: Converted, setup: Path, capsys) -> None:
    (setup / "gazecapture_split.json").unlink()  # the converter's lies beside the data
    files = converted.files
    data = flags(gazecapture_file=files["gazecapture"], mpiigaze_file=files["mpii"], columbia_file=files["columbia"])
    data += flags(eyediap_file=files["eyediap"])
    assert train(["config.json", *data, "--num-training-steps", "2"]) == 0
    said = capsys.readouterr().out
    for name, found in (("gc/train", "6 images of 2"), ("gc/val", "3 images of 1"), ("columbia", "3 images of 1")):
        assert f"{name}: {found} persons from" in said
    assert said.count("(RGB).") == 6  # Columbia and EYEDIAP, too, which are published as BGR
    lines = [json.loads(line) for line in (setup / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "train/l1" in line] == [1, 2]
    counts = {name: found["gaze_redirection"]["count"] for name, found in report_of(setup / "run").items()}
    assert counts == {"gc/val": 3, "gc/test": 3, "mpi": 4, "columbia": 3, "eyediap": 3}
    others = flags(mpiigaze_file=files["mpii-mat"], columbia_file=files["xgaze"], eyediap_file=files["xgaze-448"])
    again = ["--num-training-steps", "2", "--skip-training", "--load-step", "2"]
    assert train(["config.json", *data, *others, *again]) == 0
    counts = {name: found["gaze_redirection"]["count"] for name, found in report_of(setup / "run").items()}
    assert counts == {"gc/val": 3, "gc/test": 3, "mpi": 6, "columbia": 8, "eyediap": 2}


def test_st_ed_trains_on_eth_xgaze_with_a_split_of_ones_own(converted: Converted, setup: Path) -> None:
    """The published split has no part to validate with, and its test subjects have no labels."""
    split = {"train": SUBJECTS[:2], "val": SUBJECTS[2:3], "test": SUBJECTS[3:]}
    (setup / "own_split.json").write_text(json.dumps(split))
    data = flags(gazecapture_file=converted.files["xgaze"], gazecapture_split=setup / "own_split.json")
    assert train(["config.json", *data, "--num-training-steps", "2"]) == 0
    counts = {name: found["gaze_redirection"]["count"] for name, found in report_of(setup / "run").items()}
    assert counts == {"gc/val": 2, "gc/test": 2}


def test_the_split_stored_with_the_data_serves_where_no_other_is_given(
    converted: Converted, setup: Path, capsys
) -> None:
    """ETH-XGaze's has nobody to validate with and no labels of test subjects: these sets are left out, and said so."""
    (setup / "gazecapture_split.json").unlink()
    data = flags(gazecapture_file=converted.files["xgaze"], mpiigaze_file=converted.files["mpii"])
    assert train(["config.json", *data, "--num-training-steps", "2"]) == 0
    said = capsys.readouterr().out
    assert f"gc/train: persons by the split stored with {converted.files['xgaze']}" in said
    assert "gc/train: 8 images of 4 persons" in said and "gc/val: left out, since" in said
    assert list(report_of(setup / "run")) == ["mpi"]


def test_a_split_beside_the_data_comes_before_the_one_stored_with_it(
    converted: Converted, setup: Path, tmp_path: Path, capsys
) -> None:
    (setup / "gazecapture_split.json").unlink()
    (tmp_path / "data").mkdir()
    data = Path(shutil.copy(converted.files["gazecapture"], tmp_path / "data" / "own.h5"))
    with h5py.File(data) as file:
        first, *others = sorted(file)
    beside = data.with_name("gazecapture_split.json")
    beside.write_text(json.dumps({"train": [first], "val": others[:1], "test": others[1:]}))
    assert train(["config.json", *flags(gazecapture_file=data, batch_size=2), "--num-training-steps", "2"]) == 0
    said = capsys.readouterr().out
    assert f"gc/train: persons by the split in {beside}." in said and "gc/train: 3 images of 1 persons" in said


def test_the_gan_trains_and_is_evaluated_on_aligned_faces(converted: Converted, gan: Path, capsys) -> None:
    (gan / "gazecapture_split.json").unlink()
    files = converted.files
    data = flags(gazecapture_file=files["gazecapture"], gazecapture_aligned_file=files["aligned"])
    data += flags(inversions_path=gan / "inversions")
    assert train(["gan.json", *data, "--num-training-steps", "2"]) == 0
    assert f"gc/train: 6 images of 2 persons from {files['aligned']} (RGB)." in capsys.readouterr().out
    assert report_of(gan / "run")["gc/test"]["gaze_redirection"]["count"] == 3
    assert AlignedDataset(files["aligned"]).is_aligned


@pytest.mark.parametrize("key", ["gazecapture_file", "mpiigaze_file", "columbia_file"])
def test_ones_own_photographs_are_refused(converted: Converted, setup: Path, key: str, capsys) -> None:
    (setup / "gazecapture_split.json").unlink()
    if key != "gazecapture_file":
        (setup / "gazecapture_split.json").write_text('{"train": ["00000"], "val": ["00002"], "test": ["00003"]}')
    assert train(["config.json", *flags(**{key: converted.files["own"]})]) == 2
    assert f"{key}: {converted.files['own']} says that nobody knows where its people look" in capsys.readouterr().err
    assert not (setup / "run").exists()


def test_the_documented_lines_make_groups_of_days_and_sessions(converted: Converted, tmp_path: Path) -> None:
    page = (Path(__file__).parents[1] / "docs/data.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    for name, key in (("mpii", rb"(p\d+/day\d+)/"), ("eyediap", rb"(.*_S/\w+)/")):
        path = Path(shutil.copy(converted.files[name], tmp_path))
        exec(lines.replace("data/MPIIGaze_128.h5", str(path)), {})
        with h5py.File(path) as file:
            sessions = [re.match(key, sample)[1] for person in file.values() for sample in person["name"]]  # type: ignore[index]
        data = GazeDataset(path)
        groups = data.groups()
        assert groups is not None and len(groups) == len(sessions)
        same = (groups[:, None] == groups) & (data.person_of[:, None] == data.person_of)
        assert (same == (np.array(sessions)[:, None] == np.array(sessions))).all()
        assert preprocess(["verify", str(path), "--quiet"]) == 0
