"""Recordings: found, mixed, resampled, heard alike in training and later, refused in words."""

import json

import numpy as np
import pytest
import soundfile
import torch

from bigmodel.data.checks import check
from bigmodel.data.media.audio import resample
from bigmodel.data.reader import from_plain, to_plain
from bigmodel.data.sources.audio import AudioConfig, audio
from bigmodel.errors import ConfigError, DataError
from bigmodel.registry import validate
from bigmodel.spec import Image, Sequence
from tests.small_runs import model_inputs

RATE = 8000


def sine(hertz, rate=RATE, seconds=0.3):
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)


@pytest.fixture
def recordings(tmp_path):
    """20 recordings, low and high, of durations that differ."""
    for kind, hertz in (("low", 300), ("high", 2000)):
        (tmp_path / "in" / kind).mkdir(parents=True)
        for n in range(10):
            ending = ("wav", "flac", "ogg", "mp3")[n % 4]
            sound = sine(hertz, seconds=0.2 + n / 100)
            soundfile.write(tmp_path / "in" / kind / f"{n}.{ending}", sound, RATE)
    return tmp_path / "in"


def built(path, **values):
    values = {"name": "audio", "path": str(path), "rate": RATE, "n_mels": 20, "cache": None, **values}
    return audio(validate(AudioConfig, values, "data"))


def test_reads_recordings_with_their_labels(recordings):
    dataset = built(recordings, seconds=0.25)
    check(dataset)
    assert dataset.spec.input == Image(1, 24, 20)
    assert dataset.spec.target.names == ("high", "low")
    assert dataset.spec.sizes == {"train": 16, "val": 4}
    for part in dataset.parts.values():
        pitch = part.inputs[:, 0, 10].argmax(1)
        assert torch.equal(pitch > 10, part.targets == 0)
    [(label, text)] = dataset.header_rows
    assert label == "Recordings"
    assert text.startswith("20 FLAC/WAV/MP3/OGG, 0.20 to 0.")
    assert "heard for 0.25 s at 8,000 Hz" in text
    assert text.endswith("high 10, low 10")


def test_each_band_is_standardised_by_the_training_part(recordings):
    dataset = built(recordings)
    ready = model_inputs(dataset.preprocessing, dataset.train.inputs)
    bands = ready.transpose(0, 3).flatten(1)
    torch.testing.assert_close(bands.mean(1), torch.zeros(20), atol=1e-4, rtol=0)
    torch.testing.assert_close(bands.std(1, correction=0), torch.ones(20), atol=1e-4, rtol=0)
    assert built(recordings, normalize=False).mean is None


@pytest.mark.parametrize(
    ("values", "shape"),
    [
        ({"seconds": 0.25}, Image(1, 24, 20)),
        ({"seconds": 0.25, "layout": "sequence"}, Sequence(24, 20)),
        ({"seconds": 0.25, "form": "raw"}, Sequence(2000, 1)),
        ({"seconds": 0.25, "form": "raw", "fold": 64}, Sequence(32, 64)),
        ({"seconds": 0.25, "hop": 0.02, "window": 0.05, "n_mels": 8}, Image(1, 11, 8)),
    ],
)
def test_forms_and_a_reader_that_hears_what_training_heard(recordings, values, shape):
    dataset = built(recordings, **values)
    check(dataset)
    assert dataset.spec.input == shape
    reader = from_plain(json.loads(json.dumps(to_plain(dataset.reader))))
    found = reader.read(recordings, with_targets=True)
    assert found.part.inputs.shape == (20, *shape.shape)
    known = {row.numpy().tobytes(): label for row, label in _rows(found.part)}
    assert len(known) > 15  # some last longer and are alike in what is heard
    for part in dataset.parts.values():
        for row, label in _rows(part):
            assert known[row.numpy().tobytes()] == label
    single = reader.read(recordings / "low" / "3.mp3", with_targets=False)
    assert torch.equal(single.part.inputs[0], found.part.inputs[13])
    assert single.columns == {"file": ["3.mp3"]}


def _rows(part):
    return zip(part.inputs, part.targets.tolist(), strict=True)


def test_a_raw_form_is_the_sound_and_silence_behind_it(tmp_path):
    for kind in "ab":
        (tmp_path / kind).mkdir()
        for n in range(4):
            sound = np.random.default_rng(n + ord(kind)).uniform(-1, 1, (100, 2)).astype(np.float32)
            soundfile.write(tmp_path / kind / f"{n}.wav", sound, RATE, subtype="FLOAT")
    reader = built(tmp_path, form="raw", seconds=0.02, fold=3).reader
    [row] = reader.read(tmp_path / "b" / "3.wav", with_targets=False).part.inputs
    assert row.shape == (54, 3)
    torch.testing.assert_close(row.flatten()[:100], torch.from_numpy(sound).mean(1))  # mixed
    assert row.flatten()[100:].abs().max() == 0


def test_the_usual_duration_is_that_of_most(recordings):
    sounds = built(recordings, val_fraction=0.1).reader.settings
    eight_frames = 8 * sounds.hop / RATE
    assert 0.26 <= sounds.samples / RATE <= 0.31 + eight_frames
    assert sounds.shape[1] % 8 == 0  # so that patches tile it
    before = sounds.samples
    soundfile.write(recordings / "low" / "0.wav", sine(300, seconds=9), RATE)
    assert built(recordings, val_fraction=0.1).reader.settings.samples - before < 0.05 * RATE


