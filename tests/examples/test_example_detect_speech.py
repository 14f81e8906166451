from __future__ import annotations

import re
import wave
from pathlib import Path

import detect_speech
import numpy as np
import pytest
from build_repository import publish
from predictors import Predict, local_predict

samples = pytest.importorskip("samples", reason="the samples need Pillow: pip install pillow")
SECOND = samples.SAMPLE_RATE


def test_two_voices_are_found(predict: Predict):
    found = detect_speech.detect_speech(samples.conversation(), predict)
    expected = [(1.0, 3.0), (4.0, 5.5)]
    assert [speech.start for speech in found] == pytest.approx([start for start, _ in expected], abs=0.15)
    assert [speech.end for speech in found] == pytest.approx([end for _, end in expected], abs=0.15)


@pytest.mark.parametrize("pitch", [90, 120, 160, 200])
def test_voices_of_different_pitch_are_speech(pitch: int, predict: Predict):
    voice = samples.synthesise_voice(2.0, pitch=pitch)
    assert np.mean(detect_speech.speech_probabilities(voice, predict) > 0.5) > 0.8


@pytest.mark.parametrize("sound", ["silence", "noise", "tone", "chord"])
def test_other_sounds_are_not_speech(sound: str, predict: Predict):
    time = np.arange(2 * SECOND) / SECOND
    made = {
        "silence": np.zeros(2 * SECOND),
        "noise": np.random.default_rng(0).normal(0, 0.1, 2 * SECOND),
        "tone": 0.3 * np.sin(2 * np.pi * 440 * time),
        "chord": sum(0.1 * np.sin(2 * np.pi * hertz * time) for hertz in (262, 330, 392)),
    }
    assert detect_speech.detect_speech(made[sound].astype(np.float32), predict) == []


def test_a_live_stream_gives_the_same_as_a_recording(predict: Predict):
    sound = samples.conversation()[: 2 * SECOND]
    live = detect_speech.live_probabilities(sound, predict)
    recording = detect_speech.speech_probabilities(sound, predict)
    np.testing.assert_allclose(live, recording, atol=1e-4)


def test_streams_in_one_batch_do_not_influence_each_other(predict: Predict):
    sounds = [samples.synthesise_voice(0.5, pitch=120), np.zeros(SECOND // 2, np.float32)]
    alone = np.stack([detect_speech.live_probabilities(sound, predict) for sound in sounds])
    frames = np.stack([detect_speech._frames(sound) for sound in sounds], axis=1)
    state, context = np.zeros((2, 2, 128), np.float32), np.zeros((2, 64), np.float32)
    together = []
    for frame in frames:
        inputs = {"input": np.concatenate((context, frame), axis=1), "state_in": state}
        outputs = predict(detect_speech.LIVE, inputs)
        state, context = outputs["state_out"], frame[:, -64:]
        together.append(outputs["output"][:, 0])
    np.testing.assert_allclose(np.stack(together, axis=1), alone, atol=1e-5)


def test_recordings_longer_than_a_call_keep_their_state(predict: Predict, monkeypatch: pytest.MonkeyPatch):
    sound = samples.conversation()
    whole = detect_speech.speech_probabilities(sound, predict)
    monkeypatch.setattr(detect_speech, "FRAMES_PER_CALL", 50)
    np.testing.assert_allclose(detect_speech.speech_probabilities(sound, predict), whole, atol=1e-4)


def test_second_version_hears_the_same(repository: Path, tmp_path: Path):
    for version in (1, 2):
        publish(tmp_path, "speech", version)
    probabilities = detect_speech.live_probabilities(samples.conversation(), local_predict(tmp_path))
    found = detect_speech.speech_intervals(probabilities)
    assert [speech.start for speech in found] == pytest.approx([1.0, 4.0], abs=0.15)


def test_no_samples(predict: Predict):
    assert detect_speech.detect_speech(np.zeros(0, np.float32), predict) == []


def test_intervals():
    def found(*probabilities: float) -> list[tuple[int, int]]:
        frame = detect_speech.FRAME_SECONDS
        intervals = detect_speech.speech_intervals(np.array(probabilities, np.float32))
        return [(round(speech.start / frame), round(speech.end / frame)) for speech in intervals]

    assert found(*[0.1] * 5, *[0.9] * 10, *[0.1] * 5) == [(5, 15)]
    assert found(*[0.9] * 10) == [(0, 10)]
    assert found(*[0.9] * 10, 0.1, 0.1, *[0.9] * 10) == [(0, 22)]  # a short pause
    assert found(*[0.9] * 10, *[0.4] * 10, 0.1, 0.1, 0.1) == [(0, 20)]  # between the thresholds
    assert found(0.1, *[0.9] * 3, *[0.1] * 9) == []  # a short sound
    assert found(*[0.4] * 30) == []


def test_wav_in_stereo_at_another_rate(tmp_path: Path):
    time = np.arange(48_000) / 48_000
    left = np.sin(2 * np.pi * 440 * time)
    stereo = np.stack((left, np.sin(2 * np.pi * 12_000 * time)), axis=1)
    with wave.open(str(tmp_path / "x.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(48_000)
        file.writeframes((stereo * 32767).astype("<i2").tobytes())
    samples_read = detect_speech.read_wav(tmp_path / "x.wav")
    expected = 0.5 * np.sin(2 * np.pi * 440 * np.arange(SECOND) / SECOND)
    assert samples_read.dtype == np.float32
    np.testing.assert_allclose(samples_read, expected, atol=1e-3)  # 12 kHz cannot be kept at 16 kHz


def test_wav_of_another_width_is_refused(tmp_path: Path):
    with wave.open(str(tmp_path / "x.wav"), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(8000)
        file.writeframes(bytes(100))
    with pytest.raises(ValueError, match="8 bits; expected 16"):
        detect_speech.read_wav(tmp_path / "x.wav")


@pytest.mark.parametrize("live", [[], ["--live"]])
def test_command_line(live: list[str], repository: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "voices.wav"
    samples.write_wav(path, samples.conversation())
    assert detect_speech.main([str(path), "--local", str(repository), *live]) == 0
    pattern = r"voices.wav: 6\.0 s, speech\n  [01]\.\d s to [23]\.\d s\n  [34]\.\d s to 5\.\d s\n"
    assert re.search(pattern, capsys.readouterr().out)
