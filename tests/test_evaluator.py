"""Metrics: per sample, from the seed, whatever the batch size."""

from pathlib import Path

import numpy as np
import pytest
import torch

from core.evaluator import Measurements, evaluate, measure, perturbations
from core.report import COLUMNS, TILE, Pictures, sample_pairs, write_report
from dataset import GazeDataset
from tests.tiny import PoolEstimator, random_batch, tiny_flow, tiny_redirector, write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> GazeDataset:
    return GazeDataset(write_dataset(tmp_path_factory.mktemp("data") / "tiny.h5"), name="tiny")


def run(dataset: GazeDataset, **settings: object) -> Measurements:
    return evaluate(tiny_redirector(), PoolEstimator(), dataset, **({"seed": 0} | settings))


def test_the_batch_size_changes_nothing(dataset: GazeDataset) -> None:
    u, v = run(dataset, batch_size=1), run(dataset, batch_size=7)
    assert u.values.keys() == v.values.keys()
    for name in u.values:
        assert np.allclose(u.values[name], v.values[name], atol=2e-4), name


def test_the_seed_fixes_pairs_and_perturbations(dataset: GazeDataset) -> None:
    u, v, other = run(dataset), run(dataset), run(dataset, seed=1)
    for name in u.values:
        assert np.array_equal(u.values[name], v.values[name])
    assert not np.array_equal(u.pairs, other.pairs)


def test_a_perturbation_belongs_to_the_image_not_to_its_place_in_the_batch() -> None:
    model, cpu = tiny_redirector(), torch.device("cpu")
    many = perturbations(model, 0, np.array([4, 5, 6]), cpu)
    one = perturbations(model, 0, np.array([6]), cpu)
    for name in one:
        assert torch.equal(one[name][0], many[name][2])
        assert many[name].abs().max() <= 0.1 * np.pi


def test_every_published_metric_is_there(dataset: GazeDataset) -> None:
    wanted = {
        "gaze_a", "head_a", "gaze_redirection", "head_redirection", "l1", "l1_all",
        "head_to_gaze", "gaze_to_head", "gaze_disentangle", "head_disentangle",
    }  # fmt: skip
    assert wanted <= run(dataset).values.keys()


def test_the_disentanglement_part_can_be_left_out(dataset: GazeDataset) -> None:
    assert not {"head_to_gaze", "gaze_disentangle"} & run(dataset, disentanglement=False).values.keys()


def test_batched_perturbations_equal_one_decode_at_a_time() -> None:
    model, estimator, batch = tiny_redirector().eval(), PoolEstimator(), random_batch()
    noise = perturbations(model, 0, np.arange(4), torch.device("cpu"))
    together = measure(model, estimator, batch, noise=noise)
    a = model.encode(batch["image_a"])
    moved = model.decode(model.rotate(a, {"head": a.conditions["head"] + noise["head"]}))
    gaze = [estimator(image).gaze for image in (model.decode(a), moved)]
    from models.geometry import angular_error_deg

    assert torch.allclose(together["head_to_gaze"], angular_error_deg(*gaze), atol=1e-3)


def test_summary_of_known_values() -> None:
    result = Measurements("x", np.zeros((4, 2), int), np.zeros(4, int), {"l1": np.array([1.0, 2.0, 3.0, 4.0])})
    row = result.summary()["l1"]
    assert row == {"mean": 2.5, "standard_error": pytest.approx(np.sqrt(5 / 3) / 2), "count": 4}


def test_an_only_image_is_left_out_and_no_ratio_is_made_of_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no person has two images"):
        run(GazeDataset(write_dataset(tmp_path / "one.h5", samples=1)))


def test_identity_is_not_claimed_where_it_cannot_be_told(tmp_path: Path) -> None:
    for persons, samples in ((1, 6), (3, 2)):
        dataset = GazeDataset(write_dataset(tmp_path / f"{persons}.h5", persons=persons, samples=samples))
        assert "identity_kept" not in run(dataset).summary()


def test_an_identity_is_looked_for_among_other_images(dataset: GazeDataset) -> None:
    """Persons differ by their background here, so a real image finds its own person without itself."""
    assert run(dataset).values["identity_real_target"].mean() == 1.0


