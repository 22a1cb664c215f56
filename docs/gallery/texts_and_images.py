# %%
# # Texts under an image's code, and back
#
# A model of text and images says words under the code of an image: the code is the control. This is a
# conditional decoder again, whose label is a vector and whose items are texts. The question of this page:
# does control work across kinds of data, from image to text and from text to image, and what does it need?
from itertools import product
from textwrap import fill

import numpy as np
from attributes import thirds
from matplotlib.figure import Figure
from sklearn.datasets import load_digits
from sklearn.decomposition import TruncatedSVD
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.pipeline import make_pipeline
from sklearn.svm import SVC

import chartae as ct

small = globals().get("small", False)  # a short run, for tests
rng = np.random.default_rng(0)

# %%
# ## Places on a ring
#
# Items lie on a ring in 10 dimensions, with a mark of ±0.05 beside it. A text says where, "far north", and
# whether there is a mark. The encoder is that of an autoencoder with two latent dimensions, which has seen no
# text and stays as it is. A captioner learns to say the text under its codes.
n = 300 if small else 1500
angle, radius, mark = rng.uniform(0, 2 * np.pi, n), rng.uniform(1, 2, n), rng.integers(2, size=n)
flat = radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], 1)
turn = np.linalg.qr(rng.normal(size=(10, 10)))[0][:3]
items = np.column_stack([flat, 0.1 * mark - 0.05]) @ turn
winds = np.array(["east", "north", "west", "south"])[np.round(angle / (np.pi / 2)).astype(int) % 4]
parts = np.stack([np.where(radius < 1.5, "near", "far"), winds, np.where(mark, "marked", "plain")], 1)
half = n // 2
ring = ct.AE(latent_dim=2, hidden=(64, 64), max_epochs=20 if small else 60, random_state=0)
teller = ct.Captioner(
    ring.fit(items[:half]),
    hidden=(64,),
    max_epochs=4 if small else 60,
    learning_rate=4e-3,
    batch_size=64,
    random_state=0,
)
teller.fit(items[:half], [" ".join(row) for row in parts[:half]])


def words_right(said, truth):
    """Share of texts that have the right word in each of three places, and in all."""
    rows = np.array([(text.split() + [""] * 3)[:3] for text in said])
    return [*(rows == truth).mean(0), (rows == truth).all(1).mean()]


placed = words_right(teller.caption(items[half:]), parts[half:])
print(f"distance right in {placed[0]:.1%}, direction in {placed[1]:.1%}, mark in {placed[2]:.1%}")

assert small or min(placed[:2]) > 0.9
assert placed[2] < 0.65

# %%
# The captioner says what the code holds. The mark is not in the code, so that it is guessed; yet it is said
# as fluently as the rest.
#
# ## Digits
#
# Each image has a description of its digit and of what was [measured](attributes.py): "bold seven left".


data = load_digits()
order = rng.permutation(len(data.images))
X, y = data.images[order], data.target[order]
train, test = X[: 300 if small else 1297], X[1397 if small else 1297 :]
DIGITS = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
INK, SLANT = np.array(["light", "plain", "bold"]), np.array(["left", "upright", "right"])
kinds = thirds(train)
reader = SVC(gamma=0.001).fit(train.reshape(-1, 64), y[: len(train)])


def described(images, digits):
    """Words for ink, digit and slant: (n, 3)."""
    ink, slant = kinds(images)
    return np.stack([INK[ink], DIGITS[digits], SLANT[slant]], 1)


truth, truth_test = described(train, y[: len(train)]), described(test, y[-len(test) :])
texts, texts_test = ([" ".join(row) for row in rows] for rows in (truth, truth_test))
encoder = ct.AE(latent_dim=16, hidden=(128, 64), max_epochs=20 if small else 100, random_state=0).fit(train)
captioner = ct.Captioner(
    encoder, hidden=(64,), max_epochs=2 if small else 40, learning_rate=4e-3, random_state=0
)
captioner.fit(train, texts)
said = captioner.caption(test)
right = words_right(said, truth_test)
heads = [
    ct.HeadClassifier(encoder, head="mlp", random_state=0)
    .fit(train, truth[:, k])
    .score(test, truth_test[:, k])
    for k in range(3)
]
names = ("ink", "digit", "slant")
for name, share, head in zip(names, right, heads, strict=False):
    print(f"{name}: {share:.1%} right, by a head on the same codes {head:.1%}")
print(f"all three: {right[3]:.1%}; that are descriptions at all: {np.isin(said, texts).mean():.1%}")
own = captioner.score_samples(test, texts_test).mean()
foreign = captioner.score_samples(test[::-1], texts_test).mean()
print(f"log p(text | image): {own:.2f} nats, under the code of another image {foreign:.2f}")

