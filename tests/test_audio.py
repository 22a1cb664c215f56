"""Speech: bands where the formula puts them, waves that come back, and files in every form."""

import json
import sys

import numpy as np
import pytest
import torch
from scipy.io import wavfile

import chartae as ct
from chartae.core.errors import DataError, PlanError
from chartae.training.audio import LogMel, _griffin_lim, read_audio

RATE = 8000
MEL = LogMel(RATE, seconds=0.5)


def tone(hertz, seconds=0.5, rate=RATE, amplitude=0.5):
    return amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def vowel(pitch=120, seconds=0.5, rate=RATE):
    """Pulses through two resonances, which swell and fade: much like a voice."""
    t = np.arange(round(seconds * rate)) / rate
    harmonics = np.arange(1, int(rate / 2 / pitch))
    weight = sum(np.exp(-(((harmonics * pitch - f) / 150) ** 2)) for f in (600, 1800)) + 0.01
    wave = (weight[:, None] * np.sin(2 * np.pi * pitch * harmonics[:, None] * t)).sum(0)
    return (0.5 * wave / np.abs(wave).max() * np.sin(np.pi * t / seconds)).astype(np.float32)


def magnitude(wave):
    return MEL._spectrum(torch.from_numpy(np.asarray(wave, np.float32))).abs()


# ------------------------------------------------------------------------------------------------- encoding


@pytest.mark.parametrize("hertz", [200, 1000, 3000])
def test_a_tone_lies_in_the_band_of_the_formula(hertz):
    def mel(f):
        return 2595 * np.log10(1 + f / 700)

    item = MEL.encode(tone(hertz))
    assert (item.shape, item.dtype) == ((1, 40, 64), np.float32)
    band = mel(hertz) / mel(RATE / 2) * (MEL.n_mels + 1) - 1  # band 0 has its center one step above 0 Hz
    assert abs(item[0, :, 10:-10].mean(1).argmax() - band) <= 0.5 + 0.1


def test_a_full_scale_sine_has_a_peak_power_of_one():
    frequency = 64 * RATE / MEL._fft  # in the middle of a bin
    assert magnitude(tone(frequency, amplitude=1.0))[:, 10:-10].max() == pytest.approx(1, abs=1e-3)


def test_ten_times_the_amplitude_is_a_hundred_times_the_power():
    loud, soft = (MEL.encode(tone(1000, amplitude=a)).max() for a in (0.5, 0.05))
    assert loud - soft == pytest.approx(np.log(100), abs=1e-3)


def test_silence_is_the_floor():
    np.testing.assert_allclose(MEL.encode(np.zeros(4000)), np.log(MEL.floor), rtol=1e-6)


def test_integers_are_of_full_scale():
    wave = tone(500)
    deep = np.round(wave * 2**15).astype(np.int16)
    expected = MEL.encode(deep / 2**15)
    np.testing.assert_array_equal(MEL.encode(deep), expected)
    np.testing.assert_allclose(MEL.encode(deep.astype(np.int32) << 16), expected, atol=1e-5)
    np.testing.assert_array_equal(MEL.encode(np.full(4000, 128, np.uint8)), MEL.encode(np.zeros(4000)))


def test_channels_are_averaged():
    wave = tone(500)
    both = np.stack([wave, np.zeros_like(wave)], axis=1)
    np.testing.assert_allclose(MEL.encode(both), MEL.encode(wave / 2), atol=1e-5)


@pytest.mark.parametrize("seconds", [1, 10, 60])
def test_of_a_long_sound_every_part_counts(seconds):
    """A beep of 50 ms is seen wherever it stands."""
    silence = np.zeros(seconds * 8000)
    for onset in np.linspace(0, len(silence) - 400, 41).astype(int):
        beep = silence.copy()
        beep[onset : onset + 400] = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(400) / 8000)
        assert (MEL.encode(beep) - MEL.encode(silence)).max() > 0.05


def test_channels_before_samples_are_refused():
    for wave in (np.zeros((1, 4000)), np.zeros((2, 4000))):
        with pytest.raises(
            DataError, match=r"more channels than samples: pass \(samples, channels\), wave.T"
        ):
            MEL.encode(wave)
    for rate in (0, -8000, 16_000.0):
        with pytest.raises(PlanError, match="rate="):
            MEL.encode(np.zeros(4000), rate=rate)


def test_waves_without_duration_are_refused_and_no_items_are_no_waves():
    assert MEL.decode(np.zeros((0, 1, 40, 64))) == []
    for seconds in (0.0, -1.0, np.nan):
        with pytest.raises(DataError, match="a wave lasts longer than 0"):
            MEL.decode(np.zeros((1, 1, 40, 64)), seconds=seconds)


def test_another_rate_is_resampled():
    middle = slice(8, -8)  # at the ends, the filter sees silence
    here, there = MEL.encode(tone(440)), MEL.encode(tone(440, rate=22_050), rate=22_050)
    band = here[0].mean(1).argmax()
    np.testing.assert_allclose(here[0, band, middle], there[0, band, middle], atol=0.05)


