"""Estimators: any recipe behind scikit-learn's contract."""

from __future__ import annotations

from typing import Any

from chartae.core.errors import PlanError
from chartae.estimators.fitting import Fitting, _Task
from chartae.estimators.keeping import Keeping
from chartae.estimators.parameters import constructor, documented, of_recipe
from chartae.training.readers import Dataset
from chartae.training.tokens import texts_of, tokenized

__all__ = ["AE", "CVAE", "VAE", "Autoencoder", "TextVAE"]

OF_RECIPE = "recipe_params__"


@of_recipe("ae")
class AE(Fitting):
    """Plain autoencoder: a chart of the data, without a density.

    Parameters
    ----------
    {common}

    Raises
    ------
    TypeError
        If a parameter is unknown.

    Attributes
    ----------
    {attributes}

    References
    ----------
    Hinton and Salakhutdinov 2006, doi:10.1126/science.1127647.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae import AE
    >>> t = np.linspace(0, 6, 200)
    >>> X = np.column_stack([np.cos(t), np.sin(t), t])
    >>> AE(latent_dim=2, max_epochs=2, random_state=0).fit(X).transform(X).shape
    (200, 2)
    """


@of_recipe("vae")
class VAE(Fitting):
    """Variational autoencoder.

    Parameters
    ----------
    covariance : {"diagonal", "full"}
        Of q(z | x): "full" also says how the dimensions of a code go together, in d² / 2 more numbers.
    free_bits : float
        Nats of each latent dimension that cost nothing.
    warmup : float
        Epochs over which the weight of the KL term rises from 0 to 1, half of ``max_epochs`` at most.
    {common}

    Raises
    ------
    TypeError
        If a parameter is unknown.

    Attributes
    ----------
    {attributes}

    References
    ----------
    Kingma and Welling 2014, arXiv:1312.6114.

    Examples
    --------
    >>> import numpy as np
    >>> from chartae import VAE
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> vae = VAE(latent_dim=2, max_epochs=2, random_state=0).fit(X)
    >>> vae.transform(X).shape, vae.sample(4, random_state=0).shape
    ((200, 2), (4, 3))
    """


@of_recipe("cvae")
class CVAE(Fitting):
    """Conditional VAE: ``fit(X, y)``, then ``sample(condition=...)``.

    Parameters
    ----------
    conditional_prior : bool
        Learn p(z | c) instead of N(0, I).
    covariance : {"diagonal", "full"}
        Of q(z | x): "full" also says how the dimensions of a code go together, in d² / 2 more numbers.
    free_bits : float
        Nats of each latent dimension that cost nothing.
    warmup : float
        Epochs over which the weight of the KL term rises from 0 to 1, half of ``max_epochs`` at most.
    {common}

    Raises
    ------
    TypeError
        If a parameter is unknown.

    Attributes
    ----------
    {attributes}

    References
    ----------
    Sohn, Lee and Yan 2015, "Learning structured output representation using deep conditional generative
    models".

    Examples
    --------
    >>> import numpy as np
    >>> from chartae import CVAE
    >>> X = np.repeat([[0.0, 1.0], [5.0, 6.0]], 50, axis=0)
    >>> cvae = CVAE(latent_dim=1, max_epochs=2, random_state=0).fit(X, np.repeat(["low", "high"], 50))
    >>> cvae.sample(3, condition="high", random_state=0).shape
    (3, 2)
    """


