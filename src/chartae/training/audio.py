"""Speech: an utterance as an item of log mel power, and a wave from such an item."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from itertools import pairwise
from math import gcd, isfinite, log
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor
from torch.nn import functional as F

from chartae.core.counts import count
from chartae.core.errors import DataError, PlanError, one_line
from chartae.core.files import SOUNDS, atomic, folder_labels, visible_files

__all__ = ["LogMel", "read_audio"]

_RATES = ("sample_rate", "rate", "sr")
_LABELS = ("y", "label", "labels", "target", "digit", "digits", "word", "speaker")
_RATE = 16_000  # Hz, of waves that come without their rate: the usual one of speech
_INVERSIONS = 50  # multiplicative updates of the power spectrum: later ones change it by less than 1 %
_ITERATIONS = 60  # of Griffin and Lim
_MOMENTUM = 0.99  # Perraudin et al. recommend it
_SEED = 0  # of the phases: the same item always sounds the same
_SHOWN = 6 * log(10)  # nats of power from white down to black, which are 60 dB
_TOGETHER = 64  # waves made at a time, which bounds memory


@dataclass(frozen=True)
class LogMel:
    """How an utterance becomes an item of log mel power, and an item a wave.

    The power spectrum of windows of a wave is summed over triangular bands, equally spaced in mel,
    ``m = 2595 log10(1 + f / 700)`` (the formula of HTK); a full-scale sine has power 1 in its bin. The item
    is ``log(power + floor)``, and its time axis is stretched linearly to ``frames``.

    Parameters
    ----------
    rate : int
        Samples a second, in Hz.
    n_mels : int
        Bands, from 0 to ``rate / 2``.
    frames : int
        Length of the time axis of an item.
    window, hop : float
        Length and distance of the windows, in seconds; a window is at least two hops.
    floor : float
        Power that silence is given, relative to a full-scale sine: 1e-7 is -70 dB.
    seconds : float
        Duration of what is decoded: the mean duration of the utterances.

    Raises
    ------
    PlanError
        If a value is not of its type or not above zero, if windows do not overlap by half, or if a band is
        so narrow that no frequency falls into it.

    References
    ----------
    Stevens, Volkmann and Newman 1937, doi:10.1121/1.1915893 (the mel); Lee and Seung 2001, "Algorithms for
    non-negative matrix factorization" (from bands to spectrum); Griffin and Lim 1984,
    doi:10.1109/TASSP.1984.1164317, with the momentum of Perraudin, Balazs and Søndergaard 2013,
    doi:10.1109/WASPAA.2013.6701851 (from spectrum to wave).

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.training.audio import LogMel
    >>> mel = LogMel(8000, seconds=0.5)
    >>> item = mel.encode(np.sin(2 * np.pi * 440 * np.arange(4000) / 8000))
    >>> item.shape, int(item[0, :, 32].argmax())
    ((1, 40, 64), 9)
    >>> mel.decode(item[None])[0].shape
    (4000,)
    """

    rate: int
    n_mels: int = 40
    frames: int = 64
    window: float = 0.032
    hop: float = 0.008
    floor: float = 1e-7
    seconds: float = 1.0

    kind: ClassVar[str] = "log-mel"
    noun: ClassVar[str] = "utterance"

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            whole = name in ("rate", "n_mels", "frames")
            if isinstance(value, bool) or not isinstance(value, int if whole else int | float):
                raise PlanError(f"{name} is {value!r}: pass a {'whole ' if whole else ''}number")
            if not (isfinite(value) and value > 0):
                raise PlanError(f"{name} is {value}: pass a number above 0")
        if self._window < 2 * self._hop or self._hop < 1:
            given = f"a hop of {self.hop} s and a window of {self.window} s at {self.rate} Hz"
            raise PlanError(f"{given} cannot be put together again: let a window be two hops or more")
        if not (self._bands.sum(1) > 0).all():
            raise PlanError(
                f"{self.n_mels} mel bands are too narrow for windows of {self.window} s at {self.rate} Hz:"
                " take fewer bands, or longer windows"
            )

    @property
    def _window(self) -> int:
        return round(self.window * self.rate)

    @property
    def _hop(self) -> int:
        return round(self.hop * self.rate)

    @cached_property
    def _fft(self) -> int:
        # A window is padded to twice its length or more, so that even the narrowest band has a frequency.
        return 1 << (2 * self._window - 1).bit_length()

    @cached_property
    def _bands(self) -> Tensor:
        """Give the filters, (n_mels, frequencies): triangles of height 1 between neighbors' centers."""
        mel = torch.linspace(0, 2595 * np.log10(1 + self.rate / 1400), self.n_mels + 2, dtype=torch.float64)
        left, center, right = (700 * (10 ** (mel / 2595) - 1)).unfold(0, 3, 1).T[..., None]
        f = torch.linspace(0, self.rate / 2, self._fft // 2 + 1, dtype=torch.float64)
        rising, falling = (f - left) / (center - left), (right - f) / (right - center)
        return torch.minimum(rising, falling).clamp(min=0).float()

    @cached_property
    def _taper(self) -> Tensor:
        hann = torch.hann_window(self._window)
        return 2 / hann.sum() * hann  # a sine of amplitude 1 has a peak of 1

    def _spectrum(self, waves: Tensor) -> Tensor:
        return torch.stft(
            waves, self._fft, self._hop, self._window, self._taper, pad_mode="constant", return_complex=True
        )

    def encode(self, wave: ArrayLike, rate: int | None = None) -> NDArray[np.float32]:
        """Make an item of an utterance.

        Parameters
        ----------
        wave : array of shape (samples,) or (samples, channels)
            Floats in [-1, 1], or integers of full scale; channels are averaged. What is shorter than a
            window is followed by silence.
        rate : int, optional
            Samples a second of this wave, if it is another rate than the item's.

        Returns
        -------
        ndarray of shape (1, n_mels, frames)
            Log power, in nats; float32.

        Raises
        ------
        DataError
            If the wave is empty, not finite, or not in [-1, 1].
        PlanError
            If the rate is no whole number above 0.
        """
        samples = self._samples(wave, self.rate if rate is None else count(rate, "rate"))
        power = self._spectrum(torch.from_numpy(samples)).abs().square()
        return _stretch((self._bands @ power + self.floor).log(), self.frames)[None].numpy()

    def decode(
        self, items: ArrayLike, seconds: float | None = None, *, iterations: int = _ITERATIONS
    ) -> list[NDArray[np.float32]]:
        """Make a wave of each item, all of one duration.

        The power spectrum is the non-negative one whose bands come closest to the item's (in the
        Kullback–Leibler divergence, by multiplicative updates); the phases are found by the iteration of
        Griffin and Lim. It starts from phases that are always the same.

        Parameters
        ----------
        items : array of shape (n, 1, n_mels, frames)
            Log power, in nats.
        seconds : float, optional
            How long the waves are; left out, as long as the mean utterance.
        iterations : int
            How often phases are improved; 60 is where more is no longer heard.

        Returns
        -------
        list of ndarray of shape (samples,)
            Float32 in [-1, 1].

        Raises
        ------
        DataError
            If the items have another shape, or are not finite, or the waves would have no duration.
        """
        X = torch.from_numpy(np.array(items, dtype=np.float32))
        shape = (1, self.n_mels, self.frames)
        if X.shape[1:] != shape:
            raise DataError(f"the items have shape {tuple(X.shape)}: pass (n, {', '.join(map(str, shape))})")
        if not X.isfinite().all():
            raise DataError("the items hold values that are not finite: pass log power, in nats")
        seconds = self.seconds if seconds is None else seconds
        if not (isfinite(seconds) and seconds > 0):
            raise DataError(f"seconds={seconds:g}: a wave lasts longer than 0")
        samples = max(self._window, round(seconds * self.rate))
        waves: list[NDArray[np.float32]] = []
        for some in X[:, 0].split(_TOGETHER) if len(X) else ():
            bands = (_stretch(some, 1 + samples // self._hop).exp() - self.floor).clamp(min=0)
            spectrum = _griffin_lim(self, self._invert(bands).sqrt(), samples, iterations)
            waves += list(spectrum.clamp(-1, 1).numpy())
        return waves

    def write(self, path: str | os.PathLike[str], wave: ArrayLike) -> None:
        """Write a wave as a ``.wav`` file of 16 bits, whole or not at all.

        Parameters
        ----------
        path : str or path
            The file; missing folders are made.
        wave : array of shape (samples,)
            Floats; what is outside [-1, 1] is clipped.

        Examples
        --------
        >>> import numpy as np
        >>> from chartae.training.audio import LogMel
        >>> LogMel(8000).write("out/silence.wav", np.zeros(8000))
        """
        from scipy.io import wavfile

        levels = np.rint(np.asarray(wave, dtype=np.float64) * 2**15).clip(-(2**15), 2**15 - 1)
        with atomic(path) as file:
            wavfile.write(file, self.rate, levels.astype(np.int16))

    def look(self, value_range: tuple[float, float]) -> dict[str, Any]:
        """Say how items are drawn: low bands at the bottom, and white down to 60 dB below it.

        Parameters
        ----------
        value_range : (float, float)
            Least and greatest value of the items, in nats; the greatest is white.

        Returns
        -------
        dict
            Options of :func:`~chartae.core.images.save_grid`.
        """
        return {"origin": "lower", "value_range": (value_range[1] - _SHOWN, value_range[1])}

    def config(self) -> dict[str, Any]:
        """Give what is needed to make it again.

        Returns
        -------
        dict
            JSON values.
        """
        return {"kind": self.kind, **asdict(self)}

    def tensors(self) -> dict[str, Tensor]:
        """Give the arrays that it needs besides: none.

        Returns
        -------
        dict of str to Tensor
            Empty; no shapes, as there is nothing.
        """
        return {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any], tensors: Mapping[str, Tensor] | None = None) -> LogMel:
        """Make it again.

        Parameters
        ----------
        config : Mapping
            As :meth:`config` gives it.
        tensors : Mapping of str to Tensor, optional
            As :meth:`tensors` gives them, of no shape: none are needed.

        Returns
        -------
        LogMel
            An equal one.

        Raises
        ------
        PlanError
            If the values are not those of a log mel encoding.
        """
        values, names = dict(config), [field.name for field in fields(cls)]
        if values.pop("kind", None) != cls.kind or values.keys() != set(names):
            named = ", ".join(names)
            raise PlanError(f"these are not the values of a log mel encoding, kind, {named}: take config()")
        return cls(**values)

    def _samples(self, wave: ArrayLike, rate: int) -> NDArray[np.float32]:
        x = np.asarray(wave)
        if x.ndim not in (1, 2) or x.size == 0 or x.dtype.kind not in "iuf":
            raise DataError(
                f"a wave of shape {x.shape} and type {x.dtype} is no sound: pass numbers, (samples,) or"
                " (samples, channels)"
            )
        if x.ndim == 2 and x.shape[1] > x.shape[0]:
            raise DataError(
                f"a wave of shape {x.shape} has more channels than samples: pass (samples, channels), wave.T"
            )
        if x.dtype.kind in "iu":
            if x.dtype.itemsize > 4:
                raise DataError(f"the full scale of {x.dtype} is unknown: convert the wave to int16 or float")
            half = 2.0 ** (8 * x.dtype.itemsize - 1)
            x = x / half - (x.dtype.kind == "u")  # unsigned samples are silent at the middle of their range
        # Decoders of compressed sound overshoot a little; twice the full scale is another unit.
        if not np.isfinite(x).all() or np.abs(x).max() > 2:
            raise DataError(
                "a wave of floats holds NaN or values outside [-1, 1]: divide it by its full scale, as 32768"
            )
        x = x.mean(1) if x.ndim == 2 else x
        if rate != self.rate:
            from scipy.signal import resample_poly

            common = gcd(rate, self.rate)
            x = resample_poly(x.astype(np.float64), self.rate // common, rate // common)
        return np.pad(x.astype(np.float32), (0, max(0, self._window - len(x))))

    def _invert(self, bands: Tensor) -> Tensor:
        """Find the power spectra of given bands, (..., n_mels, t), by Lee and Seung's updates."""
        B = self._bands
        seen = B.sum(0)[:, None]
        tiny = torch.finfo(B.dtype).tiny
        power = (B.T @ (bands / B.sum(1)[:, None])) / seen.clamp(min=tiny)
        for _ in range(_INVERSIONS):
            power = power * (B.T @ (bands / (B @ power).clamp(min=tiny))) / seen.clamp(min=tiny)
        return power


def _stretch(x: Tensor, frames: int) -> Tensor:
    """Resample the last axis of (..., n_mels, t) linearly; of more frames than are kept each counts."""
    flat = x.reshape(-1, 1, *x.shape[-2:])
    size = (x.shape[-2], frames)
    return F.interpolate(flat, size, mode="bilinear", align_corners=True, antialias=True).reshape(
        *x.shape[:-1], frames
    )


def _griffin_lim(mel: LogMel, magnitude: Tensor, samples: int, iterations: int) -> Tensor:
    """Find waves, (n, samples), whose spectra have the given magnitude, (n, frequencies, t)."""
    generator = torch.Generator().manual_seed(_SEED)
    angle = 2 * torch.pi * torch.rand(magnitude.shape[1:], generator=generator)
    phase = torch.polar(torch.ones_like(angle), angle).expand_as(magnitude)

    def wave() -> Tensor:
        full = magnitude * phase
        return torch.istft(full, mel._fft, mel._hop, mel._window, mel._taper, length=samples)

    before: Tensor | float = 0.0
    for _ in range(iterations):
        now = mel._spectrum(wave())
        ahead = now + _MOMENTUM * (now - before)
        phase, before = ahead / ahead.abs().clamp(min=1e-20), now
    return wave()


def read_audio(
    path: str | os.PathLike[str], labels: Any = None, encoder: LogMel | None = None
) -> tuple[NDArray[np.float32], Any, LogMel, str]:
    """Read utterances from a folder or an archive, and make items of them.

    Parameters
    ----------
    path : str or path
        A folder of ``.wav`` and ``.flac`` files (one subfolder a label, or none), or a ``.npz`` file with
        ``wave`` (all samples, one utterance after the other) and ``offsets`` (where each starts, and where
        the last ends); ``sample_rate``, ``rate`` or ``sr`` in it is in Hz, left out 16,000.
    labels : str or array of shape (n,) or (n, k), optional
        A key of the ``.npz``, or the labels themselves. Left out, the ``.npz`` is searched for y, label,
        labels, target, digit, digits, word and speaker.
    encoder : LogMel, optional
        How items are made; left out, at the most frequent rate, and for the mean duration.

    Returns
    -------
    X : ndarray of shape (n, 1, n_mels, frames)
        Log power, in nats; float32.
    y : array of shape (n,) or (n, k), or None
        The labels.
    encoder : LogMel
        How items were made, and are turned into waves.
    note : str
        What was chosen on the way.

    Raises
    ------
    DataError
        If the encoder is another, if a file cannot be read, or if arrays of an archive do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae.training.audio import read_audio
    >>> noise = np.random.default_rng(0).uniform(-0.5, 0.5, 9000)
    >>> np.savez("toy.npz", wave=noise, offsets=[0, 5000, 9000], sr=8000, digit=[3, 7])
    >>> X, y, mel, note = read_audio("toy.npz")
    >>> X.shape, y, mel.seconds, note
    ((2, 1, 40, 64), array([3, 7]), 0.5625, '0.56 s on average at 8,000 Hz, labels digit')
    """
    if not isinstance(encoder, LogMel | None):
        raise DataError(f"sounds become items by a LogMel, and the encoder is {encoder!r:.40}: leave it out")
    path = Path(path)
    sounds, y, note = _folder(path, labels) if path.is_dir() else _archive(path, labels)
    if encoder is None:
        rate = Counter(rate for _, rate, _ in sounds).most_common(1)[0][0]
        encoder = LogMel(rate, seconds=float(np.mean([len(wave) / rate for wave, rate, _ in sounds])))
    X = np.empty((len(sounds), 1, encoder.n_mels, encoder.frames), np.float32)
    for i, (wave, rate, name) in enumerate(sounds):
        try:
            X[i] = encoder.encode(wave, rate)
        except DataError as e:
            raise DataError(f"{name}: {e}") from None
    mean = f"{encoder.seconds:.2f} s on average at {encoder.rate:,} Hz"
    return X, y, encoder, ", ".join([mean, *note])


_Sound = tuple[NDArray[Any], int, str]  # the wave, its rate, and what it is called


def _folder(folder: Path, labels: Any) -> tuple[list[_Sound], Any, list[str]]:
    visible = visible_files(folder)
    files = [file for file in visible if file.suffix.lower() in SOUNDS]
    if not files:
        raise DataError(f"folder {folder} holds no sounds ({', '.join(SOUNDS)}): pass another folder")
    y, note = folder_labels(folder, files) if labels is None else (labels, "")
    others = len(visible) - len(files)
    notes = [f"without {others:,} other file{'s' * (others != 1)}"] if others else []
    notes += filter(None, [note])
    return [(*_load(file), str(file)) for file in files], y, notes


def _load(file: Path) -> tuple[NDArray[Any], int]:
    """Read one file: its wave, and its rate in Hz."""
    try:
        if file.suffix.lower() == ".wav":
            from scipy.io import wavfile

            with warnings.catch_warnings():  # of chunks that hold no sound
                warnings.simplefilter("ignore", wavfile.WavFileWarning)
                warnings.filterwarnings("error", "Reached EOF", wavfile.WavFileWarning)  # it is cut off
                rate, wave = wavfile.read(file)
        else:
            import soundfile

            wave, rate = soundfile.read(file, dtype="float32")
        if not len(wave):
            raise ValueError("it has no samples")
        return wave, int(rate)
    except ImportError:
        raise DataError(f"to read {file}, chartae needs soundfile: pip install soundfile") from None
    except Exception as e:  # there is nothing that a damaged file does not raise
        why = one_line(e)
        raise DataError(f"cannot read {file} ({why}): remove it, or save it again") from None


def _archive(path: Path, labels: Any) -> tuple[list[_Sound], Any, list[str]]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            names: list[str] = archive.files
            if not {"wave", "offsets"} <= set(names):
                raise DataError(f"{path} has no wave and offsets, only {', '.join(names)}: save both in it")
            wave, offsets = archive["wave"], archive["offsets"]
            n = len(offsets) - 1 if offsets.ndim == 1 else 0
            known = next((archive[name] for name in _RATES if name in names), None)
            if isinstance(labels, str) and labels in names:
                keys = [labels]
            elif isinstance(labels, str) and not labels.endswith(".npy"):
                raise DataError(f"{path} has no array {labels!r}: its arrays are {', '.join(names)}")
            else:
                keys = [k for k in _LABELS if labels is None and k in names and archive[k].shape[:1] == (n,)]
            y = archive[keys[0]] if keys else labels
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as e:
        if isinstance(e, DataError):
            raise
        why = one_line(e)
        raise DataError(f"cannot read {path} ({why}): write it again with np.savez") from None
    rising = n > 0 and offsets.dtype.kind in "iu" and offsets[0] >= 0 and (offsets[1:] > offsets[:-1]).all()
    if wave.ndim != 1 or not rising or offsets[-1] > len(wave):
        raise DataError(
            f"wave {wave.shape} and offsets {offsets.shape} of {path} do not fit: save (samples,) and"
            " (n + 1,) rising whole numbers up to the number of samples"
        )
    if known is not None and (known.size != 1 or known.dtype.kind not in "iuf" or known.item() < 1):
        raise DataError(f"the rate in {path} is {known}: pass one number, in Hz")
    rate = _RATE if known is None else int(known.item())
    notes = [f"labels {keys[0]}"] if keys else []
    notes += ["without a sample_rate in it"] if known is None else []
    cut = pairwise(offsets)
    sounds = [(wave[a:b], rate, f"utterance {i} of {path}") for i, (a, b) in enumerate(cut)]
    return sounds, y, notes