def test_a_short_wave_is_followed_by_silence():
    item = MEL.encode([0.5])
    assert item.shape == (1, 40, 64)
    assert np.isfinite(item).all()
    assert item[0, :, -1].max() < item[0, :, 0].max()


@pytest.mark.parametrize(
    "wave, word",
    [
        ([], "no sound"),
        (np.zeros((2, 2, 2)), "no sound"),
        (np.zeros(9, bool), "no sound"),
        (np.array(["a"]), "no sound"),
        ([0.0, np.nan], "NaN"),
        ([0.0, 1489.0], "divide"),
        (np.ones(9, np.int64), "int16"),
    ],
)
def test_what_is_no_wave_is_refused(wave, word):
    with pytest.raises(DataError, match=word):
        MEL.encode(wave)


# ------------------------------------------------------------------------------------------------- decoding


def test_known_magnitudes_are_reached():
    target = magnitude(vowel())
    few, many = (
        float((magnitude(_griffin_lim(MEL, target[None], 4000, k)[0]) - target).norm() / target.norm())
        for k in (1, 60)
    )
    assert many < 0.1 < few


@pytest.mark.parametrize("wave", [tone(440), vowel(), vowel(220, seconds=0.4)], ids=["tone", "low", "high"])
def test_a_decoded_item_encodes_to_itself(wave):
    item = MEL.encode(wave)
    (decoded,) = MEL.decode(item[None])
    assert (decoded.shape, decoded.dtype) == ((4000,), np.float32)
    assert np.abs(decoded).max() <= 1
    assert np.abs(MEL.encode(decoded) - item).mean() < 0.15 * item.std()


def test_the_spectrum_of_bands_is_not_negative_and_has_those_bands():
    bands = MEL._bands @ magnitude(vowel()).square()
    power = MEL._invert(bands)
    assert (power >= 0).all()
    assert float((MEL._bands @ power - bands).norm() / bands.norm()) < 0.02


def test_silence_is_silent():
    (decoded,) = MEL.decode(np.full((1, 1, 40, 64), np.log(MEL.floor)))
    assert np.abs(decoded).max() < 1e-3


def test_decoding_is_repeatable_and_knows_no_neighbors():
    items = np.stack([MEL.encode(vowel(pitch)) for pitch in (100, 150, 200)])
    state = torch.get_rng_state()
    together = MEL.decode(items, iterations=5)
    assert torch.equal(state, torch.get_rng_state())
    for item, wave in zip(items, together, strict=True):
        np.testing.assert_allclose(MEL.decode(item[None], iterations=5)[0], wave, atol=1e-3)


def test_the_duration_may_be_chosen():
    item = MEL.encode(tone(440))[None]
    assert [len(MEL.decode(item, seconds)[0]) for seconds in (None, 0.25, 1)] == [4000, 2000, 8000]


def test_items_of_another_shape_are_refused():
    with pytest.raises(DataError, match=r"\(n, 1, 40, 64\)"):
        MEL.decode(np.zeros((1, 40, 64)))
    with pytest.raises(DataError, match="not finite"):
        MEL.decode(np.full((1, 1, 40, 64), np.nan))


def test_a_written_wave_is_read_bit_by_bit(tmp_path):
    deep = np.array([0, 1, -1, 2**15 - 1, -(2**15)], np.int16)
    MEL.write(tmp_path / "new" / "a.wav", deep / 2**15)
    rate, wave = wavfile.read(tmp_path / "new" / "a.wav")
    assert rate == RATE
    np.testing.assert_array_equal(wave, deep)
    MEL.write(tmp_path / "new" / "a.wav", [2.0, -2.0])
    assert wavfile.read(tmp_path / "new" / "a.wav")[1].tolist() == [2**15 - 1, -(2**15)]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.wav"]


# ------------------------------------------------------------------------------------------------- settings


def test_settings_survive_json():
    mel = LogMel(16_000, n_mels=20, frames=32, seconds=0.7)
    assert LogMel.from_config(json.loads(json.dumps(mel.config())), mel.tensors()) == mel
    for change in ({"kind": "tfidf"}, {"extra": 1}):
        with pytest.raises(PlanError, match="log mel"):
            LogMel.from_config({**mel.config(), **change})


