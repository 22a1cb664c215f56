# %%
# # Three ways to a prior
#
# To generate, one draws a code and decodes it. This works if codes are drawn from where codes of items are.
# One can push all codes to zero, train them to follow a normal distribution, or leave them as they are and
# fit a density to them afterwards.
from dataclasses import replace

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import chartae as ct
from chartae.parts.distributions import StandardNormal

small = globals().get("small", False)  # a short run, for tests
rng = np.random.default_rng(0)
CHECKS = ["prior-match", "prior-holes", "sample-holes", "coverage"]


def with_normal_prior(model):
    """The chart of a model, with N(0, I) as what codes are meant to follow and are drawn from."""
    normal = StandardNormal(model.latent_dim_)
    return replace(model.chart(), prior=lambda c: normal, sampler=None)


def measure(chart, test, train):
    """What an audit says, as numbers."""
    report = ct.audit(chart, test, train, only=CHECKS)
    return {f.name: np.nan if f.statistic is None else f.statistic for f in report.findings}


def compare(train, test, d, epochs, lam):
    """Fit all models, and measure what is drawn from N(0, I) and from densities of codes."""
    common = {"latent_dim": d, "hidden": (128, 64), "max_epochs": epochs, "random_state": 0}
    pushed = ct.Autoencoder(recipe="l2-ae", recipe_params={"lam": lam}, **common).fit(train)
    vae = ct.VAE(**common).fit(train)
    size = np.sqrt((pushed.transform(test) ** 2).mean())
    print(f"pushed to zero: codes have size {size:.3f}, where N(0, 1) has 1")
    numbers, samples = {}, {}
    for name, model in {"pushed to zero": pushed, "KL": vae}.items():
        numbers[f"{name}, N(0, I)"] = measure(with_normal_prior(model), test, train)
        z = np.random.default_rng(0).normal(size=(300, d))
        samples[f"{name}, N(0, I)"] = model.inverse_transform(z)
        model.fit_prior("auto", random_state=0)
        numbers[f"{name}, density"] = measure(model, test, train)
        samples[f"{name}, density"] = model.sample(300, random_state=0)
    for name, row in numbers.items():
        said = ", ".join(f"{check} {value:.3g}" for check, value in row.items())
        print(f"{name}: {said}")
    return size, numbers, samples


# %%
# ## A curve in the plane, in 10 dimensions
#
# The numbers: *prior-match* is how far mean and covariance of codes are from those of N(0, I), in nats a
# dimension; *prior-holes* is the share of drawn codes, and *sample-holes* of decoded ones, that lie further
# from those of items than 99 % of held-out ones do (0.01 is perfect); *coverage* is the share of what
# held-out items cover that samples cover as well (1 is perfect).
n = 400 if small else 2000
angle = rng.uniform(0, 2 * np.pi, n)
flat = np.stack([np.cos(angle), np.sin(2 * angle) / 2], 1) + 0.05 * rng.normal(size=(n, 2))  # an eight
items = flat @ np.linalg.qr(rng.normal(size=(10, 10)))[0][:2]
epochs = 15 if small else 60
size, numbers, curves = compare(items[: n // 2], items[n // 2 :], 2, epochs, 10.0)

assert size < 0.8
assert numbers["pushed to zero, density"]["prior-holes"] < numbers["pushed to zero, N(0, I)"]["prior-holes"]

# %%
# Pushing codes to zero makes them small and does not make them normal. The decoder makes up for it, and
# N(0, I) falls mostly where no item has its code. The KL term brings mean and spread close to the prior's.
# But an eight is no normal distribution: a density fitted to the codes mends what is left, in both models.
#
# ## Digits
X = load_digits().images
X = X[rng.permutation(len(X))][: 700 if small else None]
epochs = 10 if small else 100
size, numbers, samples = compare(X[: len(X) // 2], X[len(X) // 2 :], 8, epochs, 10.0)

assert size < 0.8
assert numbers["KL, N(0, I)"]["prior-match"] < numbers["pushed to zero, N(0, I)"]["prior-match"]
assert numbers["pushed to zero, density"]["prior-holes"] < numbers["pushed to zero, N(0, I)"]["prior-holes"]

# %%
figure = Figure(figsize=(10, 5), layout="constrained")
for part, name in zip(figure.subfigures(2, 4).T, samples, strict=True):
    above, below = part
    above.suptitle(name, fontsize=9)
    axes = above.subplots()
    axes.scatter(*(items @ np.linalg.svd(items, full_matrices=False)[2][:2].T).T, s=2, color="#8c8c8c")
    axes.scatter(*(curves[name] @ np.linalg.svd(items, full_matrices=False)[2][:2].T).T, s=3, color="#d95f02")
    axes.set(xlim=(-2, 2), ylim=(-1.2, 1.2), xticks=[], yticks=[])
    for item, axes in zip(samples[name], below.subplots(4, 6).flat, strict=False):
        axes.imshow(item, cmap="gray_r", vmin=0, vmax=16)
        axes.set(xticks=[], yticks=[])

# %%
# Above: items of the curve in gray and samples in orange. Below: samples of digits, not chosen.
#
# ## Where this fails
#
# - **A fitted density does not repair a decoder.** It draws codes from where they are. What the decoder
#   makes of them is as good as before: compare prior-holes with sample-holes.
# - **A match of moments is no match.** Mean and covariance may be right while the codes have another shape,
#   as on the curve.
# - **The KL term costs.** It trades reconstruction for a match, and leaves latent dimensions unused where
#   they are not worth their price.
