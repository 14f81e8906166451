"""Sample inputs for the examples, made on the spot: files of several types, text in an image, a voice.

    python examples/samples.py OUT_DIR

The voice is synthetic (a buzz shaped by the resonances of vowels, in the rhythm of syllables), because no
recording is at hand whose licence would let it be part of this repository.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import wave
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

SAMPLE_RATE = 16_000
#: Loudness of breath, relative to the loudest vowel.
BREATH = 0.02
TEXT = ("Tensors in, tensors out.", "Port 8700 serves 12 models", "deadline = 250 ms")

#: First three resonances (formants) of vowels and their bandwidths, Hz (Peterson and Barney 1952, men).
_FORMANTS = {
    "a": (730, 1090, 2440),
    "e": (530, 1840, 2480),
    "i": (270, 2290, 3010),
    "o": (570, 840, 2410),
    "u": (300, 870, 2240),
}
_BANDWIDTHS = (80, 100, 140)
_MARKDOWN = """\
# Notes

Some **Markdown** with a [link](https://onnx.ai), a list and code:

- first item
- second item, with `code`

```python
print("hello")
```

## Next steps

1. Read the documentation.
2. Try the examples.
"""
_PYTHON = '''\
"""A small module."""

import math


def area(radius: float) -> float:
    """Area of a circle."""
    return math.pi * radius**2


if __name__ == "__main__":
    print(area(2.0))
'''


def render_text(
    lines: Sequence[str] = TEXT,
    *,
    font_size: int = 36,
    ink: str = "black",
    paper: str = "white",
) -> Image.Image:
    """An RGB image of some lines of text in Pillow's own font."""
    font = ImageFont.load_default(size=font_size)
    width = max(int(font.getlength(line)) for line in lines) + 2 * font_size
    image = Image.new("RGB", (width, font_size * (2 * len(lines) + 1)), paper)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((font_size, font_size * (2 * number + 0.7)), line, fill=ink, font=font)
    return image


def synthesise_voice(seconds: float, *, pitch: float = 120.0, syllables: str = "aeiouaoie") -> np.ndarray:
    """Something that sounds like a person who says vowels, four a second.

    A sum of harmonics whose pitch rises and falls, each as loud as the vocal tract lets it through: the
    formants glide from vowel to vowel.

    Args:
        seconds: length.
        pitch: mean frequency of the voice, Hz; 90-200 sounds like a person to the model.
        syllables: vowels, repeated as needed.

    Returns:
        float32[seconds * 16000], about -0.3 to 0.3.
    """
    time = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    frequency = pitch * (1 + 0.15 * np.sin(2 * np.pi * 0.6 * time) + 0.02 * np.sin(2 * np.pi * 5.3 * time))
    phase = 2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE
    syllable = 4 * time
    vowels = [_FORMANTS[syllables[i % len(syllables)]] for i in range(int(4 * seconds) + 2)]
    middles = np.arange(len(vowels)) + 0.5
    formants = [np.interp(syllable, middles, values) for values in zip(*vowels, strict=True)]
    sound = np.zeros_like(time)
    for harmonic in range(1, int(4000 / pitch)):
        heard = harmonic * frequency
        gain = np.full_like(time, 1 / harmonic)
        for formant, bandwidth in zip(formants, _BANDWIDTHS, strict=True):
            gain *= formant**2 / np.hypot(formant**2 - heard**2, bandwidth * heard)
        sound += gain * np.sin(harmonic * phase)
    loudness = np.abs(np.sin(np.pi * syllable)) ** 0.6
    sound *= loudness / max(np.abs(sound * loudness).max(initial=0.0), 1e-9)
    # Without a little noise between the syllables the model mostly does not call it speech.
    sound += BREATH * (1 - loudness) * np.random.default_rng(0).standard_normal(len(time))
    return (0.3 * sound).astype(np.float32)


def conversation() -> np.ndarray:
    """Six seconds, float32[96000]: a voice from 1 s to 3 s, another from 4 s to 5.5 s, faint hiss."""
    sound = np.random.default_rng(0).normal(0.0, 0.001, 6 * SAMPLE_RATE).astype(np.float32)
    for start, seconds, pitch in ((1.0, 2.0, 120.0), (4.0, 1.5, 180.0)):
        voice = synthesise_voice(seconds, pitch=pitch)
        first = int(start * SAMPLE_RATE)
        sound[first : first + len(voice)] += voice
    return sound


def sample_contents() -> dict[str, bytes]:
    """Small contents of several types; the key is the label that Magika gives each."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("notes.md", _MARKDOWN)
        file.writestr("area.py", _PYTHON)
    picture = io.BytesIO()
    render_text(TEXT[:1]).save(picture, "PNG")
    settings = {"name": "tensorwire", "port": 8700, "models": [{"name": "speech", "versions": [1, 2]}]}
    return {
        "json": json.dumps(settings, indent=2).encode(),
        "markdown": _MARKDOWN.encode(),
        "png": picture.getvalue(),
        "python": _PYTHON.encode(),
        "zip": archive.getvalue(),
    }


def write_wav(path: Path, samples: np.ndarray) -> None:
    """Write float samples in -1 to 1 as a 16 kHz, 16-bit, mono WAV file."""
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())


def write_samples(directory: Path) -> list[Path]:
    """Write one file of each kind; the names do not give the types away. Returns the paths."""
    directory.mkdir(parents=True, exist_ok=True)
    paths: list[Path] = []
    for number, content in enumerate(sample_contents().values(), 1):
        paths.append(directory / f"file{number}")
        paths[-1].write_bytes(content)
    paths += [directory / "text.png", directory / "voices.wav"]
    render_text().save(paths[-2])
    write_wav(paths[-1], conversation())
    return paths


def main(arguments: list[str] | None = None) -> int:
    """Command line: writes the samples and prints their paths."""
    parser = argparse.ArgumentParser(description="Make sample inputs for the examples.")
    parser.add_argument("out_dir", type=Path, metavar="OUT_DIR")
    print(*write_samples(parser.parse_args(arguments).out_dir), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