@pytest.mark.parametrize(
    "given, word",
    [
        ({"rate": 8000.5}, "whole"),
        ({"rate": 0}, "above 0"),
        ({"n_mels": True}, "whole"),
        ({"floor": float("nan")}, "above 0"),
        ({"seconds": "1"}, "number"),
        ({"hop": 0.02}, "two hops"),
        ({"hop": 1e-6}, "two hops"),
        ({"n_mels": 400}, "fewer bands"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, word):
    with pytest.raises(PlanError, match=word):
        LogMel(**{"rate": RATE, **given})


# ------------------------------------------------------------------------------------------------- reading


def write_wav(path, wave, rate=RATE):
    path.parent.mkdir(parents=True, exist_ok=True)
    wavfile.write(path, rate, np.round(wave * 2**15).astype(np.int16))


def test_a_folder_of_sounds(tmp_path):
    for label, hertz in (("high", 2000), ("low", 300)):
        for i in range(2):
            write_wav(tmp_path / label / f"{i}.wav", tone(hertz, seconds=0.2 + 0.2 * i))
    write_wav(tmp_path / "low" / "2.WAV", tone(300, rate=16_000), rate=16_000)
    (tmp_path / "readme.txt").write_text("hello")
    data = ct.read(tmp_path)
    assert data.X.shape == (5, 1, 40, 64)
    assert data.y.tolist() == ["high", "high", "low", "low", "low"]
    assert data.medium == LogMel(RATE, seconds=0.34)
    assert data.summary.startswith("5 utterances of 1 × 40 × 64, float32, 2 labels")
    assert "0.34 s on average at 8,000 Hz, without 1 other file" in data.note
    same = ct.read(tmp_path, encoder=LogMel(RATE, frames=32))
    assert (same.X.shape, same.medium.frames) == ((5, 1, 40, 32), 32)
    with pytest.raises(DataError, match="LogMel"):
        ct.read(tmp_path, encoder="tfidf")
    with pytest.raises(DataError, match="size"):
        ct.read(tmp_path, size=(3, 3))
    write_wav(tmp_path / "loose.wav", tone(300))
    with pytest.raises(DataError, match="subfolder"):
        ct.read(tmp_path)
    with pytest.raises(DataError, match="one sound"):
        ct.read(tmp_path / "loose.wav")


def test_flac(tmp_path):
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "a.flac", tone(440), RATE)
    write_wav(tmp_path / "b.wav", tone(440))
    X = ct.read(tmp_path).X
    np.testing.assert_allclose(X[0], X[1], atol=0.2)


def test_flac_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "soundfile", None)
    (tmp_path / "a.flac").write_bytes(b"fLaC")
    with pytest.raises(DataError, match="pip install soundfile"):
        ct.read(tmp_path)


def test_damaged_sounds_are_named(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"RIFF")
    with pytest.raises(DataError, match=r"a\.wav.*remove it"):
        ct.read(tmp_path)
    write_wav(tmp_path / "a.wav", np.zeros(0))
    with pytest.raises(DataError, match=r"a\.wav"):
        ct.read(tmp_path)


def archive(path, **changes):
    waves = [tone(300, 0.3), tone(600, 0.5), vowel()]
    full = {
        "wave": np.round(np.concatenate(waves) * 2**15).astype(np.int16),
        "offsets": np.cumsum([0, *map(len, waves)]),
        "sample_rate": RATE,
        "digit": np.array([3, 6, 9], np.uint8),
        "speaker": np.array(["ann", "bob", "ann"]),
    }
    np.savez(path, **{k: v for k, v in {**full, **changes}.items() if v is not None})
    return path


def test_an_archive_of_waves(tmp_path):
    file = archive(tmp_path / "a.npz")
    data = ct.read(file)
    assert data.y.tolist() == [3, 6, 9]
    assert data.note == "0.43 s on average at 8,000 Hz, labels digit"
    np.testing.assert_allclose(data.X[0], MEL.encode(tone(300, 0.3)), atol=0.2)
    assert ct.read(file, labels="speaker").y.tolist() == ["ann", "bob", "ann"]
    assert ct.read(file, labels=[0, 1, 2]).y.tolist() == [0, 1, 2]
    np.save(tmp_path / "y.npy", [7, 8, 9])
    assert ct.read(file, labels=str(tmp_path / "y.npy")).y.tolist() == [7, 8, 9]
    with pytest.raises(DataError, match="no array 'word'"):
        ct.read(file, labels="word")
    X, y, mel, _ = read_audio(archive(tmp_path / "b.npz", sample_rate=None, digit=None, speaker=None))
    assert (len(X), y, mel.rate) == (3, None, 16_000)


@pytest.mark.parametrize(
    "changes",
    [
        {"offsets": np.array([0, 5, 4, 9])},
        {"offsets": np.array([0, 5, 10**9])},
        {"offsets": np.array([-5, 5, 9])},
        {"offsets": np.array([0.0, 5.0])},
        {"offsets": np.array([0])},
        {"wave": np.zeros((4, 4))},
        {"sample_rate": -1},
        {"sample_rate": "fast"},
        {"sample_rate": np.array([8000, 16_000])},
        {"wave": np.array([None] * 9)},
    ],
)
def test_archives_that_do_not_fit_are_refused(tmp_path, changes):
    with pytest.raises(DataError, match=r"save|pass|write") as caught:
        ct.read(archive(tmp_path / "a.npz", **changes))
    assert "\n" not in str(caught.value)


def test_an_encoder_is_for_texts_and_sounds():
    for source in (np.zeros((3, 2)), "digits"):
        with pytest.raises(DataError, match="texts and sounds"):
            ct.read(source, encoder=MEL)
