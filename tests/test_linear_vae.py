"""Linear autoencoders, whose optimum is known: probabilistic PCA, and what an L2 penalty does to a code."""

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.neighbors import NearestNeighbors

import chartae as ct
from chartae.core.contracts import Batch
from chartae.core.noise import Noise
from chartae.core.spaces import Space
from chartae.density.bounds import log_likelihood_bound
from chartae.models.recipes import build
from chartae.parts.distributions import FullNormal
from chartae.parts.units import infer_space
from chartae.training.engine import train
from chartae.training.sources import Source

D, UNIT, OFFSET = 8, 7.0, 100.0
SIGMA = 0.8 * UNIT  # in the input's units
SPECTRUM = UNIT**2 * np.array([9.0, 4.0, 2.0, 0.5, 0.4, 0.3, 0.2, 0.1])  # three above the noise variance


def planted(n: int = 600, spectrum: np.ndarray = SPECTRUM, rotate: bool = True) -> np.ndarray:
    """Rows whose empirical mean is the offset and whose empirical covariance has exactly this spectrum."""
    rng = np.random.default_rng(0)
    white = rng.normal(size=(n, len(spectrum)))
    white, _ = np.linalg.qr(white - white.mean(0))
    basis = np.linalg.qr(rng.normal(size=(len(spectrum),) * 2))[0] if rotate else np.eye(len(spectrum))
    return OFFSET + np.sqrt(n) * white * np.sqrt(spectrum) @ basis.T


def gaussian_score(spectrum: np.ndarray, model_spectrum: np.ndarray) -> float:
    """Mean log N(x; mean, C), in nats, where C has the data's eigenvectors."""
    return -0.5 * float(np.sum(np.log(2 * np.pi * model_spectrum) + spectrum / model_spectrum))


def ppca_score(sigma: float, beta: float = 1.0) -> float:
    """The optimum with fixed noise (Tipping and Bishop 1999).

    Eigenvalues above β σ² are kept, less (β - 1) σ².
    """
    kept = beta * sigma**2 < SPECTRUM
    return gaussian_score(SPECTRUM, np.where(kept, SPECTRUM - (beta - 1) * sigma**2, sigma**2))


def decoder(m: ct.Autoencoder) -> tuple[np.ndarray, np.ndarray]:
    """W and b of x = W z + b, in the input's units."""
    (layer,) = m.model_.likelihood.network.layers
    W, b = (t.detach().double().numpy() for t in (layer.weight, layer.bias))
    scale = float(m.space_.scale)
    return scale * W, scale * b + m.space_.center.numpy()


def marginal_score(m: ct.Autoencoder, X: np.ndarray, sigma: float) -> float:
    """Mean log p(x) of a linear decoder, exactly."""
    W, b = decoder(m)
    C = W @ W.T + sigma**2 * np.eye(len(b))
    centered = X - b
    quadratic = (centered * np.linalg.solve(C, centered.T).T).sum(1).mean()
    return -0.5 * float(len(b) * np.log(2 * np.pi) + np.linalg.slogdet(C)[1] + quadratic)


def fit(recipe: str, X: np.ndarray, **parameters: object) -> ct.Autoencoder:
    chosen = {
        "latent_dim": 5,
        "network": "linear",
        "likelihood": "normal",
        "noise": SIGMA,
        "max_epochs": 300,
        "batch_size": 100,
        "learning_rate": 2e-2,
        "schedule": "cosine",
        "validation_fraction": 0.0,
        "random_state": 0,
    }
    return ct.Autoencoder(recipe=recipe, **{**chosen, **parameters}).fit(X)


@pytest.fixture(scope="module")
def ppca() -> ct.Autoencoder:
    return fit("vae", planted())