def test_baselines_are_worked_from_the_labels(dataset: GazeDataset) -> None:
    result, labels = run(dataset), dataset.labels()
    a, b = labels[result.pairs[:, 0], :2], labels[result.pairs[:, 1], :2]
    vector = lambda x: np.stack([np.cos(x[:, 0]) * np.sin(x[:, 1]), np.sin(x[:, 0]), np.cos(x[:, 0]) * np.cos(x[:, 1])])  # noqa: E731, E501
    wanted = np.degrees(np.arccos((vector(a) * vector(b)).sum(0)))
    assert np.allclose(result.values["gaze_pair_angle"], wanted, atol=1e-2)


def test_report_and_pictures_are_written(dataset: GazeDataset, tmp_path: Path) -> None:
    report = write_report(tmp_path, [run(dataset)], {"step": 3})
    text = report.read_text()
    assert "| gaze_redirection |" in text and "label_blind" in text and "- step: 3" in text
    pictures = Pictures(dataset, sample_pairs(dataset, 2, 0), torch.device("cpu"))
    pictures.write_samples(tiny_redirector(), tmp_path / "samples", walk_frames=4)
    names = {path.name for path in (tmp_path / "samples" / "00000").iterdir()}
    assert names >= {"source.png", "target.png", "redirected.png", "all_factors.png", "walk_gaze.mp4"}


def test_a_person_whose_name_is_a_path_gets_a_folder_among_the_samples(dataset: GazeDataset, tmp_path: Path) -> None:
    pictures = Pictures(dataset, sample_pairs(dataset, 2, 0), torch.device("cpu"))
    pictures.persons = ["..", "名" * 90]
    pictures.write_samples(tiny_redirector(), tmp_path / "run" / "samples", walk_frames=0)
    assert len(list((tmp_path / "run" / "samples").iterdir())) == 2
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["samples"]


def test_a_grid_shows_the_parts_of_a_redirector_that_has_any(dataset: GazeDataset) -> None:
    pictures, flow = Pictures(dataset, sample_pairs(dataset, 2, 0), torch.device("cpu")), tiny_flow()
    assert pictures.comparison_picture(tiny_redirector()).shape[1] == len(COLUMNS) * TILE
    shown = pictures.comparison(flow)
    assert list(shown) == [*COLUMNS, "warp", "mirror", "paint", "shares"]
    own, mirror, paint = (shown["shares"] / 2 + 0.5).split(1, dim=1)  # as colours in [-1, 1]
    made = own * shown["warp"] + mirror * shown["mirror"] + paint * shown["paint"]
    assert torch.allclose(made, shown["redirected"], atol=1e-5)
    assert pictures.comparison_picture(flow).shape[1] == len(shown) * TILE


def test_videos_are_h264_with_the_right_colours(dataset: GazeDataset, tmp_path: Path) -> None:
    import av

    from utils import write_video

    red = np.zeros((64, 64, 3), np.uint8)
    red[..., 0] = 255
    write_video(tmp_path / "red.mp4", [red] * 3)
    with av.open(str(tmp_path / "red.mp4")) as video:
        stream = video.streams.video[0]
        frame = next(video.decode(stream)).to_ndarray(format="rgb24")
        assert stream.codec_context.name == "h264" and stream.codec_context.pix_fmt == "yuv420p"
    assert frame[32, 32, 0] > 200 and frame[32, 32, 2] < 50


def test_picture_colours_are_those_of_the_file(dataset: GazeDataset, tmp_path: Path) -> None:
    import cv2

    plain = GazeDataset(dataset.path, equalize=False)
    pictures = Pictures(plain, sample_pairs(plain, 1, 0), torch.device("cpu"))
    pictures.write_samples(tiny_redirector(), tmp_path, walk_frames=0)
    written = cv2.cvtColor(cv2.imread(str(tmp_path / "00000" / "source.png")), cv2.COLOR_BGR2RGB)
    source = int(sample_pairs(plain, 1, 0)[0, 0])
    assert np.array_equal(written, plain[source]["image"].permute(1, 2, 0).numpy())
