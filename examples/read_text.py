"""Read the text in images, with PP-OCR's three models: where is text, is it upside down, what does it say?

    python examples/read_text.py IMAGE... [--server tcp://127.0.0.1:8700 | --local REPOSITORY]

Images are of any size, so the tensors' shapes differ from request to request.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from packages import package_file
from PIL import Image
from predictors import Predict, add_arguments, open_predict
from text_boxes import Box, text_boxes

DETECT, DIRECTION, RECOGNIZE = "text_detect", "text_direction", "text_recognize"
#: The longer side of what the detector sees is at most this, and both are multiples of STEP (it needs 32).
LONGEST_SIDE, STEP = 960, 64
LINE_HEIGHT = 48
DIRECTION_WIDTH = 192
#: Lines are padded to at least this width, and to multiples of STEP: so few different shapes occur.
SHORTEST_LINE = 320
UPSIDE_DOWN = 0.9
READABLE = 0.5


@dataclass(frozen=True)
class TextLine:
    """A piece of text, the mean probability of its characters, and where it is in the image (pixels)."""

    text: str
    confidence: float
    box: Box


def read_text(image: Image.Image, predict: Predict) -> list[TextLine]:
    """All text in an image, in reading order; three requests, the last two with one row per piece of text."""
    image = image.convert("RGB")
    boxes = find_text(image, predict)
    if not boxes:
        return []
    crops, turned = turn_upright([_crop(image, box) for box in boxes], predict)
    lines = [
        TextLine(text, confidence, box)
        for (text, confidence), box in zip(recognize(crops, predict), boxes, strict=True)
        if text and confidence >= READABLE
    ]
    # If the page as a whole is upside down, it ends where it seemed to begin.
    return lines[::-1] if turned > len(boxes) / 2 else lines


def find_text(image: Image.Image, predict: Predict) -> list[Box]:
    """Boxes around the text of an RGB image, in its own pixels and in reading order."""
    scale = min(1.0, LONGEST_SIDE / max(image.size))
    width, height = (max(1, round(side * scale)) for side in image.size)
    # Padding keeps the letters' proportions, where stretching to the next multiple would not.
    canvas = Image.new("RGB", (_round_up(width), _round_up(height)), image.getpixel((0, 0)))
    canvas.paste(image.resize((width, height), Image.Resampling.BILINEAR))
    (probability,) = predict(DETECT, {"x": _tensor(canvas)[np.newaxis]}).values()
    found = text_boxes(probability[0, 0, :height, :width])
    return [Box(*(round(side / scale) for side in box)) for box in found]


def turn_upright(crops: Sequence[Image.Image], predict: Predict) -> tuple[list[Image.Image], int]:
    """The crops with those turned that are upside down, and how many these are."""
    rows = np.stack([_line(crop, DIRECTION_WIDTH) for crop in crops])
    (probabilities,) = predict(DIRECTION, {"x": rows}).values()
    wrong = [bool(value >= UPSIDE_DOWN) for value in probabilities[:, 1]]
    half_turn = Image.Transpose.ROTATE_180
    return [
        crop.transpose(half_turn) if turn else crop for crop, turn in zip(crops, wrong, strict=True)
    ], sum(wrong)


def recognize(crops: Sequence[Image.Image], predict: Predict) -> list[tuple[str, float]]:
    """Text and mean probability of its characters, for each crop of a line of text."""
    longest = max(math.ceil(LINE_HEIGHT * crop.width / crop.height) for crop in crops)
    width = _round_up(max(SHORTEST_LINE, longest))
    rows = np.stack([_line(crop, width) for crop in crops])
    (probabilities,) = predict(RECOGNIZE, {"x": rows}).values()
    return [_decode(row) for row in probabilities]


@cache
def characters() -> list[str]:
    """Character of each class, from the model's own metadata; class 0 is CTC's blank."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    path = package_file("rapidocr-onnxruntime", "rapidocr_onnxruntime/models/*_rec_infer.onnx")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    listed = session.get_modelmeta().custom_metadata_map["character"]
    return ["", *listed.splitlines(), " "]


def _decode(probabilities: np.ndarray) -> tuple[str, float]:
    """Greedy CTC: the best class of each position, without repetitions and blanks."""
    best = probabilities.argmax(axis=1)
    kept = best != 0
    kept[1:] &= best[1:] != best[:-1]
    if not kept.any():
        return "", 0.0
    confidence = float(probabilities.max(axis=1)[kept].mean())
    return "".join(characters()[index] for index in best[kept]), confidence


def _crop(image: Image.Image, box: Box) -> Image.Image:
    crop = image.crop(box)
    # Columns of text are read as lines that were turned.
    return crop.transpose(Image.Transpose.ROTATE_90) if crop.height >= 1.5 * crop.width else crop


def _line(crop: Image.Image, width: int) -> np.ndarray:
    """float32[3, LINE_HEIGHT, width]: scaled to the height, squeezed if too wide, padded with 0 if narrow."""
    scaled = min(width, math.ceil(LINE_HEIGHT * crop.width / crop.height))
    row = np.zeros((3, LINE_HEIGHT, width), np.float32)
    row[:, :, :scaled] = _tensor(crop.resize((scaled, LINE_HEIGHT), Image.Resampling.BILINEAR))
    return row


def _tensor(image: Image.Image) -> np.ndarray:
    """float32[3, height, width], blue first, -1 to 1."""
    return (np.asarray(image, np.float32)[:, :, ::-1] / 127.5 - 1.0).transpose(2, 0, 1)


def _round_up(size: int) -> int:
    return -(-size // STEP) * STEP


def main(arguments: list[str] | None = None) -> int:
    """Command line: the text of each image, line by line."""
    parser = argparse.ArgumentParser(description="Read the text in images.")
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    add_arguments(parser)
    options = parser.parse_args(arguments)
    with open_predict(options) as predict:
        for path in options.images:
            with Image.open(path) as image:
                lines = read_text(image, predict)
            print(f"{path}: {len(lines)} piece(s) of text")
            for line in lines:
                print(f"  {line.text}  ({line.confidence:.0%}, at {line.box.left},{line.box.top})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