@of_recipe(
    "cyclical-vae", tokens="bytes", max_length=None, context=None, likelihood="sequence", latent_dim=16
)
class TextVAE(Fitting):
    """Variational autoencoder of texts: ``fit`` takes a list of str, and what is decoded is one.

    Texts are rows of tokens. The encoder is a Transformer that sees all of a text; the decoder one that says
    token after token, under the code and what it has said so far.

    Parameters
    ----------
    tokens : {"bytes", "bpe"} or int
        Bytes of texts, or pieces that come often ("bpe": 2048 at most, or as many as the number says), which
        need the library tokenizers and make shorter rows.
    max_length : int or None
        Tokens of the longest text, to which longer ones are cut, with a warning; None: of the longest in
        ``fit``, 512 at most.
    context : int or None
        How many tokens just before the next each layer of the decoder looks at; None: all. With few, the code
        has to say what a text is about, and pays for itself (arXiv:1702.08139) where no more nats are free
        than that is worth: ``free_bits`` times ``latent_dim``.
    covariance : {"diagonal", "full"}
        Of q(z | x): "full" also says how the dimensions of a code go together, in d² / 2 more numbers.
    free_bits : float
        Nats of each latent dimension that cost nothing: without them the decoder may do without the code. A
        fit of ten epochs or more warns if in the end a text is less than 1 nat less likely with the code of
        another.
    warmup : float
        Epochs over which the weight of the KL term rises to 1, half of ``max_epochs`` at most.
    cycles : int
        How often it rises within them.
    network : {"auto", "transformer"}
        "auto" is "transformer" here.
    hidden : sequence of int or None
        One width for each layer, all equal; None: two of 128.
    likelihood : {"sequence", "auto"}
        Each token is told from those before it and the code; texts have no other.
    {common}

    Raises
    ------
    TypeError
        If a parameter is unknown.

    Attributes
    ----------
    {attributes}

    References
    ----------
    Bowman et al. 2016, arXiv:1511.06349; Fu et al. 2019, arXiv:1903.10145.

    Examples
    --------
    >>> from chartae import TextVAE
    >>> texts = [f"{size} {color} fox" for size in ("a small", "a large") for color in ("red", "gray")] * 5
    >>> vae = TextVAE(latent_dim=2, hidden=(16,), max_epochs=2, random_state=0).fit(texts)
    >>> vae.transform(texts).shape, vae.score_samples(texts[:3]).shape
    ((20, 2), (3,))
    >>> [type(text) for text in vae.sample(2, random_state=0)]
    [<class 'str'>, <class 'str'>]
    """

    def _prepare(self, X: Any, y: Any, keeping: Keeping) -> _Task:
        self._validate_params()
        if self.likelihood not in ("sequence", "auto"):
            raise PlanError(f"likelihood={self.likelihood!r} is not of texts: leave it out")
        texts = X.texts if isinstance(X, Dataset) and not getattr(X.medium, "restores", False) else None
        if texts is not None or not isinstance(X, Dataset):
            given = texts_of(X if texts is None else texts)
            medium = tokenized(given, self.tokens, self.max_length)
            X = Dataset(medium.encode(given), medium=medium)
        return super()._prepare(X, y, keeping)

    def interpolate(
        self, start: Any, stop: Any, steps: int = 9, *, path: str = "straight", condition: Any = None
    ) -> Any:
        """Say the texts on a path between the codes of two.

        Parameters
        ----------
        start, stop : str
            One text each.
        steps : int
            Texts on the path, with its ends.
        path : {"straight", "spherical"}
            As in :meth:`VAE.interpolate`.
        condition : None
            No effect.

        Returns
        -------
        list of str
            ``steps`` texts.

        References
        ----------
        Bowman et al. 2016, arXiv:1511.06349, section 4.3.
        """
        self._ready()
        start, stop = self.medium_.encode([start, stop])
        return super().interpolate(start, stop, steps, path=path, condition=condition)


@documented
class Autoencoder(Fitting):
    """Any recipe by its name (:func:`chartae.recipes` lists them).

    Parameters
    ----------
    recipe : str
        The recipe.
    recipe_params : dict or None
        The recipe's own parameters.
    {common}

    Raises
    ------
    TypeError
        If a parameter is unknown.

    Attributes
    ----------
    {attributes}

    Examples
    --------
    >>> import numpy as np
    >>> from chartae import Autoencoder
    >>> X = np.random.default_rng(0).normal(size=(200, 3))
    >>> Autoencoder(recipe="beta-vae", recipe_params={"beta": 2.0}, latent_dim=2, max_epochs=2).fit(X).n_iter_
    2
    """

    __init__ = constructor({"recipe": "vae", "recipe_params": None})

    def set_params(self, **params: Any) -> Autoencoder:
        """Change parameters; one of the recipe's is ``recipe_params__name``, as in a grid of a search.

        Parameters
        ----------
        **params : object
            By name.

        Returns
        -------
        Autoencoder
            Itself.

        Examples
        --------
        >>> from chartae import Autoencoder
        >>> Autoencoder(recipe="beta-vae").set_params(recipe_params__beta=2.0).recipe_params
        {'beta': 2.0}
        """
        own = {name: value for name, value in params.items() if name.startswith(OF_RECIPE)}
        super().set_params(**{name: value for name, value in params.items() if name not in own})
        if own:
            short = {name.removeprefix(OF_RECIPE): value for name, value in own.items()}
            self.recipe_params: dict[str, Any] | None = {**(self.recipe_params or {}), **short}
        return self

    def _recipe(self) -> tuple[str, dict[str, Any]]:
        return self.recipe, dict(self.recipe_params or {})
