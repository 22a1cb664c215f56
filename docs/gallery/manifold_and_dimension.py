# %%
# # Data concentrate near a low-dimensional set
#
# The manifold hypothesis: items with many values lie near a curved set of few dimensions. It has two
# consequences that can be measured. The *intrinsic dimension* is much smaller than the number of values,
# and random points of the space are not like data.
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits, make_swiss_roll

import chartae as ct

small = globals().get("small", False)  # a short run, for tests
rng = np.random.default_rng(0)

# %%
# ## A surface whose dimension is known
#
# A Swiss roll is a plane, rolled up. We turn it into 20 dimensions, once as it is and once with a little
# noise in all 20. The estimate is read at several scales, from the distances to the n-th and the 2n-th
# neighbor.
n = 600 if small else 3000
turn = np.linalg.qr(rng.normal(size=(20, 20)))[0][:, :3]
roll = make_swiss_roll(n, random_state=0)[0] @ turn.T
noisy = roll + 0.3 * rng.normal(size=roll.shape)
box = rng.uniform(size=(n, 20))

found = {"roll": roll, "roll with noise": noisy, "20 uniform values": box}
found = {name: ct.intrinsic_dimension(X) for name, X in found.items()}
for name, dimension in found.items():
    at = ", ".join(f"{d:.1f} at {k}" for k, d, _ in dimension.scales)
    print(f"{name}: {dimension.dimension:.1f} ({dimension.verdict}); by neighbor: {at}")

assert abs(found["roll"].dimension - 2) < 0.3
assert (
    found["roll with noise"].scales[0][1] > 2 * found["roll with noise"].scales[-1][1]
)  # noise is at small scales

# %%
# The roll reads as a surface. With noise there is no single answer: at small scales the noise fills all
# dimensions, at large scales the surface shows. A dimension without a scale says little; when the reading
# keeps changing with scale, the verdict is "cannot tell".
#
# ## Digits
#
# Images of handwritten digits have 64 pixels. We compare them with images whose pixels are drawn
# independently, each from the values that this pixel has in the digits: the same histogram in every pixel,
# and nothing else in common.
X = load_digits().images
X = X[rng.permutation(len(X))]
pixels = np.stack([rng.choice(X[:, i, j], len(X)) for i in range(8) for j in range(8)], 1).reshape(X.shape)
noise = rng.uniform(0, 16, size=X.shape)
for name, items in {"digits": X, "pixels drawn apart": pixels, "uniform pixels": noise}.items():
    found[name] = ct.intrinsic_dimension(items)
    low, high = found[name].interval
    print(
        f"{name}: {found[name].dimension:.1f} ({low:.1f} to {high:.1f}; {found[name].verdict}), of 64 pixels"
    )

assert found["digits"].dimension < 16 < found["pixels drawn apart"].dimension

# %%
# ## Random points are off the manifold
#
# An autoencoder's projection P(x) = D(E(x)) leads to the learned manifold, and |x − P(x)| is how far off an
# item is. Ranked among held-out digits it becomes a p-value: a new digit falls to 0.05 or below in 5 % of
# cases. What falls there much more often is off the manifold.
train, held_out, test = X[:1000], X[1000:1400], X[1400:]
d = 12
ae = ct.AE(latent_dim=d, hidden=(128, 64), max_epochs=15 if small else 150, random_state=0).fit(train)
blends = (test + np.roll(test, 1, axis=0)) / 2  # of two digits
kinds = {
    "held-out digits": test,
    "uniform pixels": noise[:400],
    "pixels drawn apart": pixels[:400],
    "blends of two digits": blends,
    "blank images": np.zeros((400, 8, 8)),
}
scores = {name: ae.off_manifold_score(items, reference=held_out) for name, items in kinds.items()}
caught = {name: float((score.p_value <= 0.05).mean()) for name, score in scores.items()}
for name, share in caught.items():
    print(f"{name}: {share:.1%} have p ≤ 0.05")

assert caught["held-out digits"] < 0.12
assert caught["uniform pixels"] > 0.95
assert caught["pixels drawn apart"] > 0.8
assert caught["blends of two digits"] < 0.2  # although they are no digits

# %%
figure = Figure(figsize=(10, 3.6), layout="constrained")
left, right = figure.subplots(1, 2)
for name, dimension in found.items():
    k, read, error = np.array(dimension.scales).T
    left.errorbar(k, read, 2 * error, label=name, marker="o", markersize=3)
left.set(xscale="log", yscale="log", xlabel="neighbor n (the scale)", ylabel="intrinsic dimension")
left.legend(fontsize=7)
levels = np.linspace(0, 1, 200)
for name, score in scores.items():
    right.plot(levels, [(score.p_value <= level).mean() for level in levels], label=name)
right.plot(levels, levels, color="#8c8c8c", linestyle=":", label="uniform, as for new digits")
right.set(xlabel="p-value of being on the manifold", ylabel="share at or below")
right.legend(fontsize=7)

# %%
# Left: dimension by scale. Right: the share of items at or below each p-value.
#
# ## Where this fails
#
# - **Dimension depends on scale.** The verdict on the digits says whether their reading settles at any
#   scale. There are fewer than 2,000 of them, which is few in many dimensions: take it as a range.
# - **A low residual is no proof.** The score asks whether the model can reproduce an item, not whether the
#   item is likely. Blends of two digits are no digits, and yet they pass as often as real ones: their
#   projection is close. A model with as many latent dimensions as pixels would pass everything.