def test_the_log_likelihood_is_that_of_probabilistic_pca(ppca):
    X, best = planted(), ppca_score(SIGMA)
    assert marginal_score(ppca, X, SIGMA) == pytest.approx(best, abs=0.1)
    assert marginal_score(ppca, X, SIGMA) <= best + 1e-9  # nothing is above the optimum
    # The posterior of the optimum is diagonal, so the bound is the likelihood, of one sample or many.
    assert ppca.score(X, n_importance=64) == pytest.approx(best, abs=0.1)
    assert -ppca.history_[-1]["loss"] == pytest.approx(best, abs=0.1)


def test_scores_are_below_the_log_likelihood_and_approach_it():
    """On average over rows: what is off by chance is independent of other rows. False alarms: 4 errors."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 8)) @ rng.normal(size=(8, 20)) + 0.5 * rng.normal(size=(1000, 20))
    m = ct.VAE(latent_dim=8, network="linear", max_epochs=25, random_state=0).fit(X)
    b = m.inverse_transform(np.zeros((1, 8)))
    W = m.inverse_transform(np.eye(8)) - b
    drawn, mean = (m.sample(50_000, random_state=0, observation_noise=each) for each in (True, False))
    exact = scipy.stats.multivariate_normal(b[0], W.T @ W + (drawn - mean).var() * np.eye(20)).logpdf(X)
    found = []
    for k in (1, 16, 256):
        gaps = m.score_samples(X, n_importance=k) - exact
        assert gaps.mean() < 4 * gaps.std() / len(X) ** 0.5
        found.append(gaps.mean())
    assert found == sorted(found)
    assert found[0] < -0.3 < -0.05 < found[-1]


def test_the_kl_of_each_dimension(ppca):
    found = np.sort(ppca.history_[-1]["kl_per_dim"])[::-1]
    expected = 0.5 * np.log(SPECTRUM[:3] / SIGMA**2)
    np.testing.assert_allclose(found[:3], expected, rtol=0.02)
    np.testing.assert_allclose(found[3:], 0.0, atol=0.01)  # eigenvalues below the noise are left alone
    assert ppca.history_[-1]["kl"] == pytest.approx(expected.sum(), rel=0.02)


def test_the_decoder_spans_the_leading_eigenvectors(ppca):
    """W W^T = U (Λ - σ²) U^T, in the input's units, and the offset is the data's mean."""
    X = planted()
    W, b = decoder(ppca)
    values, vectors = np.linalg.eigh(np.cov(X.T, bias=True))
    expected = vectors @ np.diag(np.maximum(values - SIGMA**2, 0)) @ vectors.T
    np.testing.assert_allclose(W @ W.T, expected, atol=0.03 * SPECTRUM[0])
    np.testing.assert_allclose(b, X.mean(0), atol=0.02 * UNIT)


def test_codes_and_reconstructions_are_the_posterior_s(ppca):
    """E[z | x] = (W^T W + σ²)^-1 W^T (x - b), and its covariance σ² (W^T W + σ²)^-1."""
    X = planted()
    W, b = decoder(ppca)
    M = np.linalg.inv(W.T @ W + SIGMA**2 * np.eye(5))
    mean, std = ppca.transform(X, return_std=True)
    np.testing.assert_allclose(mean, (X - b) @ W @ M, atol=0.05)
    np.testing.assert_allclose(std.mean(0), SIGMA * np.sqrt(np.diag(M)), rtol=0.02)
    np.testing.assert_allclose(ppca.inverse_transform(mean), mean @ W.T + b, rtol=1e-4)


def test_samples_have_the_model_s_covariance(ppca):
    W, _ = decoder(ppca)
    drawn = ppca.sample(50_000, random_state=0, observation_noise=True)
    expected = np.linalg.eigvalsh(W @ W.T + SIGMA**2 * np.eye(D))
    # An eigenvalue of 50,000 rows has a relative standard error of .6 %: five of them.
    np.testing.assert_allclose(np.linalg.eigvalsh(np.cov(drawn.T)), expected, rtol=0.05)


@pytest.mark.parametrize("beta", [0.5, 2.0])
def test_a_weight_on_the_kl_is_a_change_of_the_noise(beta):
    """β KL: KL_i = ½ log(λ_i / (β σ²)) of the eigenvalues above β σ²."""
    # From some starts, of which seed 0 is one, two axes halfway between eigenvectors have not turned in time.
    own = {"recipe_params": {"beta": beta}, "latent_dim": 4, "learning_rate": 5e-2, "random_state": 1}
    m = fit("beta-vae", planted(), **own)
    expected = np.maximum(0.5 * np.log(SPECTRUM[:4] / (beta * SIGMA**2)), 0)
    # The sum: axes turn towards the eigenvectors slowly where the noise is small.
    assert m.history_[-1]["kl"] == pytest.approx(expected.sum(), rel=0.03)
    W, _ = decoder(m)
    found = np.linalg.eigvalsh(W @ W.T)[::-1][:4]
    np.testing.assert_allclose(found, np.maximum(SPECTRUM[:4] - beta * SIGMA**2, 0), atol=0.03 * SPECTRUM[0])
    assert marginal_score(m, planted(), SIGMA) == pytest.approx(ppca_score(SIGMA, beta), abs=0.1)


def test_the_importance_weighted_bound_has_the_same_optimum():
    m = fit("iwae", planted(), latent_dim=3, max_epochs=150)
    assert marginal_score(m, planted(), SIGMA) == pytest.approx(ppca_score(SIGMA), abs=0.1)


def test_estimated_noise_is_the_mean_of_the_discarded_spectrum():
    """Tipping and Bishop 1999, equation 8: the noise variance is the mean of the eigenvalues left out."""
    m = fit("vae", planted(), noise="global", latent_dim=3)
    expected = SPECTRUM[3:].mean()
    variance = float(m.model_.likelihood.log_spread.exp()) * float(m.space_.scale) ** 2
    # A running estimate over batches of 100 rows of 8 values: its own noise is about 2 %.
    assert variance == pytest.approx(expected, rel=0.08)
    best = gaussian_score(SPECTRUM, np.concatenate([SPECTRUM[:3], np.full(5, expected)]))
    assert m.score(planted(), n_importance=64) == pytest.approx(best, abs=0.1)


# ------------------------------------------------------------------- the covariance of the posterior


@pytest.mark.parametrize("covariance", ["diagonal", "full"])
def test_under_a_fixed_decoder_a_full_posterior_is_exact_and_a_diagonal_one_falls_short(covariance):
    """x = W z + noise: q(z | x) = N(M^-1 W^T x / s², M^-1) with M = I + W^T W / s².

    The best diagonal normal has the variances 1 / M_ii, and is (sum log M_ii - log det M) / 2 from it.
    """
    rng, sigma, d = np.random.default_rng(0), 0.3, 3
    alike = np.linalg.cholesky(0.2 * np.eye(d) + 0.8).T
    W = np.linalg.qr(rng.normal(size=(6, d)))[0] @ alike
    X = rng.normal(size=(2000, d)) @ W.T + sigma * rng.normal(size=(2000, 6))
    torch.manual_seed(0)
    space = Space((6,))
    plan = build("vae", space, latent_dim=d, network="linear", noise=sigma, covariance=covariance)
    (decode,) = plan.model.likelihood.network.layers
    with torch.no_grad():
        decode.weight.copy_(torch.from_numpy(W))
        decode.bias.zero_()
    plan.model.likelihood.requires_grad_(False)
    for _ in train(plan, Source(X, space), epochs=60, learning_rate=2e-2, schedule="cosine"):
        pass

    M = np.eye(d) + W.T @ W / sigma**2
    gap = 0.5 * (np.log(np.diag(M)).sum() - np.linalg.slogdet(M)[1])
    C = W @ W.T + sigma**2 * np.eye(6)
    exact = -0.5 * (6 * np.log(2 * np.pi) + np.linalg.slogdet(C)[1] + (X * np.linalg.solve(C, X.T).T).sum(1))
    x, model = torch.from_numpy(X).float(), plan.model.eval()
    with torch.no_grad():
        q = model.posterior(x)
        bound = log_likelihood_bound(model, Batch(x), k=1, noise=Noise(0)).numpy()
    factor = q.scale_tril if isinstance(q, FullNormal) else torch.diag_embed(q.std())
    short = 0.0 if covariance == "full" else gap
    assert gap > 0.8
    # 2,000 draws with a standard deviation of less than 1.5 nats: three standard errors.
    assert exact.mean() - bound.mean() == pytest.approx(short, abs=0.1)
    expected = np.linalg.inv(M) if covariance == "full" else np.diag(1 / np.diag(M))
    # .02 is the most over four seeds, of entries of which those beside the diagonal are -.09, or 0.
    np.testing.assert_allclose((factor @ factor.mT).mean(0), expected, atol=0.03)


# ------------------------------------------------------------------- a penalty on the code alone

LAMBDAS = (0.01, 1.0, 100.0)


def sheet() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.uniform(-1, 1, size=(400, 2)) @ rng.normal(size=(2, 6))


@pytest.mark.parametrize("lam", LAMBDAS)
def test_no_code_but_zero_is_a_minimum_of_an_l2_penalty(lam):
    """Codes divided by s and a decoder that multiplies by s: the same likelihood, the penalty over s²."""
    X = sheet()
    space = infer_space(X)
    torch.manual_seed(0)
    plan = build("l2-ae", space, latent_dim=2, network="linear", noise=0.3, lam=lam)
    batch = Batch(space.to_model(torch.from_numpy(X)))
    (encode,), (decode,) = plan.model.posterior.network.layers, plan.model.likelihood.network.layers
    s = 3.0

    def terms() -> dict:
        return plan.objective(plan.model.trace(batch, k=1, noise=Noise(0)))

    before = terms()
    with torch.no_grad():
        encode.weight /= s
        encode.bias /= s
        decode.weight *= s
    after = terms()
    torch.testing.assert_close(after["nll"].rows, before["nll"].rows, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after["code_norm"].value(), before["code_norm"].value() / s**2)
    assert before["code_norm"].weight == lam


@pytest.mark.parametrize("lam", LAMBDAS)
def test_an_l2_penalty_shrinks_codes_and_the_decoder_makes_up_for_it(lam):
    X = sheet()
    X, held_out = X[:300], X[300:]
    space = infer_space(X)
    torch.manual_seed(0)
    plan = build("l2-ae", space, latent_dim=2, network="linear", noise=0.3, lam=lam)
    # Rows many times over: an epoch is a hundred steps of nearly all rows.
    source = Source(X, space, rows=torch.arange(300).repeat(100))
    x = space.to_model(torch.from_numpy(X))
    sizes, jacobians = [], []
    for _ in train(plan, source, epochs=24, batch_size=300, learning_rate=6e-2):
        plan.model.eval()  # functorch wants the plain layers
        with torch.no_grad():
            sizes.append(float(plan.model.posterior(x).point().square().sum(1).mean().sqrt()))
        jacobian = torch.func.jacrev(plan.model.likelihood.network)(torch.zeros(1, 2))
        jacobians.append(float(jacobian.detach().norm()))
    sizes, jacobians = np.array(sizes)[[5, 11, 23]], np.array(jacobians)[[5, 11, 23]]
    assert (np.diff(sizes) < 0).all()
    assert sizes[-1] < 0.75 * sizes[0]
    assert (np.diff(jacobians) > 0).all()
    np.testing.assert_allclose(sizes * jacobians, (sizes * jacobians)[-1], rtol=0.25)

    with torch.no_grad():
        z = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
        made = space.from_model(plan.model.likelihood(z[None]).point()[0]).numpy()
    nearest = NearestNeighbors(n_neighbors=1).fit(X)
    away, near = (np.median(nearest.kneighbors(rows)[0]) for rows in (made, held_out))
    assert away > 2.5 * near
