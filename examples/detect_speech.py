"""When does somebody speak? Silero VAD gives the probability of speech for every 32 ms of sound.

    python examples/detect_speech.py WAV... [--live] [--server tcp://127.0.0.1:8700 | --local REPOSITORY]

A recording goes to the model ``speech_blocks``, up to 16 s in a call. With ``--live`` it goes to ``speech``
in the pieces in which a microphone would deliver it, and the model's state travels with each call: so any
server can answer any call, and the calls of many streams share a batch.
"""

from __future__ import annotations

import argparse
import sys
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from predictors import Predict, add_arguments, open_predict

LIVE, BLOCKS = "speech", "speech_blocks"
SAMPLE_RATE = 16_000
#: Samples per answer, how many samples before them the model wants to see, answers per call of BLOCKS.
FRAME, CONTEXT, FRAMES_PER_CALL = 512, 64, 512
FRAME_SECONDS = FRAME / SAMPLE_RATE
#: Speech begins at the one and ends below the other probability.
BEGIN, END = 0.5, 0.35
#: Shorter pauses do not end speech, and shorter speech is not reported, seconds.
SHORTEST_PAUSE, SHORTEST_SPEECH = 0.1, 0.25


@dataclass(frozen=True)
class Speech:
    """Somebody speaks from ``start`` to ``end``, seconds from the beginning."""

    start: float
    end: float


def detect_speech(samples: np.ndarray, predict: Predict) -> list[Speech]:
    """When somebody speaks in a recording, float32[samples] at 16 kHz, -1 to 1."""
    return speech_intervals(speech_probabilities(samples, predict))


def speech_probabilities(samples: np.ndarray, predict: Predict) -> np.ndarray:
    """Probability of speech in every 32 ms of a recording: float32[frames]; one call per 16 s."""
    frames = _frames(samples)
    contexts = np.zeros((len(frames), CONTEXT), np.float32)
    contexts[1:] = frames[:-1, -CONTEXT:]
    rows = np.concatenate((contexts, frames), axis=1)
    state = {name: np.zeros((1, 1, 128), np.float32) for name in ("h", "c")}
    found = [np.zeros(0, np.float32)]
    for first in range(0, len(rows), FRAMES_PER_CALL):
        outputs = predict(BLOCKS, {"input": rows[first : first + FRAMES_PER_CALL], **state})
        state = {"h": outputs["hn"], "c": outputs["cn"]}
        found.append(outputs["speech_probs"])
    return np.concatenate(found)


class SpeechStream:
    """One live stream: feed it 32 ms at a time. It keeps the model's state between the calls."""

    def __init__(self, predict: Predict) -> None:
        self._predict = predict
        self._state = np.zeros((1, 2, 128), np.float32)
        self._context = np.zeros(CONTEXT, np.float32)

    def feed(self, frame: np.ndarray) -> float:
        """Probability that the next 512 samples, float32[512], are speech."""
        row = np.concatenate((self._context, frame))[np.newaxis]
        outputs = self._predict(LIVE, {"input": row, "state_in": self._state})
        self._state = outputs["state_out"]
        self._context = frame[-CONTEXT:]
        return float(outputs["output"][0, 0])


def live_probabilities(samples: np.ndarray, predict: Predict) -> np.ndarray:
    """The same as :func:`speech_probabilities`, one call per 32 ms."""
    stream = SpeechStream(predict)
    return np.array([stream.feed(frame) for frame in _frames(samples)], np.float32)


def speech_intervals(probabilities: np.ndarray) -> list[Speech]:
    """Where the probability rises above one threshold, until it stays below a lower one."""
    found: list[Speech] = []
    start: int | None = None
    voiced = 0  # frame after the last that was loud enough to go on
    for frame, probability in enumerate([*probabilities.tolist(), *[0.0] * _pause_frames()]):
        if probability >= BEGIN and start is None:
            start = frame
        if probability >= END:
            voiced = frame + 1
        elif start is not None and frame + 1 - voiced >= _pause_frames():
            speech = Speech(start * FRAME_SECONDS, voiced * FRAME_SECONDS)
            start = None
            if speech.end - speech.start >= SHORTEST_SPEECH:
                found.append(speech)
    return found


def _pause_frames() -> int:
    return max(1, round(SHORTEST_PAUSE / FRAME_SECONDS))


def _frames(samples: np.ndarray) -> np.ndarray:
    """float32[frames, 512]; the last one is padded with silence."""
    count = -(-len(samples) // FRAME)
    return np.pad(samples, (0, count * FRAME - len(samples))).astype(np.float32).reshape(count, FRAME)


def read_wav(path: Path) -> np.ndarray:
    """Samples of a 16-bit PCM WAV file as float32[samples], mixed to mono and resampled to 16 kHz.

    Raises:
        ValueError: not 16-bit PCM.
    """
    with wave.open(str(path), "rb") as file:
        rate, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
        if width != 2:
            raise ValueError(f"{path}: samples of {8 * width} bits; expected 16")
        data = file.readframes(file.getnframes())
    samples = np.frombuffer(data, "<i2").reshape(-1, channels).mean(axis=1) / 32768
    return _resample(samples, rate).astype(np.float32)


def _resample(samples: np.ndarray, rate: int) -> np.ndarray:
    """Cuts the spectrum off, or pads it, so that nothing above half the new rate can fold back."""
    if rate == SAMPLE_RATE or len(samples) == 0:
        return samples
    count = round(len(samples) * SAMPLE_RATE / rate)
    return np.fft.irfft(np.fft.rfft(samples), count) * (count / len(samples))


def main(arguments: list[str] | None = None) -> int:
    """Command line: when somebody speaks, per file."""
    parser = argparse.ArgumentParser(description="When does somebody speak?")
    parser.add_argument("files", nargs="+", type=Path, metavar="WAV")
    parser.add_argument("--live", action="store_true", help="in pieces of 32 ms, as from a microphone")
    add_arguments(parser)
    options = parser.parse_args(arguments)
    probabilities = live_probabilities if options.live else speech_probabilities
    with open_predict(options) as predict:
        for path in options.files:
            samples = read_wav(path)
            found = speech_intervals(probabilities(samples, predict))
            print(f"{path}: {len(samples) / SAMPLE_RATE:.1f} s, {'speech' if found else 'no speech'}")
            for speech in found:
                print(f"  {speech.start:.1f} s to {speech.end:.1f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
