"""From the text detector's probability per pixel to boxes around lines of text.

This is the post-processing of DB ("Real-time Scene Text Detection with Differentiable Binarization", Liao et
al. 2020) with PP-OCR's constants, for boxes that are parallel to the image's edges. NumPy is all it needs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

#: A pixel is text above this probability.
PIXEL_THRESHOLD = 0.3
#: A box is kept if its pixels' mean probability is at least this.
BOX_THRESHOLD = 0.5
#: The network is trained to mark shrunk text; a box grows by area * UNCLIP_RATIO / perimeter on each side.
UNCLIP_RATIO = 1.6
#: Shorter side of a box before it grows, pixels.
SHORTEST_SIDE = 3


class Box(NamedTuple):
    """Pixels; left and top belong to the box, right and bottom do not."""

    left: int
    top: int
    right: int
    bottom: int


def text_boxes(probability: np.ndarray) -> list[Box]:
    """Boxes around the text in a probability map, in reading order.

    Args:
        probability: float[height, width], 0 to 1.
    """
    mask = probability > PIXEL_THRESHOLD
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:, 1:] |= grown[:, :-1].copy()
    boxes = [_unclip(box, probability.shape) for box in _components(grown) if _is_text(box, probability)]
    return _reading_order(boxes)


def _is_text(box: Box, probability: np.ndarray) -> bool:
    if min(box.right - box.left, box.bottom - box.top) < SHORTEST_SIDE:
        return False
    pixels = probability[box.top : box.bottom, box.left : box.right]
    return float(pixels.mean()) >= BOX_THRESHOLD


def _unclip(box: Box, shape: tuple[int, ...]) -> Box:
    width, height = box.right - box.left, box.bottom - box.top
    distance = round(width * height * UNCLIP_RATIO / (2 * (width + height)))
    return Box(
        max(0, box.left - distance),
        max(0, box.top - distance),
        min(shape[1], box.right + distance),
        min(shape[0], box.bottom + distance),
    )


def _components(mask: np.ndarray) -> list[Box]:
    """Bounding boxes of the 8-connected components of a boolean image.

    Joins horizontal runs of pixels that touch in neighbouring rows: far fewer steps than pixels.
    """
    edges = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    rows, starts = np.nonzero(edges == 1)
    ends = np.nonzero(edges == -1)[1]
    runs = list(zip(rows.tolist(), starts.tolist(), ends.tolist(), strict=True))
    parents = list(range(len(runs)))
    above = 0
    for here, (row, start, end) in enumerate(runs):
        while runs[above][0] < row - 1 or (runs[above][0] == row - 1 and runs[above][2] < start):
            above += 1
        other = above
        while runs[other][0] == row - 1 and runs[other][1] <= end:
            parents[_root(parents, here)] = _root(parents, other)
            other += 1
    members: dict[int, list[int]] = {}
    for here in range(len(runs)):
        members.setdefault(_root(parents, here), []).append(here)
    return [_bounds(rows[group], starts[group], ends[group]) for group in members.values()]


def _root(parents: list[int], run: int) -> int:
    while parents[run] != run:
        parents[run] = parents[parents[run]]
        run = parents[run]
    return run


def _bounds(rows: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Box:
    return Box(int(starts.min()), int(rows.min()), int(ends.max()), int(rows.max()) + 1)


def _reading_order(boxes: list[Box]) -> list[Box]:
    """From the top, then from the left. A box is on the line whose first box holds its middle."""
    lines: list[list[Box]] = []
    for box in sorted(boxes, key=lambda box: box.top):
        if lines and (box.top + box.bottom) / 2 < lines[-1][0].bottom:
            lines[-1].append(box)
        else:
            lines.append([box])
    return [box for line in lines for box in sorted(line)]
