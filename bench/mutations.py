"""Random mutations of valid messages: seeded, so that a finding can be repeated."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Final

from .raw import Frames

#: Offset and size of the prefix's fields: version, kind, flags, status, timeout, count, header, extra, limit.
_FIELDS: Final = (
    (4, 1), (5, 1), (6, 1), (7, 1), (16, 8), (24, 4), (28, 4), (32, 4), (36, 4), (40, 4), (44, 4),
)  # fmt: skip
_ID: Final = slice(8, 16)
_MAX_NOISE: Final = 4096

Mutation = Callable[[random.Random, Frames], Frames]


def _flip_bits(draw: random.Random, frames: Frames) -> Frames:
    index = draw.randrange(len(frames))
    frame = bytearray(frames[index])
    for _ in range(draw.randint(1, 8) if frame else 0):
        frame[draw.randrange(len(frame))] ^= 1 << draw.randrange(8)
    return [*frames[:index], bytes(frame), *frames[index + 1 :]]


def _set_field(draw: random.Random, frames: Frames) -> Frames:
    offset, size = draw.choice(_FIELDS)
    top = (1 << 8 * size) - 1
    value = draw.choice((0, 1, 2, 7, top, top - 1, top >> 1, (top >> 1) + 1, draw.randint(0, top)))
    frame = bytearray(frames[0])
    frame[offset : offset + size] = value.to_bytes(size, "little")
    return [bytes(frame), *frames[1:]]


def _cut(draw: random.Random, frames: Frames) -> Frames:
    index = draw.randrange(len(frames))
    frame = frames[index]
    return [*frames[:index], frame[: draw.randint(0, len(frame))], *frames[index + 1 :]]


def _append(draw: random.Random, frames: Frames) -> Frames:
    index = draw.randrange(len(frames))
    noise = draw.randbytes(draw.choice((1, 4, 16, draw.randint(1, _MAX_NOISE))))
    return [*frames[:index], frames[index] + noise, *frames[index + 1 :]]


def _remove_bytes(draw: random.Random, frames: Frames) -> Frames:
    frame = frames[0]
    start = draw.randint(0, len(frame))
    return [frame[:start] + frame[start + draw.randint(1, 16) :], *frames[1:]]


def _insert_bytes(draw: random.Random, frames: Frames) -> Frames:
    frame = frames[0]
    at = draw.randint(0, len(frame))
    return [frame[:at] + draw.randbytes(draw.randint(1, 16)) + frame[at:], *frames[1:]]


def _drop_frame(draw: random.Random, frames: Frames) -> Frames:
    index = draw.randrange(len(frames))
    return [*frames[:index], *frames[index + 1 :]] or [b""]


def _add_frames(draw: random.Random, frames: Frames) -> Frames:
    # Parts of one piece: with hundreds of frames, to draw each anew takes longer than all the rest.
    noise, sizes = draw.randbytes(64), draw.choices((0, 1, 4, 64), k=draw.choice((1, 1, 2, 300)))
    extra = [noise[-size:] if size else b"" for size in sizes]
    at = draw.randint(0, len(frames))
    return [*frames[:at], *extra, *frames[at:]]


def _swap_frames(draw: random.Random, frames: Frames) -> Frames:
    shuffled = list(frames)
    draw.shuffle(shuffled)
    return shuffled


def _noise(draw: random.Random, frames: Frames) -> Frames:
    return [draw.randbytes(draw.randint(0, 200)) for _ in frames]


def _noise_body(draw: random.Random, frames: Frames) -> Frames:
    return [frames[0][:48] + draw.randbytes(max(0, len(frames[0]) - 48)), *frames[1:]]


MUTATIONS: Final[tuple[Mutation, ...]] = (
    _flip_bits, _set_field, _cut, _append, _remove_bytes, _insert_bytes, _drop_frame, _add_frames,
    _swap_frames, _noise, _noise_body,
)  # fmt: skip


def mutate(draw: random.Random, messages: Sequence[Frames], request_id: int) -> Frames:
    """One of ``messages`` under an id of its own, changed once or a few times.

    Some come out valid: the server has to tell which.
    """
    frames = list(draw.choice(messages))
    first = bytearray(frames[0])
    first[_ID] = request_id.to_bytes(8, "little")
    frames[0] = bytes(first)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        frames = draw.choice(MUTATIONS)(draw, frames)
        if len(frames[0]) < 48 and draw.random() < 0.5:
            break
    return frames
