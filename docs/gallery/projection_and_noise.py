# %%
# # Projection removes noise, when training asks for it
#
# The map P(x) = D(E(x)) of an autoencoder leads from any point to the learned manifold. An ideal projection
# onto a manifold of m dimensions in a space of D keeps the part of the noise that lies along the manifold,
# m / D of its power, and removes the rest. Is that what an autoencoder learns?
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import chartae as ct

small = globals().get("small", False)  # a short run, for tests
rng = np.random.default_rng(0)


def fit(recipe, train, d, epochs, **params):
    model = ct.Autoencoder(recipe=recipe, latent_dim=d, hidden=(64, 64), random_state=0)
    return model.set_params(max_epochs=epochs, **params).fit(train)


# %%
# ## A curved sheet in 20 dimensions
#
# The data are exactly on the sheet: nothing in training is off it. So nothing in the loss says what the
# encoder should do with points beside it. A denoising autoencoder sees noisy items in training, and must
# give clean ones.
n = 300 if small else 2000
u, v = rng.uniform(-1, 1, size=(2, n))
sheet = np.stack([u, v, np.sin(3 * u) / 2, np.cos(3 * v) / 2, u * v / 2], 1)
sheet = sheet @ np.linalg.qr(rng.normal(size=(20, 20)))[0][:5]
train, test = np.split(sheet, [3 * n // 4])
epochs = 40 if small else 100
sheets = {
    "plain": fit("ae", train, 2, epochs),
    "denoising, 0.1": fit("denoising-ae", train, 2, epochs, corruption=0.1),
    "denoising, 0.3": fit("denoising-ae", train, 2, epochs, corruption=0.3),
}
gains = {name: model.noise_gain(test) for name, model in sheets.items()}
levels = gains["plain"].levels
print(f"an ideal projection keeps {2 / 20:.3f} of the power of noise")
for name, found in gains.items():
    shares = ", ".join(f"{g:.3f} at {s:.2g}" for s, g in zip(levels, found.gain, strict=True))
    lost = ((sheets[name].project(test) - test) ** 2).mean() / test.var(0).mean()
    print(f"{name}: keeps {shares}; loses {lost:.2%} of the variance of clean items")

assert gains["plain"].gain[0] > 1.5 * gains["denoising, 0.3"].gain[0] > 1.5 * 0.05

# %%
# The plain autoencoder removes some noise, as any bottleneck does, but keeps more than a projection would:
# its encoder looks at the sheet from an angle, and noise across the sheet moves its codes along. Noise in
# training brings the gain close to the ideal. The price is a slightly worse reconstruction of clean items.
#
# ## Digits
#
# Here the question is a practical one: is the projection of a noisy digit closer to the clean digit than
# the noisy one is? We print |P(x + noise) − x|² / |noise|² on held-out digits: below 1, projecting helps.
X = load_digits().images
X = X[rng.permutation(len(X))][: 500 if small else None]
train, test = np.split(X, [3 * len(X) // 4])
epochs = 15 if small else 150
models = {
    "plain": fit("ae", train, 8, epochs),
    "denoising": fit("denoising-ae", train, 8, epochs, corruption=0.5),
}
noise = rng.normal(size=test.shape)
sizes = np.array([0.5, 1.0, 2.0, 4.0, 8.0])  # pixels go from 0 to 16
left_over = {
    name: [((model.project(test + s * noise) - test) ** 2).mean() / ((s * noise) ** 2).mean() for s in sizes]
    for name, model in models.items()
}
passed = {name: model.noise_gain(test, sizes).gain for name, model in models.items()}
for name, errors in left_over.items():
    print(f"{name}: " + ", ".join(f"{e:.2f} at noise {s:g}" for s, e in zip(sizes, errors, strict=True)))
    print(f"{name}: keeps " + ", ".join(f"{g:.3f}" for g in passed[name]) + " of the power of noise")

for errors in left_over.values():
    assert errors[0] > 1 > errors[-1]  # helps where the noise is large, and not where it is small
assert passed["denoising"][0] < passed["plain"][0]
assert left_over["denoising"][-1] < left_over["plain"][-1] + 0.05

# %%
figure = Figure(figsize=(10, 3.6), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=(1, 1.15))
axes = left.subplots()
for name, found in gains.items():
    axes.errorbar(levels, found.gain, 2 * found.error, marker="o", markersize=3, label=name)
axes.axhline(2 / 20, color="#8c8c8c", linestyle=":", label="ideal: m / D")
axes.set(xscale="log", ylim=(0, None), xlabel="standard deviation of noise", ylabel="share of noise kept")
axes.set_title("sheet in 20 dimensions", fontsize=9)
axes.legend(fontsize=7)
noisy = test[:8] + 4 * noise[:8]
rows = {"clean": test[:8], "noisy": noisy, **{name: model.project(noisy) for name, model in models.items()}}
for (name, items), line in zip(rows.items(), right.subplots(len(rows), 8), strict=True):
    for item, axes in zip(items, line, strict=True):
        axes.imshow(item, cmap="gray_r", vmin=0, vmax=16)
        axes.set(xticks=[], yticks=[])
    line[0].set_ylabel(name, fontsize=8)

# %%
# Left: the share of the power of noise that passes through P, by the size of the noise. Right: digits with
# noise of standard deviation 4, and what each model makes of them.
#
# ## Where this fails
#
# - **Small noise.** A bottleneck loses details of every item. Where the noise is smaller than this loss,
#   projecting makes an item worse, whatever the training: see the first numbers in each row.
# - **P is not the nearest point.** A gain near m / D says that noise is removed, and not that the point
#   found is the closest one of the manifold.
# - **Other noise.** Training with Gaussian noise says nothing about noise of another kind.
