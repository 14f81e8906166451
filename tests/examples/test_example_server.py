"""The examples as users run them: through a real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import detect_speech
import file_type
import numpy as np
import pytest
import read_text
from predictors import Predict
from tensorwire.client import Client

samples = pytest.importorskip("samples", reason="the samples need Pillow: pip install pillow")


@pytest.fixture
def address(serve, repository: Path) -> str:
    return serve(repository).endpoint


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, timeout=30.0) as client:
        yield client


def test_answers_equal_those_of_the_models_alone(client: Client, predict: Predict):
    contents = list(samples.sample_contents().values())
    served, alone = (file_type.classify_bytes(contents, where) for where in (client.predict, predict))
    assert [kind.label for kind in served] == [kind.label for kind in alone]
    image = samples.render_text()
    served, alone = (read_text.read_text(image, where) for where in (client.predict, predict))
    assert [(line.text, line.box) for line in served] == [(line.text, line.box) for line in alone]
    sound = samples.conversation()
    np.testing.assert_allclose(
        detect_speech.speech_probabilities(sound, client.predict),
        detect_speech.speech_probabilities(sound, predict),
        atol=1e-4,
    )


def test_many_streams_in_flight_share_batches_and_keep_their_states(client: Client, predict: Predict):
    """Every stream hears what it hears alone, though their calls are computed together."""
    sounds = [samples.synthesise_voice(0.5, pitch=pitch) for pitch in (90.0, 120.0, 160.0, 200.0)]
    rows = [frame for sound in sounds for frame in detect_speech._frames(sound)[:1]]
    state = np.zeros((1, 2, 128), np.float32)
    context = np.zeros(detect_speech.CONTEXT, np.float32)
    inputs = [
        {"input": np.concatenate((context, row))[np.newaxis], "state_in": state}
        for row in rows
        for _ in range(8)
    ]
    futures = [client.submit(detect_speech.LIVE, each) for each in inputs]
    for each, future in zip(inputs, futures, strict=True):
        expected = predict(detect_speech.LIVE, each)
        np.testing.assert_allclose(future.result()["state_out"], expected["state_out"], atol=1e-4)


@pytest.mark.parametrize("live", [[], ["--live"]])
def test_command_lines(live: list[str], address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    *files, image, voices = samples.write_samples(tmp_path)
    assert file_type.main([*map(str, files), "--server", address]) == 0
    assert read_text.main([str(image), "--server", address]) == 0
    assert detect_speech.main([str(voices), "--server", address, *live]) == 0
    shown = capsys.readouterr().out
    for expected in (
        "JSON document (json",
        "Zip archive data (zip",
        "Tensors in, tensors out.",
        "6.0 s, speech",
    ):
        assert expected in shown