@pytest.mark.parametrize(("own", "rate"), [(16000, 8000), (44100, 16000), (8000, 16000), (11025, 8000)])
def test_resampling_keeps_a_sine(own, rate):
    before = torch.from_numpy(sine(440, own, 1.0)).float()
    after = resample(before, own, rate)
    assert len(after) == rate
    middle = slice(rate // 10, -rate // 10)
    wanted = torch.from_numpy(sine(440, rate, 1.0)).float()
    torch.testing.assert_close(after[middle], wanted[middle], atol=1e-3, rtol=0)


@pytest.mark.parametrize(("own", "rate", "hertz"), [(16000, 8000, 5500), (44100, 16000, 12000)])
def test_resampling_leaves_out_what_the_new_rate_cannot_hold(own, rate, hertz):
    after = resample(torch.from_numpy(sine(hertz, own, 1.0)).float(), own, rate)
    assert after[rate // 10 : -rate // 10].abs().max() < 1e-3  # else it would be heard as another pitch


def test_any_rate_sounds_alike(tmp_path):
    for kind, hertz in (("a", 440), ("b", 700)):
        (tmp_path / kind).mkdir()
        for n in range(4):
            rate = (8000, 16000, 44100, 22050)[n]
            soundfile.write(tmp_path / kind / f"{n}.wav", sine(hertz, rate), rate)
    dataset = built(tmp_path, seconds=0.2)
    found = dataset.reader.read(tmp_path, with_targets=True).part
    for label in (0, 1):
        same = found.inputs[found.targets == label][:, 0, 2:-2]
        assert (same - same[0]).abs().max() < 0.05
    assert "8,000 to 44,100 Hz" in dataset.header_rows[0][1]


def spoilt(folder):
    (folder / "low" / "empty.wav").write_bytes(b"")
    (folder / "low" / "noise.wav").write_bytes(bytes(range(256)) * 20)
    soundfile.write(folder / "low" / "nothing.wav", np.zeros(0), RATE)


def test_unreadable_recordings_are_named_or_left_out(recordings, tmp_path):
    spoilt(recordings)
    with pytest.raises(DataError) as caught:
        built(recordings)
    words = str(caught.value)
    assert "3 of 23 recordings cannot be read" in words
    for reason in (
        "low/empty.wav (the file is empty)",
        "low/noise.wav (",
        "low/nothing.wav (it is empty)",
    ):
        assert reason in words
    assert "set data.max_bad=3" in words
    for _ in range(2):
        dataset = built(recordings, max_bad=3, cache=str(tmp_path / "cache"))
        check(dataset)
        assert sum(dataset.spec.sizes.values()) == 20
        assert dataset.left_out == {"recordings that cannot be read": 3}


def test_a_cache_spares_the_second_reading(recordings, tmp_path, monkeypatch):
    kept = str(tmp_path / "cache")
    first = built(recordings, cache=kept)
    monkeypatch.setattr("bigmodel.data.media.audio.read_recording", None)
    second = built(recordings, cache=kept)
    assert torch.equal(first.train.inputs, second.train.inputs)
    assert first.header_rows == second.header_rows


def test_names_of_spoken_digits(tmp_path):
    for digit in range(3):
        for who in ("ann", "bob"):
            for n in range(10):
                sound = sine(300 * (digit + 1), seconds=0.1)
                soundfile.write(tmp_path / f"{digit}_{who}_{n}.wav", sound, RATE)
    dataset = built(tmp_path, label_pattern=r"^(\d)_", test_pattern=r"_[0-4]\.wav$")
    assert dataset.spec.sizes == {"train": 24, "val": 6, "test": 30}
    assert dataset.spec.target.names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"form": "raw", "layout": "image"}, r"data\.layout='image': form=raw is a sequence"),
        ({"window": 0.0001}, r"data\.window=0\.0001: it is shorter than two samples"),
        ({"hop": 0.0001}, r"data\.hop=0\.0001: it is shorter than a sample"),
        ({"seconds": 0.0}, r"data\.seconds"),
        ({"layout": "sequence", "augment": {"shift": 1}}, r"data\.augment: changes images"),
        ({"n_mels": 900}, r"data\.n_mels=900"),
    ],
)
def test_wrong_options_are_named(recordings, values, words):
    with pytest.raises(ConfigError, match=words):
        built(recordings, **values)


def test_hours_are_no_sample(recordings, monkeypatch):
    monkeypatch.setattr("bigmodel.data.media.audio._MAX_SECONDS", 0.25)
    with pytest.raises(DataError, match="hours long"):
        built(recordings)


def test_a_class_of_silence(recordings):
    (recordings / "none").mkdir()
    for n in range(6):
        soundfile.write(recordings / "none" / f"{n}.wav", np.zeros(800), RATE)
    dataset = built(recordings)
    check(dataset)
    assert "none" in dataset.spec.target.names
    assert ("Silent", "6 recordings throughout") in dataset.header_rows


def test_what_differs_from_training_is_reported(recordings, tmp_path):
    dataset = built(recordings)
    folder = tmp_path / "new"
    folder.mkdir()
    soundfile.write(folder / "a.wav", sine(300, 2 * RATE), 2 * RATE)
    soundfile.write(folder / "b.wav", 0.001 * sine(300, RATE), RATE)
    sound = sine(300, RATE)
    soundfile.write(folder / "c.wav", np.stack([sound, -sound], 1), RATE)
    warnings = [
        line
        for label, line in dataset.reader.read(folder, with_targets=False).header_rows
        if label == "Warning"
    ]
    assert len(warnings) == 3
    assert warnings[0].startswith("the channels of 1 recording cancel each other")
    assert f"such as {2 * RATE:,} Hz (training: {RATE:,} Hz)" in warnings[1]
    assert "1 of 3 recordings are louder or softer" in warnings[2]
    assert not dataset.reader.read(recordings, with_targets=True).header_rows
