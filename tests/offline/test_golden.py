from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ralis_backend.cli import app
from ralis_backend.offline.golden import compare, query_network

BLOCKS = [
    "entropy_map",
    "predicted_class",
    "class_counts",
    "pooled_entropy",
    "labelled_divergences",
    "unlabelled_divergences",
    "state_features",
    "q_values",
    "q_values_end_to_end",
]
WIDTHS = {  # the authors' names: BatchNorm, linear map, outputs
    "state": [("bn1_s", "conv1_s", 256), ("bn2_s", "conv2_s", 128), ("bn3_s", "conv3_s", 1)],
    "action": [("bn1", "conv1", 512), ("bn2", "conv2", 256), ("bn3", "conv3", 128)],
    "summary": [("bn_last_s", "linear_s", 128)],
    "value": [("bn_final", "conv_final2", 1)],
    "gate": [("bn_bias", "conv_bias", 1)],
}


@dataclass(frozen=True)
class Case:
    """What a generated file holds; sizes are (height, width)."""

    num_classes: int
    region: tuple[int, int]
    grid: tuple[int, int]
    image: tuple[int, int]
    state_image: tuple[int, int]
    num_images: int
    num_state_images: int
    num_labelled: int
    num_pools: int


CASES = [
    Case(5, (33, 40), (3, 4), (99, 160), (99, 160), 2, 1, 9, 3),
    Case(19, (16, 24), (2, 1), (35, 50), (32, 24), 3, 2, 0, 6),
    Case(2, (9, 8), (1, 3), (9, 24), (20, 31), 1, 1, 40, 1),
]


def _normed(values: np.ndarray, name: str, arrays: dict) -> np.ndarray:
    scale = arrays[f"net/{name}.weight"] / np.sqrt(arrays[f"net/{name}.running_var"] + 1e-5)
    return (values - arrays[f"net/{name}.running_mean"]) * scale + arrays[f"net/{name}.bias"]


def _linear(values: np.ndarray, name: str, arrays: dict) -> np.ndarray:
    weight = arrays[f"net/{name}.weight"]
    return values @ weight.reshape(weight.shape[:2]).T + arrays[f"net/{name}.bias"]


def _through(values: np.ndarray, branch: str, arrays: dict) -> np.ndarray:
    for norm, linear, _ in WIDTHS[branch]:
        values = _linear(np.maximum(_normed(values, norm, arrays), 0), linear, arrays)
    return values


def _slow_q(arrays: dict, state: np.ndarray, actions: np.ndarray) -> np.ndarray:
    summary = _through(_through(state, "state", arrays)[:, 0], "summary", arrays)
    q_values = []
    for action in actions.reshape(-1, actions.shape[-1]):
        joined = np.concatenate([_through(action[:-64], "action", arrays), summary])
        value = _linear(_normed(joined, "bn_final", arrays), "conv_final2", arrays)
        gate = 1 / (1 + np.exp(-_through(action[-64:], "gate", arrays)))
        q_values.append((gate * value)[0])
    return np.array(q_values).reshape(actions.shape[:2])


def _weights(case: Case, rng: np.random.Generator) -> dict:
    length = case.num_classes + 1 + 192
    num_state_regions = case.num_state_images * case.grid[0] * case.grid[1]
    starts = {"state": length, "action": length, "summary": num_state_regions}
    arrays = {}
    for branch, layers in WIDTHS.items():
        num_in = {**starts, "value": 256, "gate": 64}[branch]
        for norm, linear, num_out in layers:
            tail = () if branch == "summary" else (1,)
            weight = rng.normal(0, num_in**-0.5, (num_out, num_in, *tail))
            arrays[f"net/{linear}.weight"] = weight.astype(np.float32)
            arrays[f"net/{linear}.bias"] = rng.normal(size=num_out).astype(np.float32)
            for parameter in ("weight", "bias", "running_mean", "running_var"):
                drawn = rng.uniform(0.5, 1.5, num_in)
                arrays[f"net/{norm}.{parameter}"] = drawn.astype(np.float32)
            arrays[f"net/{norm}.num_batches_tracked"] = np.array(3)
            num_in = num_out
    for norm in ("bn1_s", "bn1"):  # pixel counts come in
        arrays[f"net/{norm}.running_var"][: case.num_classes + 1] *= 300**2
    return arrays