surest = np.argsort(-captioner.score_samples(test, said))[: len(test) // 2]
sure = words_right(np.array(said)[surest], truth_test[surest])[3]
print(f"of the half with the highest log p of what is said, all three are right in {sure:.1%}")

assert small or right[3] > 0.6
assert small or sure > right[3] + 0.05
assert small or max(np.subtract(heads, right[:3])) < 0.1
assert own > foreign

# %%
# The captioner reads about what heads read that were trained for one attribute each.
#
# ## Codes of texts
#
# A VAE of the same descriptions. Free bits (2 nats a dimension) keep the decoder, which could say texts
# without a code, from doing so. There are 90 descriptions: to tell which, log 90 = 4.5 nats suffice.
chatter = ct.TextVAE(latent_dim=8, hidden=(64,), free_bits=2.0, batch_size=32, learning_rate=2e-3)
chatter.set_params(schedule="cosine", validation_fraction=0.0, patience=None, cycles=1, random_state=0)
epochs = 2 if small else 30
chatter.set_params(max_epochs=epochs, warmup=epochs / 2).fit(texts)
again = words_right(chatter.reconstruct(texts_test), truth_test)
made = chatter.sample(200, random_state=0)
known = np.isin(made, [" ".join(row) for row in product(INK, DIGITS, SLANT)])
print(f"KL {chatter.history_[-1]['kl']:.1f} nats; {again[3]:.1%} of texts come back ", end="")
print(f"(ink {again[0]:.1%}, digit {again[1]:.1%}, slant {again[2]:.1%})")
print(f"samples: {known.mean():.1%} are descriptions, {len(set(made))} different ones of 200")
path = chatter.interpolate("bold seven left", "light zero right", steps=7)
print("from one to another: " + " → ".join(path))

assert small or known.mean() > 0.6

# %%
# Samples are descriptions, or nearly so, and a path leads over descriptions from one to the other. The order
# in which it visits them is the model's own: codes that say every letter need not be where meaning is.
#
# ## From text to image, and back to text
#
# A CVAE of images has a vector of the description as condition: μ of the model of texts, or TF-IDF, which
# counts words. What it makes is read by a support vector machine and measured. Then the captioner describes
# it, which knows nothing of the CVAE.
asked = np.repeat(np.array(list(product(INK, DIGITS, SLANT))), 4, axis=0)
wanted = [" ".join(row) for row in asked]
counts = make_pipeline(TfidfVectorizer(), TruncatedSVD(15, random_state=0)).fit(texts)
painted, drawn, back = {}, {}, {}
for by, embed in {"μ of texts": chatter.transform, "TF-IDF": counts.transform}.items():
    painter = ct.CVAE(latent_dim=2, hidden=(128, 64), max_epochs=20 if small else 100, random_state=0)
    painter.fit(train, embed(texts))
    painted[by] = painter.sample(len(asked), condition=embed(wanted), random_state=0)
    drawn[by] = (described(painted[by], reader.predict(painted[by].reshape(-1, 64))) == asked).mean(0)
    back[by] = words_right(captioner.caption(painted[by]), asked)
    vectors = embed(texts), embed(texts_test)
    for k, name in enumerate(names):
        head = ct.HeadClassifier(random_state=0).fit(vectors[0], truth[:, k])
        linear = head.score(vectors[1], truth_test[:, k])
        print(f"{by}, {name}: drawn as asked {drawn[by][k]:.1%}, said again {back[by][k]:.1%}; ", end="")
        print(f"a linear head tells it off the vector in {linear:.1%}")

assert small or drawn["TF-IDF"][1] > 0.85
assert small or drawn["TF-IDF"][1] > drawn["μ of texts"][1] + 0.2

# %%
figure = Figure(figsize=(11, 4.4), layout="constrained")
left, right_part = figure.subfigures(1, 2, width_ratios=(1.15, 1))
left.suptitle("what is said of held-out images (red: another is measured)", fontsize=9)
for i, axes in enumerate(left.subplots(3, 5).flat):
    axes.imshow(test[i], cmap="gray_r", vmin=0, vmax=16)
    wrong = said[i] != texts_test[i]
    axes.set_title(said[i].replace(" ", "\n", 1), fontsize=8, color="#c1272d" if wrong else "black")
    axes.set(xticks=[], yticks=[])
chosen = ["light zero right", "bold three left", "plain four upright", "light seven right", "bold six left"]
ratios = {"width_ratios": [1] * 4 + [0.3] + [1] * 4}
grid = right_part.subplots(len(chosen), 9, gridspec_kw=ratios)
for axes in grid[:, 4]:
    axes.axis("off")
right_part.suptitle("drawn by TF-IDF (left) and by μ of texts (right)", fontsize=9)
for text, line in zip(chosen, grid, strict=True):
    rows = np.flatnonzero(np.array(wanted) == text)[:4]
    images = [*painted["TF-IDF"][rows], *painted["μ of texts"][rows]]
    for image, axes in zip(images, np.delete(line, 4), strict=True):
        axes.imshow(image, cmap="gray_r", vmin=0, vmax=16)
        axes.set(xticks=[], yticks=[])
    line[0].set_ylabel(text, fontsize=8, rotation=0, ha="right", va="center")

# %%
# ## Where this fails
#
# - **What the code does not hold is made up.** A mark is said in every text, and right in half of them. A
#   caption sounds as sure as ever; log p(text | image) tells many of the wrong ones.
# - **Words are cut from a scale.** Heads that were trained for ink or slant alone miss about as many.
# - **A code that tells all need not tell it simply.** μ of a text gives back most of its words, but the slant
#   is not linear in it, and the image model leaves such a condition alone. Where a text is to control
#   something else, its embedding should be made of what matters there.
# - **Texts need many steps.** With fewer free bits, or a weight of the KL term that rises several times in so
#   short a training, the decoder does without the code.
#
# ## Answer
guess, by_words, by_letters = placed[2], drawn["TF-IDF"], drawn["μ of texts"]
answer = (
    f"A text decoded under an image's code says all of three attributes in {right[3]:.1%} of held-out images "
    f"(digit {right[1]:.1%}, ink {right[0]:.1%}, slant {right[2]:.1%}), about what heads read off the same "
    f"code; what the code lacks is guessed ({guess:.0%} of marks). The way back is the same model with the "
    f"roles changed: by TF-IDF of the text the digit is drawn as asked in {by_words[1]:.1%}, ink in "
    f"{by_words[0]:.1%} and slant in {by_words[2]:.1%}; by μ of a text VAE in {by_letters[1]:.1%}, "
    f"{by_letters[0]:.1%} and {by_letters[2]:.1%}: it matters which embedding takes the label's place."
)
print(fill(answer, 100))
