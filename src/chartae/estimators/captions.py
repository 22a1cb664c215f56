"""Texts under a frozen encoder: captions of images, or of whatever else has a code."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from contextlib import closing
from numbers import Integral, Real
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.validation import _num_samples, check_is_fitted
from torch import Tensor

from chartae.core.arrays import as_tensor, checksum
from chartae.core.contracts import Distribution, Plan, RawCondition
from chartae.core.errors import DataError, PlanError, RunFolderError
from chartae.core.noise import Noise
from chartae.core.spaces import Space
from chartae.estimators.decoding import begun_from, seed_of
from chartae.estimators.fitting import Fitting
from chartae.estimators.heads import OnCodes
from chartae.estimators.parameters import widths
from chartae.estimators.progress import show_progress
from chartae.estimators.runs import described, keep, kept, load
from chartae.estimators.whole import whole
from chartae.models.persistence.files import separate
from chartae.models.spoken import spoken
from chartae.parts.networks import Prefixed
from chartae.parts.units import infer_space
from chartae.training.engine import train
from chartae.training.precision import choose_device
from chartae.training.readers import medium_of
from chartae.training.sources import Source
from chartae.training.splits import FEWEST, apart
from chartae.training.tokens import Borrowed, language_model_of, texts_of, tokenized
from chartae.transfer import Scaled, coded, fitted

__all__ = ["Captioner"]

AT_ONCE = 512  # texts that are said or scored in one go ...
LOGITS = 2**26  # ... unless their tokens have more numbers than this
ENCODER = "encoder"  # folder within a run folder
YOURS = ("encoder", "language_model", "tokens")  # what it need not hold


class Captioner(OnCodes):
    """Says texts of items under the codes of an encoder that stays as it is.

    p(text | code) is a causal Transformer over tokens, in which a code is a few tokens in front: the decoder
    of :class:`TextVAE`, with a given code in place of a learned one.

    Parameters
    ----------
    {encoder}
    tokens : {"bytes", "bpe"}, int or PreTrainedTokenizerBase
        As :class:`TextVAE` has them; with a language model: its tokenizer, which must be a fast one.
    language_model : str, nn.Module or None
        A causal language model of the library transformers, or the name or folder that it is opened by, with
        its tokenizer. It takes the place of the Transformer (``hidden`` has no effect), and a code is a few
        vectors in front of those of its tokens.
    frozen : bool
        Whether the language model stays as it is, to the last bit, so that only these vectors are learned:
        it is not copied, and its weights no longer take gradients. False: a copy is trained with them.
    max_length : int or None
        Tokens of the longest text, as :class:`TextVAE` has them.
    hidden : int, sequence of int or None
        Width of each block of the Transformer, all equal; None: two of 128.
    hide : float
        Share of the tokens before each that the decoder does not see in training.
    max_epochs : int
        Passes over the texts, at most.
    batch_size : int
        Texts of a step.
    learning_rate : float
        Of Adam.
    schedule : {"constant", "cosine", "linear"}
        Of the learning rate.
    validation_fraction : float
        Share of texts held out, where those are 10 or more.
    patience : int or None
        Epochs without improvement on them before training stops; None: never.
    device : str
        "auto", "cpu", "cuda" ...
    random_state : int, RandomState or None
        Of first weights, order, and what is held out.
    verbose : int
        0 is silent; 1 shows progress.

    Attributes
    ----------
    encoder_ : object
        As it was used.
    model_ : nn.Module
        The torch model of texts.
    medium_ : Bytes, BytePairs or Borrowed
        How texts became tokens.
    space_ : Space
        Of the tokens.
    history_ : list of dict
        One for each epoch: ``nll``, nats a text, and ``val_nll``, the same of held-out ones.
    validation_rows_ : ndarray
        ``(m,)`` row numbers that were held out.
    random_state_ : int
        ``random_state``, or the number that was drawn in its place.

    References
    ----------
    Vinyals et al. 2015, arXiv:1411.4555; codes as tokens in front of a text: Liu et al. 2023,
    arXiv:2304.08485; in front of a frozen language model: Mokady et al. 2021, arXiv:2111.09734.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae import Captioner
    >>> codes = np.repeat(np.eye(2), 50, axis=0)
    >>> texts = ["one"] * 50 + ["two"] * 50
    >>> captioner = Captioner(hidden=(32,), max_epochs=30, learning_rate=0.01, random_state=0)
    >>> captioner.fit(codes, texts).caption(np.eye(2))
    ['one', 'two']
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "tokens": [
            StrOptions({"bytes", "bpe"}),
            Interval(Integral, 256, None, closed="left"),
            HasMethods(["encode", "decode"]),
        ],
        "language_model": "no_validation",
        "frozen": ["boolean"],
        "max_length": [None, Interval(Integral, 1, None, closed="left")],
        "hidden": [None, Interval(Integral, 1, None, closed="left"), "array-like"],
        "hide": [Interval(Real, 0, 1, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "schedule": [str],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "patience": [None, Interval(Integral, 1, None, closed="left")],
        "device": [str],
        "random_state": ["random_state"],
        "verbose": ["verbose"],
    }

    def __init__(
        self,
        encoder: Any = None,
        *,
        tokens: Any = "bytes",
        language_model: Any = None,
        frozen: bool = True,
        max_length: int | None = None,
        hidden: Any = None,
        hide: float = 0.0,
        max_epochs: int = 20,
        batch_size: int = 128,
        learning_rate: float = 2e-3,
        schedule: str = "cosine",
        validation_fraction: float = 0.1,
        patience: int | None = 5,
        device: str = "auto",
        random_state: Any = None,
        verbose: int = 0,
    ) -> None:
        self.encoder = encoder
        self.tokens = tokens
        self.language_model = language_model
        self.frozen = frozen
        self.max_length = max_length
        self.hidden = hidden
        self.hide = hide
        self.max_epochs = max_epochs
        self.batch_size = batch_size
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    # ---------------------------------------------------------------- fit

    def fit(self, X: Any, texts: Any) -> Captioner:
        """Learn to say texts.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``: items, as the encoder takes them; one that has several texts comes as often.
        texts : sequence of str
            ``n`` of them.

        Returns
        -------
        Captioner
            Itself.

        Raises
        ------
        DataError
            If there are not as many texts as items, or one is empty or no text.
        PlanError
            If the language model is none, or its tokenizer is missing.
        """
        with whole(self):
            self._validate_params()
            X, texts = self._pairs(X, texts, reset=True)
            medium, language_model = self._medium(texts)
            tokens = medium.encode(texts)
            seed = self.random_state_ = begun_from(self.random_state)
            self.encoder_ = fitted(self.encoder, X, seed)
            codes = self._vectors(X)
            kept, held = np.arange(len(tokens)), np.arange(0)
            if self.validation_fraction * len(tokens) >= FEWEST:
                kept, held = apart(X, self.validation_fraction, seed)
            self.validation_rows_ = held
            self.medium_, self.code_dim_ = medium, codes.shape[1]
            self.space_ = infer_space(tokens, likelihood="sequence")
            with torch.random.fork_rng(devices=[]):
                torch.default_generator.manual_seed(seed)
                plan = self._plan(language_model)
            model: Any = plan.model.to(choose_device(self.device))
            self.model_ = model
            # One scale for all dimensions, as heads have it: one for each would blow up what says nothing.
            scaled = Scaled().fit(codes[kept].numpy())
            model.condition.center.copy_(torch.from_numpy(scaled.mean_))
            model.condition.scale.fill_(scaled.scale_)
            source = Source(tokens, self.space_, RawCondition(vector=codes), device=self._device)
            epochs = train(
                plan,
                source.subset(kept),
                epochs=self.max_epochs,
                validation=source.subset(held) if len(held) else None,
                batch_size=self.batch_size,
                learning_rate=self.learning_rate,
                schedule=self.schedule,
                patience=self.patience,
                seed=seed,
            )
            with closing(epochs):
                self.history_ = [dict(e.log) for e in show_progress(epochs, self.max_epochs, self.verbose)]
        return self

    def _medium(self, texts: Any) -> tuple[Any, Any]:
        """Choose how texts become tokens, and find the language model, if there is one."""
        if self.language_model is None:
            if not isinstance(self.tokens, str | int | np.integer):
                raise PlanError("tokens= is a tokenizer: pass its model as language_model=, or tokens='bpe'")
            tokens = self.tokens if isinstance(self.tokens, str) else int(self.tokens)
            return tokenized(texts, tokens, self.max_length), None
        language_model, tokens = language_model_of(self.language_model, self.tokens)
        return Borrowed.of(tokens, texts, self.max_length), language_model

    def _plan(self, language_model: Any) -> Plan:
        hidden = widths(self.hidden)
        if language_model is None:
            return spoken(self.space_, self.code_dim_, hidden=hidden, hide=self.hide)
        # The caller's stays as it is.
        language_model = language_model if self.frozen else copy.deepcopy(language_model)
        medium: Any = self.medium_

        def speaker(width: int) -> Prefixed:
            return Prefixed(
                language_model,
                medium.ids,
                medium.max_length + 1,
                begins=medium.begins,
                latent_dim=0,
                condition_dim=width,
                frozen=self.frozen,
            )

        return spoken(self.space_, self.code_dim_, hide=self.hide, speaker=speaker)

    def _pairs(self, X: Any, texts: Any, *, reset: bool) -> tuple[Any, Any]:
        """Check items and their texts."""
        texts = texts_of(texts)
        X = self._items(X, reset=reset)
        if _num_samples(X) != len(texts):
            raise DataError(f"there are {_num_samples(X)} items and {len(texts)} texts: give one for each")
        return X, texts

    @property
    def _device(self) -> torch.device:
        return self.model_.space.center.device

    @property
    def _name(self) -> str | None:
        """What the language model is opened by, empty where it has no name; None where there is none."""
        model = self.language_model
        name = model if model is None or isinstance(model, str) else str(getattr(model, "name_or_path", ""))
        return str(Path(name).resolve()) if name and Path(name).is_dir() else name

    # ---------------------------------------------------------------- use

    def caption(self, X: Any, *, sampled: bool = False, random_state: Any = None) -> list[str]:
        """Say a text of each item.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.
        sampled : bool
            Draw each from p(text | code), in place of the likeliest token at each step.
        random_state : int, RandomState or None
            Of draws; None: different each time.

        Returns
        -------
        list of str
            ``n`` of them.
        """
        check_is_fitted(self)
        noise = Noise(seed_of(random_state)) if sampled else None
        made: list[str] = []

        def say(px: Distribution, _: slice) -> None:
            rows = px.point()[0] if noise is None else px.draw(1, noise).z[0, 0]
            made.extend(self.medium_.decode(rows.cpu().numpy()))

        self._each(self._items(X, reset=False), say)
        return made

    def score_samples(self, X: Any, texts: Any) -> np.ndarray:
        """Log probability of each text, given its item.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.
        texts : sequence of str
            ``n`` of them.

        Returns
        -------
        ndarray
            ``(n,)`` nats.

        Raises
        ------
        DataError
            If there are not as many texts as items, or one is empty or no text.
        """
        check_is_fitted(self)
        X, texts = self._pairs(X, texts, reset=False)
        tokens, found = torch.from_numpy(self.medium_.encode(texts)), np.empty(len(texts))

        def read(px: Distribution, rows: slice) -> None:
            found[rows] = px.log_prob(tokens[rows].to(self._device).float())[0].cpu().numpy()

        self._each(X, read)
        return found

    def score(self, X: Any, texts: Any) -> float:
        """Share of items whose caption is the given text to the letter.

        Parameters
        ----------
        X : array_like
            ``(n, *shape)``.
        texts : sequence of str
            ``n`` of them.

        Returns
        -------
        float
            From 0 to 1.

        Raises
        ------
        DataError
            If there are not as many texts as items, or one is no text.
        """
        check_is_fitted(self)
        X, texts = self._pairs(X, texts, reset=False)
        return float(np.mean([said == text for said, text in zip(self.caption(X), texts, strict=True)]))

    def _vectors(self, X: Any) -> Tensor:
        """Codes of items, of which truth values are numbers, too."""
        codes = as_tensor(coded(self.encoder_, X))
        return codes if codes.is_floating_point() else codes.float()

    def _each(self, X: Any, use: Callable[[Distribution, slice], None]) -> None:
        """Call ``use(p(text | code), rows)``, batch shape ``(1, n)``, for one block after the other."""
        codes = self._vectors(X)
        if codes.shape[1] != self.code_dim_:
            raise DataError(f"codes have {codes.shape[1]} numbers, and {self.code_dim_} are needed")
        (length,), levels = self.space_.model_shape, self.space_.levels or 1
        at_once = min(AT_ONCE, max(1, LOGITS // (length * levels)))
        for start in range(0, len(codes), at_once):
            rows = slice(start, start + at_once)
            vector = codes[rows].to(self._device)
            with torch.inference_mode():
                c = self.model_.conditioned(RawCondition(vector=vector), len(vector))
                use(self.model_.likelihood(c.new_zeros(1, len(vector), 0), c), rows)

    # ---------------------------------------------------------------- keep

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
        """Write a run folder, with the encoder in a folder of it if that is a model of chartae.

        Of a frozen language model, the folder holds the name alone, and the tokenizer.

        Parameters
        ----------
        path : str or path-like
            The folder.
        overwrite : bool
            Replace a run folder that is there.

        Returns
        -------
        Path
            The folder.

        Raises
        ------
        RunFolderError
            If it cannot be written.
        """
        check_is_fitted(self)
        own = isinstance(self.encoder_, Fitting)
        facts = {
            "language_model": self._name,
            "space": self.space_.config(),
            "medium": self.medium_.config(),
            "code_dim": self.code_dim_,
            "n_features": getattr(self, "n_features_in_", None),
            "feature_names": list(map(str, getattr(self, "feature_names_in_", []))) or None,
            "encoder": "chartae" if own else None if self.encoder_ is None else "yours",
            "encoder_sum": _sum_of(self.encoder_) if own else None,  # what cannot be kept is refused here
            "language_sum": _sum_of_held(self.model_),
        }
        tensors = {**self.model_.state_dict(), "validation_rows": torch.from_numpy(self.validation_rows_)}
        home = keep(self, path, "captioner", facts, tensors, yours=YOURS, overwrite=overwrite)
        if own:
            self.encoder_.save(home / ENCODER, overwrite=overwrite)
        return home

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        encoder: Any = None,
        language_model: Any = None,
        device: str = "auto",
    ) -> Captioner:
        """Open what :meth:`save` wrote; nothing in it is executed.

        Parameters
        ----------
        path : str or path-like
            The folder.
        encoder : object, optional
            The encoder, where it is no model of chartae.
        language_model : str or nn.Module, optional
            The language model, where it has no name that the library transformers opens it by.
        device : str
            Where the model goes.

        Returns
        -------
        Captioner
            Fitted.

        Raises
        ------
        RunFolderError
            If the folder holds no captioner, is broken, or needs an encoder or a language model of yours.

        Examples
        --------
        >>> import tempfile
        >>> import numpy as np
        >>> from chartae import Captioner
        >>> captioner = Captioner(hidden=(8,), max_epochs=1, random_state=0).fit(np.eye(3), ["a", "b", "c"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     again = Captioner.load(captioner.save(folder + "/captioner"))
        >>> again.caption(np.eye(3)) == captioner.caption(np.eye(3))
        True
        """
        where = choose_device(device)
        with kept(cls, path, "captioner", encoder=encoder) as (made, config, tensors):
            if config["encoder"] == "yours" and encoder is None:
                raise RunFolderError(f"{path} was fitted to an encoder of yours: pass it as encoder=")
            if config["encoder"] == "chartae" and encoder is None:
                made.encoder = _encoder_within(Path(path) / ENCODER, config.get("encoder_sum"), device)
            made.encoder_ = made.encoder
            made.medium_, made.code_dim_ = medium_of(config["medium"], {}), config["code_dim"]
            made.validation_rows_ = tensors.pop("validation_rows").numpy()
            if config.get("n_features") is not None:
                made.n_features_in_ = config["n_features"]
            if config.get("feature_names") is not None:
                made.feature_names_in_ = np.array(config["feature_names"], dtype=object)
            made.space_ = Space.from_config(config["space"])
            given = None
            if config.get("language_model") is not None:
                named = config["language_model"] if language_model is None else language_model
                if named == "":
                    raise RunFolderError(
                        f"{path} was fitted with a language model without a name: pass it as language_model="
                    )
                try:
                    given, made.tokens = language_model_of(named, made.medium_)
                except PlanError as error:
                    raise RunFolderError(f"{path}: {error}; or pass it as language_model=") from None
                made.language_model = named
            with torch.random.fork_rng(devices=[]):
                plan = made._plan(given)
            plan.model.load_state_dict(tensors)
            if config.get("language_sum") not in (None, _sum_of_held(plan.model)):
                raise RunFolderError(
                    f"{path} was fitted to a language model whose weights were others: pass that one as "
                    "language_model="
                )
        made.model_ = plan.model.eval().to(where)
        return cast(Captioner, made)


def _sum_of(encoder: Any) -> str:
    """Sum up all that an encoder has learned, by which it is known again."""
    from safetensors.torch import save  # which only those who keep or open something need

    return checksum(np.frombuffer(save(separate(described(encoder)[1])), np.uint8))


def _sum_of_held(model: Any) -> str | None:
    """Sum up a frozen language model, of which the folder holds the name alone; None where there is none."""
    held = [each for m in model.modules() if isinstance(m, Prefixed) for each in m.held]
    tensors = (t for each in held for t in each.state_dict().values())
    return checksum(*(t.cpu().reshape(-1).view(torch.uint8) for t in tensors)) if held else None


def _encoder_within(path: Path, known: str | None, device: str) -> Any:
    """Open the encoder in a captioner's folder, and refuse another than the captioner was fitted to."""
    try:
        encoder = load(path, device=device)
    except RunFolderError as error:
        if "network=" not in str(error):
            raise
        raise RunFolderError(
            f"{path} was fitted with modules of yours: open it by chartae.load(..., network=), and pass that "
            "as encoder="
        ) from None
    if known not in (None, _sum_of(encoder)):
        raise RunFolderError(f"{path} is not the encoder of this captioner: save the captioner again")
    return encoder
