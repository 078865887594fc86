"""Recordings that cannot be heard: why, in words that are true."""

import numpy as np
import pytest
import soundfile
import torch

from bigmodel.data.files.decode_cache import UnreadableFileError
from bigmodel.data.media.audio import duration, mix_channels, read_recording


@pytest.mark.parametrize("hear", [duration, lambda path: read_recording(path, 8000)])
def test_what_is_no_recording_is_said_to_be_none(tmp_path, hear):
    path = tmp_path / "a.mp3"
    path.write_bytes(b"hello world " * 100)
    with pytest.raises(UnreadableFileError, match="it is not a sound file, or is damaged"):
        hear(path)
    path = tmp_path / "a.wav"
    path.write_bytes(b"hello world " * 100)
    with pytest.raises(UnreadableFileError, match="Format not recognised"):
        hear(path)


def tone(seconds=2.0, rate=8000):
    return 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_recording_that_is_cut_short_is_none(tmp_path, kind, share):
    soundfile.write(tmp_path / f"whole.{kind}", tone(), 8000)
    whole = (tmp_path / f"whole.{kind}").read_bytes()
    assert read_recording(tmp_path / f"whole.{kind}", 8000).seconds == pytest.approx(2.0, abs=0.1)
    path = tmp_path / f"cut.{kind}"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(UnreadableFileError):
        read_recording(path, 8000)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_16", "PCM_24", "FLOAT", "ULAW", "IMA_ADPCM"])
@pytest.mark.parametrize("channels", [1, 2])
def test_whole_recordings_of_any_kind_are_whole(tmp_path, subtype, channels):
    sound = np.stack([tone(0.3)] * channels, 1)
    soundfile.write(tmp_path / "a.wav", sound, 8000, subtype=subtype)
    assert len(read_recording(tmp_path / "a.wav", 8000).sound) >= 2400


def test_a_recording_of_unknown_length_is_whole(tmp_path):
    soundfile.write(tmp_path / "a.wav", tone(), 8000)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[40:44] = b"\xff" * 4  # as programs have it that write into a pipe
    (tmp_path / "a.wav").write_bytes(content)
    assert read_recording(tmp_path / "a.wav", 8000).seconds == pytest.approx(2.0)


def test_a_short_mp3_is_whole(tmp_path):
    for seconds in (0.05, 0.2, 0.5):
        soundfile.write(tmp_path / "a.mp3", tone(seconds, 44100), 44100)
        assert read_recording(tmp_path / "a.mp3", 44100).seconds == pytest.approx(seconds, abs=0.1)


def test_channels_of_opposite_phase_do_not_cancel_each_other():
    sound = torch.from_numpy(tone()).float()
    found, cancelled = mix_channels(torch.stack([sound, -0.999 * sound], 1))
    assert (found.tolist(), cancelled) == (sound.tolist(), True)
    other = torch.roll(sound, 5)
    found, cancelled = mix_channels(torch.stack([sound, other], 1))
    assert (found.tolist(), cancelled) == (((sound + other) / 2).tolist(), False)
    assert mix_channels(torch.zeros(9, 2))[1] is False


def test_silence_is_a_recording(tmp_path):
    soundfile.write(tmp_path / "a.wav", np.zeros(800), 8000)
    heard = read_recording(tmp_path / "a.wav", 16000)
    assert (heard.level, heard.seconds, float(heard.sound.abs().max())) == (None, 0.1, 0.0)