def _maps(logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    probabilities = np.exp(logits.astype(np.float64))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return -(probabilities * np.log(probabilities)).sum(axis=1), logits.argmax(axis=1)


def _slow_regions(case: Case, entropies: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """(R, C + 1 + 192), region by region, cell by cell."""
    (height, width), rows = case.region, []
    for image in range(len(entropies)):
        for row, col in np.ndindex(case.grid):
            place = (
                image,
                slice(row * height, (row + 1) * height),
                slice(col * width, (col + 1) * width),
            )
            counts = np.bincount(classes[place].ravel(), minlength=case.num_classes + 1)
            cell = (height // 8, width // 8)
            cells = [
                entropies[place][y * cell[0] : (y + 1) * cell[0], x * cell[1] : (x + 1) * cell[1]]
                for y, x in np.ndindex(8, 8)
            ]
            pooled = [[pool(each) for each in cells] for pool in (np.min, np.mean, np.max)]
            rows.append(np.concatenate([np.where(counts == 0, 1e-7, counts), *pooled]))
    return np.array(rows)


def _slow_histograms(candidates: np.ndarray, references: np.ndarray) -> np.ndarray:
    histograms = np.zeros((len(candidates), 32))
    for index, candidate in enumerate(candidates):
        p = candidate / candidate.sum()
        values = [np.sum(p * np.log(p / (q / q.sum()))) for q in references]
        if values:
            histograms[index] = np.histogram(values, bins=32)[0] / len(values)
    return histograms


def _generated(case: Case) -> dict:
    """Every array of a golden file, by slow code in float64."""
    rng = np.random.default_rng(7)
    scale = rng.uniform(0.3, 3, (case.num_classes, 1, 1))
    shape = (case.num_images, case.num_classes, *case.image)
    candidate_logits = (scale * rng.normal(size=shape)).astype(np.float32)
    state_shape = (case.num_state_images, case.num_classes, *case.state_image)
    state_logits = (scale * rng.normal(size=state_shape)).astype(np.float32)
    labelled = rng.dirichlet(np.ones(case.num_classes + 1), case.num_labelled)
    labelled = np.where(labelled < 0.05, 1e-7, labelled)
    entropies, classes = _maps(candidate_logits)
    regions = _slow_regions(case, entropies, classes)
    state = _slow_regions(case, *_maps(state_logits))
    histograms = regions[:, : case.num_classes + 1]
    divergences = [_slow_histograms(histograms, each) for each in (labelled, histograms)]
    actions = np.concatenate([regions, *divergences], axis=1)
    actions = actions.reshape(case.num_pools, -1, actions.shape[1])
    weights = _weights(case, rng)
    return {
        "candidate_logits": candidate_logits,
        "state_logits": state_logits,
        "labelled_class_distributions": labelled,
        "entropy_map": entropies.astype(np.float32),
        "predicted_class": classes.astype(np.uint8),
        "action_features": actions.astype(np.float32),
        "state_features": state.astype(np.float32),
        "q_values": _slow_q(weights, state, actions).astype(np.float32),
        "num_classes": np.array(case.num_classes),
        "region_height": np.array(case.region[0]),
        "region_width": np.array(case.region[1]),
        "rows": np.array(case.grid[0]),
        "cols": np.array(case.grid[1]),
        **weights,
    }


@pytest.fixture(scope="module")
def arrays() -> dict:
    return _generated(CASES[2])


def _saved(path: Path, arrays: dict) -> Path:
    np.savez(path, **arrays)
    return path


def test_our_features_and_network_give_the_authors_numbers(shared):
    differences = compare(shared / "golden" / "ralis_camvid_like.npz")
    assert [difference.block for difference in differences] == BLOCKS
    assert all(difference.is_within for difference in differences)
    assert {each.block for each in differences if each.mean_total_variation is not None} == {
        "labelled_divergences",
        "unlabelled_divergences",
    }


@pytest.mark.parametrize("case", CASES)
def test_files_of_other_geometries_agree_with_slow_code(case, tmp_path):
    differences = compare(_saved(tmp_path / "file.npz", _generated(case)))
    assert [difference.block for difference in differences if not difference.is_within] == []


def test_no_labelled_region_may_be_an_array_without_a_second_axis(tmp_path):
    none = {**_generated(CASES[1]), "labelled_class_distributions": np.zeros(0)}
    assert all(each.is_within for each in compare(_saved(tmp_path / "file.npz", none)))


@pytest.mark.parametrize(
    ("name", "place", "change", "blocks"),
    [
        ("entropy_map", (0, 2, 3), 0.001, ["entropy_map"]),
        ("predicted_class", (0, 2, 3), 1, ["predicted_class"]),
        ("action_features", (0, 0, 0), 1, ["class_counts"]),
        ("action_features", (0, 1, 2), 0.01, ["class_counts"]),
        ("action_features", (0, 0, 3 + 191), 0.001, ["pooled_entropy"]),
        ("action_features", (0, 0, 3 + 192), 0.5, ["labelled_divergences"]),
        ("action_features", (0, 0, -1), 0.5, ["unlabelled_divergences"]),
        ("state_features", (1, 5), 0.001, ["state_features"]),
        ("q_values", (0, 1), 0.01, ["q_values", "q_values_end_to_end"]),
    ],
)
def test_a_changed_number_is_found_in_its_block(arrays, tmp_path, name, place, change, blocks):
    changed = {**arrays, name: arrays[name].copy()}
    changed[name][place] += change
    differences = compare(_saved(tmp_path / "file.npz", changed))
    beyond = [difference.block for difference in differences if not difference.is_within]
    assert [block for block in beyond if block in blocks] == blocks
    assert set(beyond) <= {*blocks, "q_values"}  # Q-values depend on the features in the file
    difference = next(each for each in differences if each.block == blocks[0])
    if name == "predicted_class":
        assert difference.max_difference == 1 / arrays[name].size
    elif name != "q_values":
        assert difference.max_difference == pytest.approx(change, rel=1e-2)


def test_histograms_are_compared_by_their_mean_total_variation(arrays, tmp_path):
    moved = {**arrays, "action_features": arrays["action_features"].copy()}
    histograms = moved["action_features"][0, :, -32:]  # three regions
    histograms[0, 0] -= 0.25
    histograms[0, 9] += 0.25
    differences = {each.block: each for each in compare(_saved(tmp_path / "file.npz", moved))}
    difference = differences["unlabelled_divergences"]
    assert difference.max_difference == pytest.approx(0.25)
    assert difference.mean_total_variation == pytest.approx(0.25 / 3)
    assert difference.tolerance == 1e-3


def test_large_q_values_are_compared_relatively(arrays, tmp_path):
    large = {
        **arrays,
        "net/conv_final2.weight": 1e4 * arrays["net/conv_final2.weight"],
        "net/conv_final2.bias": 1e4 * arrays["net/conv_final2.bias"],
        "q_values": 1e4 * arrays["q_values"],
    }
    assert all(each.is_within for each in compare(_saved(tmp_path / "file.npz", large)))


@pytest.mark.parametrize("name", sorted({*_generated(CASES[2])}))
def test_a_missing_array_is_named(arrays, tmp_path, name):
    rest = {key: value for key, value in arrays.items() if key != name}
    with pytest.raises(ValueError, match=f"no array '{name}'"):
        compare(_saved(tmp_path / "file.npz", rest))


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("rows", np.array(0), r"rows is 0, expected one whole number"),
        ("cols", np.array([1, 2]), r"cols is \[1, 2\], expected one whole number"),
        ("region_height", np.array(8.5), r"region_height is 8.5, expected one whole number"),
        ("region_width", np.array(9), r"at least 9 x 27 pixels to hold 1 x 3 regions of 9 x 9"),
        ("num_classes", np.array(3), r"candidate_logits has shape \(1, 2, .* \(any, 3, any, any"),
        ("q_values", np.zeros((3, 1)), r"q_values has shape \(3, 1\), expected \(1, 3\)"),
        ("action_features", np.zeros((2, 1, 259)), r"action_features holds 2 pools.* 3 candidates"),
        ("action_features", np.zeros((0, 3, 259)), r"action_features holds 0 pools"),
        ("action_features", np.zeros(3), r"action_features has shape \(3,\)"),
        ("state_features", np.zeros((6, 195)), r"state_features has .* expected \(3, 195\)"),
        ("labelled_class_distributions", -np.ones((1, 3)), r"a negative entry"),
        ("labelled_class_distributions", np.ones((4, 2)), r"expected \(any, 3\)"),
        ("net/conv2.weight", np.zeros((256, 511, 1)), r"net/conv2.weight.*expected \(256, 512\)"),
        ("net/linear_s.weight", np.zeros((128, 4)), r"net/linear_s.weight.*expected \(any, 3\)"),
        ("net/bn1.running_var", np.full(195, np.nan), r"net/bn1.running_var \(float64\)"),
        ("state_logits", np.array("a"), r"state_logits \(<U1\) has values that are no finite"),
        ("q_values", np.array(None), r"no .npz file of plain arrays \(Object arrays"),
    ],
)
def test_a_wrong_array_is_named_with_what_was_expected(arrays, tmp_path, name, value, message):
    with pytest.raises(ValueError, match=message):
        compare(_saved(tmp_path / "file.npz", {**arrays, name: value}))


@pytest.mark.parametrize(
    "name", ["candidate_logits", "state_logits", "entropy_map", "action_features", "q_values"]
)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_refused(arrays, tmp_path, name, value):
    broken = {**arrays, name: arrays[name].copy()}
    broken[name].flat[1] = value
    with pytest.raises(ValueError, match=f"{name} .*no finite numbers"):
        compare(_saved(tmp_path / "file.npz", broken))


def test_what_is_no_golden_file_is_refused(arrays, tmp_path):
    path = _saved(tmp_path / "file.npz", arrays)
    whole = path.read_bytes()
    contents = {"empty": b"", "text": b"features", "cut": whole[: len(whole) // 2]}
    middle = len(whole) // 2
    contents["flipped"] = whole[:middle] + bytes(255 - byte for byte in whole[middle:][:64])
    contents["flipped"] += whole[middle + 64 :]
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=f"{name} is no .npz file of plain arrays"):
            compare(tmp_path / name)
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(ValueError, match=r"is no \.npz file"):
        compare(tmp_path / "single.npy")
    with pytest.raises(ValueError, match="cannot be read"):
        compare(tmp_path / "nowhere.npz")
    with pytest.raises(ValueError, match="cannot be read"):
        compare(tmp_path)


def test_the_loaded_network_is_ready_to_score(arrays):
    network = query_network(arrays)
    assert not network.training
    with torch.no_grad():
        q_values = network(
            torch.from_numpy(arrays["state_features"])[None],
            torch.from_numpy(arrays["action_features"]),
        )
    np.testing.assert_allclose(q_values, arrays["q_values"], rtol=1e-3, atol=1e-4)


def test_bench_golden_prints_json_and_fails_beyond_the_tolerance(arrays, tmp_path):
    path = str(_saved(tmp_path / "file.npz", arrays))
    passed = CliRunner().invoke(app, ["bench", "golden", path])
    assert passed.exit_code == 0
    report = json.loads(passed.stdout)
    assert report.pop("passed") is True
    assert list(report) == BLOCKS
    assert report["unlabelled_divergences"]["mean_total_variation"] < 1e-3
    assert report["state_features"]["mean_total_variation"] is None

    strict = CliRunner().invoke(app, ["bench", "golden", path, "--tolerance", "0"])
    assert strict.exit_code == 1
    report = json.loads(strict.stdout)
    assert report["passed"] is False
    assert report["pooled_entropy"]["is_within"] is False
    assert report["labelled_divergences"]["is_within"] is True


def test_bench_golden_of_a_damaged_file_is_a_value_error(tmp_path):
    result = CliRunner().invoke(app, ["bench", "golden", str(tmp_path / "nowhere.npz")])
    assert isinstance(result.exception, ValueError)
