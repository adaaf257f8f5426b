"""JSON that anybody may have written, where a raw data set or a flag has one: refused in one sentence."""

import argparse
import json
from pathlib import Path

import pytest

from core.command import UserError
from dataset import load_person_split, read_person_split
from preprocess.datasets.gazecapture import _read_recording as read_recording
from preprocess.datasets.gazecapture import read_focal_lengths, read_split
from preprocess.person_file import DamagedPerson
from preprocess.rechunk import _read_persons as read_persons

HUGE = "1" + "0" * 400
ODD = {
    "nothing": "",
    "null": "null",
    "a number": HUGE,
    "a number of more digits than Python reads": "1" * 5000,
    "a text": '"x"',
    "nested": "[" * 100_000 + "]" * 100_000,
    "nested objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "a list of lists": "[[1], [2]]",
    "no UTF-8": "\udcff",
    "cut short": '{"train": ["00',
}
VALUES = [HUGE, "-" + HUGE, "1e999", "null", '"x"', "[]", "{}", "[[" * 50 + "]]" * 50]
FILES = {
    "frames": ["00000.jpg", "00001.jpg"],
    "info": {"Dataset": "train", "DeviceName": "iPhone 6"},
    "appleFace": {name: [1, 1] for name in ("X", "Y", "W", "H", "IsValid")},
    **{name: {"IsValid": [1, 1]} for name in ("appleLeftEye", "appleRightEye", "faceGrid")},
    "dotInfo": {"XCam": [0.5, 1], "YCam": [2, 3], "Time": [0, 1]},
    "screen": {"Orientation": [1, 1]},
}


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode(errors="surrogateescape"))
    return path


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    (tmp_path / "00002").mkdir()
    for name, content in FILES.items():
        write(tmp_path / "00002" / f"{name}.json", json.dumps(content))
    read_recording(tmp_path / "00002")
    return tmp_path / "00002"


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("odd", ODD)
def test_a_recording_with_an_odd_file_is_refused(recording: Path, file: str, odd: str) -> None:
    write(recording / f"{file}.json", ODD[odd])
    with pytest.raises(DamagedPerson, match=rf"{file}\.json"):
        read_recording(recording)
    read_split(recording.parent, [recording.name])


@pytest.mark.parametrize("file, column", [(file, column) for file in list(FILES)[1:] for column in FILES[file]])
@pytest.mark.parametrize("value", VALUES)
def test_a_recording_with_an_odd_value_is_refused(recording: Path, file: str, column: str, value: str) -> None:
    content = FILES[file] | {column: "VALUE" if file == "info" else [1, "VALUE"]}  # type: ignore[operator]
    write(recording / f"{file}.json", json.dumps(content).replace('"VALUE"', value))
    if column == "DeviceName":
        assert isinstance(read_recording(recording)[2], str)
    else:
        with pytest.raises(DamagedPerson, match=column):
            read_recording(recording)


@pytest.mark.parametrize("text", [*ODD.values(), *(f'{{"iPhone 6": {value}}}' for value in VALUES)])
def test_odd_focal_lengths_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(UserError, match="--focal-lengths: "):
        read_focal_lengths(write(tmp_path / "x.json", text))


@pytest.mark.parametrize("text", [*ODD.values(), *(f'{{"train": [{value}]}}' for value in VALUES if value != '"x"')])
def test_odd_splits_are_refused(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "x.json", text)
    with pytest.raises(UserError, match="x.json"):
        load_person_split(path, "train")
    with pytest.raises(UserError, match="--split: .*x.json"):
        read_persons(argparse.Namespace(split=path, part="train", persons=None))
    if text.startswith("{") and "train" in text and text.endswith("}"):
        assert isinstance(read_person_split(path), dict)
