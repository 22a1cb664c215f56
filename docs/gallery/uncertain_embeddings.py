# %%
# # Embeddings that know how sure they are
#
# The encoder of a VAE gives the parameters of a distribution, μ and σ of a code. So does a classifier: the
# probabilities of a class. Two questions are measured here. Are these the same idea? And should every
# embedding, of an image or a word, be a distribution rather than a point?
import time
from textwrap import fill

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse
from scipy.special import entr, softmax
from sklearn.datasets import load_digits
from sklearn.metrics import roc_auc_score

import chartae as ct
from chartae.geometry import nearest
from chartae.transfer import calibration_error, risk_coverage, vendi_score

small = globals().get("small", False)  # a short run, for tests
rng = np.random.default_rng(0)

# %%
# ## One idea, twice: a code and a number
#
# Items are x = Wz + noise in 10 dimensions with z from N(0, I) of two dimensions, and each has a number
# y = w·z + noise. Here Bayes' rule gives p(z | x) and p(y | x) exactly: both are normal, and how uncertain
# they are is known. A linear VAE with a full covariance outputs the one, and a head on its codes the other.
n = 1000 if small else 4000
W, w = rng.normal(size=(2, 10)), np.array([1.0, -2.0])
z = rng.normal(size=(n, 2))
items, y = z @ W + rng.normal(size=(n, 10)), z @ w + 0.5 * rng.normal(size=n)
train, test = np.split(items, 2)
vae = ct.VAE(latent_dim=2, network="linear", covariance="full", learning_rate=0.01, random_state=0)
vae.set_params(max_epochs=30 if small else 100).fit(train)
draws = vae.sample_posterior(test[:200], 200, random_state=0)
learned = np.linalg.eigvalsh(np.cov((draws - draws.mean(0)).reshape(-1, 2).T)) ** 0.5
sigmas = np.linalg.eigvalsh(np.linalg.inv(np.eye(2) + W @ W.T)) ** 0.5
head = ct.HeadRegressor(vae, random_state=0).fit(train, y[: n // 2])
_, std = head.predict(test, return_std=True)
std_exact = np.sqrt(0.25 + w @ np.linalg.inv(np.eye(2) + W @ W.T) @ w)
print(f"σ of z along its axes: {learned.round(3)}, exactly {sigmas.round(3)}")
print(f"σ of y: {std[0]:.3f}, exactly {std_exact:.3f}")

assert np.allclose(learned, sigmas, rtol=0.3 if small else 0.1)
assert np.isclose(std[0], std_exact, rtol=0.15)

# %%
# ## A class
#
# Three normal clouds overlap, so that p(class | x) is known as well. An embedding that is trained to tell the
# class ("bottleneck") has normal parameters on z and categorical ones on y. Its *point* has the same head.
centers = np.array([[0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
kind = rng.integers(3, size=n)
flat = centers[kind] + rng.normal(size=(n, 2))
exact = softmax(-0.5 * ((flat[:, None] - centers) ** 2).sum(2), axis=1)[n // 2 :]
clouds = np.concatenate([flat, rng.normal(size=(n, 8))], 1) @ np.linalg.qr(rng.normal(size=(10, 10)))[0]
for name, model in {"distribution": ct.VAE, "point": ct.AE}.items():
    encoder = model(latent_dim=2, hidden=(64,), max_epochs=20 if small else 60, random_state=0)
    embedding = ct.ProbabilisticEmbedding(encoder, beta=1e-2, random_state=0)
    embedding.fit(clouds[: n // 2], kind[: n // 2])
    p = embedding.predict_proba(clouds[n // 2 :])
    same = np.corrcoef(embedding.uncertainty(clouds[n // 2 :]), entr(exact).sum(1))[0, 1]
    right = (p.argmax(1) == kind[n // 2 :]).mean()
    print(f"{name}: {right:.3f} right (at best {(exact.argmax(1) == kind[n // 2 :]).mean():.3f}); ", end="")
    print(f"its entropy and the true one correlate by {same:.3f}")
    assert same > (0.5 if small else 0.9)

# %%
# A distribution over codes and one over answers are made in the same way, and both come out right. But the
# point says how sure it is of a class as well as the distribution does: the head already is a distribution.
#
# ## Words
#
# Six words occur with money and six with rivers; "bank" and "current" occur with both. An item is a word, and
# its label is where it was seen. Does σ tell that a word has two meanings?
money, river = (
    ["coin", "loan", "cash", "debt", "bill", "rate"],
    ["reed", "boat", "fish", "mill", "rain", "lake"],
)
words = [*money, *river, "bank", "current"]
word = np.repeat(np.arange(14), 100)
seen = np.where(word < 6, 0, np.where(word < 12, 1, rng.integers(2, size=len(word))))
one_hot, lexicon = np.eye(14), {}
for name, model in {"distribution": ct.VAE, "point": ct.AE}.items():
    encoder = model(latent_dim=2, hidden=(32,), max_epochs=40, random_state=0)
    lexicon[name] = ct.ProbabilisticEmbedding(encoder, beta=1e-2, random_state=0).fit(one_hot[word], seen)
    doubt = lexicon[name].uncertainty(one_hot)
    print(
        f"{name}: entropy {doubt[12:].mean():.3f} of two meanings, {doubt[:12].mean():.3f} of one", end="; "
    )
    _, sigma = lexicon[name].transform(one_hot, return_std=True)
    print(f"σ {sigma[12:].mean():.3f} and {sigma[:12].mean():.3f}")
    assert doubt[12:].min() > 0.6 > 0.3 > doubt[:12].max()

_, sigma = lexicon["distribution"].transform(one_hot, return_std=True)
assert sigma[12:].mean() < 1.1 * sigma[:12].mean()

# %%
# It does not. A word of two meanings lies between them, as narrow as any other: log 2 = 0.693 nats are said
# by the head, for the point as well. A normal distribution has one middle, and two meanings would need two.
#
# ## Digits, some of them hidden
#
# A rectangle hides a part of half of the training images. Four embeddings in four dimensions: by labels
# ("bottleneck") or by pairs that match ("hedged"), each as a distribution and as points. Given are means over
# three seeds of, on clean and on hidden images: accuracy; calibration error; AUROC, the chance that a wrong
# answer has a larger uncertainty than a right one (0.5 is no knowledge); and the area under the risk-coverage
# curve, the share of mistakes if one answers for the surest only, averaged over how many that are.
data = load_digits()
order = rng.permutation(len(data.images))
X, y = data.images[order], data.target[order]


def hide(X, share):
    """Blank a rectangle of 3 to 6 pixels a side in a share of images."""
    X = X.copy()
    for i in np.flatnonzero(rng.random(len(X)) < share):
        height, width = rng.integers(3, 7, 2)
        top, left = rng.integers(0, 9 - height), rng.integers(0, 9 - width)
        X[i, top : top + height, left : left + width] = 0
    return X


train, y_train, y_test = hide(X[:1297], 0.5), y[:1297], y[1297:]
tests = {"clean": X[1297:], "hidden": hide(X[1297:], 1.0)}
kinds = {
    "distribution, bottleneck": (ct.VAE, "bottleneck"),
    "point, bottleneck": (ct.AE, "bottleneck"),
    "distribution, hedged": (ct.VAE, "hedged"),
    "point, hedged": (ct.AE, "hedged"),
}
common = {"latent_dim": 4, "hidden": (128, 64), "learning_rate": 3e-3, "schedule": "cosine"}
common["max_epochs"] = 20 if small else 100


def judged(embedding, x):
    """Accuracy, calibration error, AUROC and area, with what was doubted and what was wrong."""
    if embedding.method == "bottleneck":
        p = embedding.predict_proba(x)
    else:
        p = embedding.similarity(x, train) @ np.eye(10)[y_train] / np.bincount(y_train)
        p = p / p.sum(1, keepdims=True)
    doubt, wrong = embedding.uncertainty(x), p.argmax(1) != y_test
    known = embedding.method == "bottleneck"
    error = calibration_error(p, y_test) if known else np.nan  # matches are no probabilities of labels
    numbers = 1 - wrong.mean(), error, roc_auc_score(wrong, doubt), risk_coverage(doubt, wrong).area
    return numbers, doubt, wrong


found, told, kept, costs = {}, {}, {}, {}
for name, (model, method) in kinds.items():
    rows, seconds = {of: [] for of in tests}, []
    for seed in range(1 if small else 3):
        start = time.perf_counter()
        embedding = ct.ProbabilisticEmbedding(
            model(random_state=seed, **common), method=method, beta=1e-2, n_samples=4, random_state=seed
        ).fit(train, y_train)
        seconds.append(time.perf_counter() - start)
        for of, x in tests.items():
            numbers, *kept[name, of] = judged(embedding, x)
            rows[of].append(numbers)
        kept[name] = embedding
    costs[name] = sum(p.numel() for p in embedding.encoder_.model_.parameters()), np.mean(seconds)
    print(f"{name}: {costs[name][0]:,} parameters, {costs[name][1]:.1f} s")
    for of in tests:
        right, error, auroc, area = found[name, of] = np.mean(rows[of], 0)
        calibrated = "" if np.isnan(error) else f"calibration error {error:.3f}, "
        print(f"    {of}: {right:.3f} right, {calibrated}AUROC {auroc:.3f}, area {area:.3f}")

one, other = (found[f"{kind}, bottleneck", "hidden"] for kind in ("distribution", "point"))
if not small:
    assert one[0] > other[0]  # more often right,
    assert one[1] < other[1]  # and better calibrated
    assert abs(one[2] - other[2]) < 0.05  # but it knows no better which answers are wrong
    one, other = (found[f"{kind}, bottleneck", "clean"] for kind in ("distribution", "point"))
    assert one[1] > other[1]
    assert found["distribution, hedged", "hidden"][2] < found["point, bottleneck", "hidden"][2] - 0.1

# %%
# Labels of what is near can say it, too: each pair of draws, one of the image and one of each training image,
# has its five nearest vote, and how many vote for another digit than most do is the doubt. A point has one
# draw, so that five vote in all.

for name in kinds:
    print(name)
    for of, x in tests.items():
        shares = kept[name].votes(x, y_train, train, k=5)
        wrong = shares.argmax(1) != y_test
        told[name, of] = roc_auc_score(wrong, 1 - shares.max(1))
        print(f"    {of}: {1 - wrong.mean():.3f} right, AUROC {told[name, of]:.3f}")

if not small:  # draws say more of mistakes than hedged embeddings do of themselves, or their points
    assert told["distribution, hedged", "hidden"] > found["distribution, hedged", "hidden"][2] + 0.05
    assert told["distribution, hedged", "hidden"] > told["point, hedged", "hidden"]

# %%
# ## Diversity
#
# What might a hidden digit be? We draw 16 codes of each image and look up the training image that is nearest
# to each, or take the 16 that are nearest to the mean. The Vendi score counts how many different digits are
# among the 16: 1 if all are alike.
for of, x in tests.items():
    embedding = kept["distribution, bottleneck"]
    Z, mean = embedding.transform(train), embedding.transform(x)
    draws = embedding.sample_posterior(x, 16, random_state=0)
    by_draws = y_train[nearest(draws.reshape(-1, 4), Z, 1)[1][:, 0]].reshape(16, -1).T
    by_mean = y_train[nearest(mean, Z, 16)[1]]
    for how, labels in {"draws": by_draws, "neighbors of the mean": by_mean}.items():
        vendi = np.mean([vendi_score(np.eye(10)[row]) for row in labels])
        among = (labels == y_test[:, None]).any(1).mean()
        print(f"{of}, 16 {how}: {vendi:.2f} digits; the right one is among them in {among:.0%}")

# %%
figure = Figure(figsize=(11, 3.6), layout="constrained")
left, middle, right = figure.subfigures(1, 3, width_ratios=(1, 1.1, 1.2))
axes = left.subplots()
mean, sigma = lexicon["distribution"].transform(one_hot, return_std=True)
for i in range(len(words)):
    color = "#1b9e77" if i < 6 else "#7570b3" if i < 12 else "#d95f02"
    axes.add_patch(Ellipse(mean[i], *(2 * sigma[i]), color=color, alpha=0.25, linewidth=0))
    axes.scatter(*mean[i], color=color, s=8)
for name, at, up in [
    ("bank", mean[12], 26),
    ("current", mean[13], -30),
    ("money", mean[:6].mean(0), 34),
    ("rivers", mean[6:12].mean(0), -44),
]:
    axes.annotate(name, at, (0, up), textcoords="offset points", ha="center", fontsize=9)
axes.set_title("codes of words, with σ", fontsize=9)
axes.set(xlabel="z₁", ylabel="z₂")
axes = middle.subplots()
for name in kinds:
    curve = risk_coverage(*kept[name, "hidden"])
    axes.plot(curve.coverage, curve.risk, label=name)
axes.set(xlabel="share of images answered for", ylabel="share of wrong answers", ylim=(0, None))
axes.set_title("hidden digits, the surest first", fontsize=9)
axes.legend(fontsize=7, frameon=False)
doubt, _ = kept["distribution, bottleneck", "hidden"]
shown = np.concatenate([np.argsort(doubt)[:12], np.argsort(doubt)[-12:]])
right.suptitle("the surest (above) and the least sure", fontsize=9)
for i, axes in zip(shown, right.subplots(4, 6).flat, strict=True):
    axes.imshow(tests["hidden"][i], cmap="gray_r", vmin=0, vmax=16)
    axes.set(xticks=[], yticks=[])

# %%
# Left: words by their two codes; bank and current lie between money and rivers. Middle: the share of mistakes
# if one answers for the surest images only, of one seed. Right: hidden images.
#
# ## Where this fails
#
# - **σ is not doubt about meaning.** It says how exactly the head, or a decoder, needs the code. Words of two
#   meanings have no larger one, and in hedged embeddings it hardly tells which answers are wrong. Votes of
#   draws do.
# - **One normal is one opinion.** Draws of a hidden digit find the right one less often among 16 than the 16
#   neighbors of the mean do.
# - **Noise blurs what is clear.** On clean images the distribution is less sure than it should be, and worse
#   calibrated than points.
#
# ## Answer
(size, seconds), (smaller, faster) = (costs[f"{kind}, bottleneck"] for kind in ("distribution", "point"))
one, other = (found[f"{kind}, bottleneck", "hidden"] for kind in ("distribution", "point"))
answer = (
    f"A head and q(z | x) are the same idea: σ of a code comes out as {learned[0]:.2f} and {learned[1]:.2f}, "
    f"exactly {sigmas[0]:.2f} and {sigmas[1]:.2f}, and that of an answer as {std[0]:.2f}, exactly "
    f"{std_exact:.2f}. Every embedding can be a distribution, for {size / smaller - 1:.1%} more parameters "
    f"and {seconds / faster:.1f} times the seconds. It pays where inputs are damaged: {one[0]:.1%} right "
    f"instead of {other[0]:.1%}, calibration error {one[1]:.3f} instead of {other[1]:.3f}. It does not pay "
    f"to find mistakes, AUROC {one[2]:.3f} and {other[2]:.3f}: a head on points is a distribution already."
)
print(fill(answer, 100))
