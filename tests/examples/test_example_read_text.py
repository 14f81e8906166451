from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from predictors import Predict
from text_boxes import Box, _components, text_boxes

Image = pytest.importorskip("PIL.Image", reason="needs Pillow: pip install pillow")
read_text = pytest.importorskip("read_text")
samples = pytest.importorskip("samples")


def without_spaces(lines: list[read_text.TextLine]) -> list[str]:
    """PP-OCR v4 is trained on Chinese as well and often leaves out spaces; letters and digits are exact."""
    return [line.text.replace(" ", "") for line in lines]


EXPECTED = [line.replace(" ", "") for line in samples.TEXT]


@pytest.mark.parametrize("font_size", [20, 36, 64])
def test_text_is_read(font_size: int, predict: Predict):
    lines = read_text.read_text(samples.render_text(font_size=font_size), predict)
    assert without_spaces(lines) == EXPECTED
    assert min(line.confidence for line in lines) > 0.85


def test_light_on_dark(predict: Predict):
    image = samples.render_text(ink="yellow", paper="navy")
    assert without_spaces(read_text.read_text(image, predict)) == EXPECTED


def test_upside_down(predict: Predict):
    image = samples.render_text().transpose(Image.Transpose.ROTATE_180)
    assert without_spaces(read_text.read_text(image, predict)) == EXPECTED


def test_two_columns_are_read_line_by_line(predict: Predict):
    left, right = samples.render_text(["north", "south"]), samples.render_text(["east", "west"])
    image = Image.new("RGB", (left.width + right.width + 200, left.height), "white")
    image.paste(left)
    image.paste(right, (left.width + 200, 0))
    found = without_spaces(read_text.read_text(image, predict))
    assert found == ["north", "east", "south", "west"]


def test_boxes_are_in_the_pixels_of_the_image(predict: Predict):
    image = samples.render_text(["HELLO WORLD"], font_size=120)
    assert image.width > read_text.LONGEST_SIDE / 2
    big = image.resize((2400, round(image.height * 2400 / image.width)))
    (line,) = read_text.read_text(big, predict)
    ink = np.nonzero(np.asarray(big.convert("L")) < 128)
    assert line.box.left == pytest.approx(ink[1].min(), abs=40)
    assert line.box.right == pytest.approx(ink[1].max(), abs=40)
    assert line.box.top == pytest.approx(ink[0].min(), abs=40)
    assert line.box.bottom == pytest.approx(ink[0].max(), abs=40)


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (300, 200)])
@pytest.mark.parametrize("mode", ["L", "RGBA", "1"])
def test_images_without_text(size: tuple[int, int], mode: str, predict: Predict):
    assert read_text.read_text(Image.new(mode, size), predict) == []


def test_every_class_of_the_recognizer_has_a_character(repository: Path, predict: Predict):
    rows = np.zeros((1, 3, read_text.LINE_HEIGHT, 64), np.float32)
    (probabilities,) = predict(read_text.RECOGNIZE, {"x": rows}).values()
    assert probabilities.shape[2] == len(read_text.characters())
    assert {"a", "Z", "0", "=", " "} <= set(read_text.characters())


def test_decoding_drops_blanks_and_repetitions(repository: Path):
    index = {character: number for number, character in enumerate(read_text.characters())}
    path = [0, index["l"], index["l"], 0, index["l"], index["o"], 0]
    probabilities = np.full((len(path), len(index)), 0.0, np.float32)
    probabilities[np.arange(len(path)), path] = 0.75
    assert read_text._decode(probabilities) == ("llo", 0.75)
    assert read_text._decode(probabilities[:1]) == ("", 0.0)


def flood_fill(mask: np.ndarray) -> list[Box]:
    """The obvious way, as a reference."""
    todo = {(int(y), int(x)) for y, x in np.argwhere(mask)}
    boxes = []
    while todo:
        stack, members = [todo.pop()], []
        while stack:
            y, x = stack.pop()
            members.append((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & todo
            todo -= near
            stack += near
        ys, xs = zip(*members, strict=True)
        boxes.append(Box(min(xs), min(ys), max(xs) + 1, max(ys) + 1))
    return boxes


@settings(max_examples=200, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 9), st.integers(1, 12))))
def test_components_are_those_of_a_flood_fill(mask: np.ndarray):
    assert sorted(_components(mask)) == sorted(flood_fill(mask))


def test_boxes_grow_by_the_unclip_ratio_and_stay_inside():
    probability = np.zeros((60, 200), np.float32)
    probability[19:30, 49:150] = 0.9  # the mask grows by one pixel to the right and downwards
    probability[0:10, 160:200] = 0.4  # text by its pixels, too faint as a box
    assert text_boxes(probability) == [Box(49 - 9, 19 - 9, 151 + 9, 31 + 9)]
    assert text_boxes(np.ones((8, 8), np.float32)) == [Box(0, 0, 8, 8)]


def test_command_line(repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "text.png"
    samples.render_text(["HELLO"]).save(path)
    assert read_text.main([str(path), "--local", str(repository)]) == 0
    assert "HELLO" in capsys.readouterr().out
