"""What is told of who a person is after an edit: distances between embeddings. The network stands aside."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import kept_identity
from benchmarks.kept_identity import (
    Known,
    between_persons,
    compressed,
    halved,
    known_faces,
    moved,
    of_one_person,
    summary,
)
from core.command import UserError
from core.redirection.photo_files import Photo
from tests import photos

FACE = photos.face_of()


def grey(image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """A stand-in for the network: a person is their mean grey level."""
    return np.array([image.mean(), 0.0])


def person(level: int, name: str = "a.png") -> Known:
    image = np.full((8, 8, 3), level, np.uint8)
    return Known(Path(name), Photo(image), FACE, grey(image, FACE.landmarks))


def everybody_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """But in black."""
    seen = SimpleNamespace(landmarks=FACE.landmarks)
    monkeypatch.setattr(kept_identity, "measure", lambda image, face: seen if image.any() else None)


def test_an_edit_moves_a_face_from_itself_and_lost_faces_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    everybody_is_found(monkeypatch)
    found = moved(grey, [person(10), person(100), person(5)], lambda photo, face: photo.pixels - 5)
    assert found == [5.0, 5.0]  # the third is black after it


def test_two_photographs_of_one_person_are_not_different_persons() -> None:
    faces = [person(10, "a.png"), person(13, "b.png"), person(30, "c.png"), person(40, "c.png")]
    assert between_persons(faces, [Path("a.png"), Path("b.png")]) == [20, 30, 17, 27, 10]
    assert between_persons(faces, [Path("c.png")]) == [3, 20, 30, 17, 27, 10]  # two faces of one photograph


def test_all_pairs_of_photographs_of_one_person_count(monkeypatch: pytest.MonkeyPatch) -> None:
    levels = {"a.png": 10, "b.png": 14, "c.png": 20}
    monkeypatch.setattr(kept_identity, "known_faces", lambda embed, path: [person(levels[path.name])])
    assert of_one_person(grey, [Path(name) for name in levels]) == [4, 10, 6]


@pytest.mark.parametrize(("names", "said"), [(["a.png"], "a.png alone"), (["a.png", "two.png"], "two.png: 2 faces")])
def test_photographs_that_show_not_one_person_are_refused(
    names: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kept_identity, "known_faces", lambda embed, path: [person(1)] * (1 + (path.name == "two.png")))
    with pytest.raises(UserError, match=said):
        of_one_person(grey, [Path(name) for name in names])


def test_a_face_is_known_by_its_own_photograph(monkeypatch: pytest.MonkeyPatch) -> None:
    everybody_is_found(monkeypatch)
    photo = Photo(np.full((8, 8, 3), 7, np.uint8))
    monkeypatch.setattr(kept_identity, "faces_in", lambda path: [(photo, FACE)])
    (known,) = known_faces(grey, Path("a.png"))
    assert known.embedding.tolist() == [7.0, 0.0]


@pytest.mark.parametrize("change", [halved, compressed])
def test_a_worse_photograph_keeps_its_size_and_colours(change: kept_identity.Change) -> None:
    columns = np.linspace(40, 200, 65)
    pixels = np.rint(np.stack([columns, columns[::-1], np.full(65, 90)], -1))[None].repeat(33, 0).astype(np.uint8)
    worse = change(Photo(pixels), FACE)
    assert worse.shape == pixels.shape
    assert 0 < np.abs(worse.astype(float) - pixels).max() < 12


def test_rows_tell_least_mean_and_largest_and_an_empty_one_says_so() -> None:
    lines = summary({"gaze 0 20": [0.1, 0.2, 0.6], "lost": []}).splitlines()
    assert lines[-2:] == ["| gaze 0 20 | 3 | 0.10 | 0.30 | 0.60 |", "| lost | 0 | nan | nan | nan |"]


def test_a_missing_network_is_one_sentence_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(kept_identity, "find_spec", lambda name: None)
    assert kept_identity.main(["--photos", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "pip install dlib-bin face-recognition-models" in said
