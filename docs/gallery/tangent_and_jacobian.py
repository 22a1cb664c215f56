# %%
# # Jacobians and tangent spaces
#
# Near a point, a manifold is almost its tangent space. The columns of the decoder's Jacobian should span
# that space: small steps of the code move items along the data. The rows of the encoder's Jacobian say in
# which directions the code looks, and these should lie in the tangent space as well. The first claim
# follows from good reconstruction. The second does not, and has to be trained for.
import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_digits

import chartae as ct
from chartae import geometry

small = globals().get("small", False)  # a short run, for tests
rng = np.random.default_rng(0)


def fit(recipe, train, d, epochs, corruption=None, **own):
    model = ct.Autoencoder(recipe=recipe, recipe_params=own, latent_dim=d, hidden=(64, 64), random_state=0)
    return model.set_params(max_epochs=epochs, corruption=corruption).fit(train)


# %%
# ## A curved sheet in 20 dimensions
#
# The tangent spaces of the sheet are known in closed form. The angles between two planes are their
# principal angles: 0° for the same plane, and 45° or more for one that mostly looks elsewhere.
n = 300 if small else 2000
turn = np.linalg.qr(rng.normal(size=(20, 20)))[0][:5]
u, v = rng.uniform(-1, 1, size=(2, n))
sheet = np.stack([u, v, np.sin(3 * u) / 2, np.cos(3 * v) / 2, u * v / 2], 1) @ turn
along_u = np.stack([1 + 0 * u, 0 * u, 1.5 * np.cos(3 * u), 0 * u, v / 2], 1) @ turn
along_v = np.stack([0 * u, 1 + 0 * u, 0 * u, -1.5 * np.sin(3 * v), u / 2], 1) @ turn
tangents = np.stack([along_u, along_v], 2)  # (n, 20, 2)

cut = 3 * n // 4
train, test, true = sheet[:cut], sheet[cut:], tangents[cut:]
epochs = 40 if small else 100
models = {
    "plain": fit("ae", train, 2, epochs),
    "contractive, 10": fit("contractive-ae", train, 2, epochs // 2, lam=10.0),
    "denoising, 0.1": fit("denoising-ae", train, 2, epochs, corruption=0.1),
    "denoising, 0.3": fit("denoising-ae", train, 2, epochs, corruption=0.3),
}
angles = {}
for name, model in models.items():
    rows = np.swapaxes(model.encoder_jacobian(test), 1, 2)  # (n, 20, 2)
    columns = model.decoder_jacobian(model.transform(test))  # (n, 20, 2)
    angles[name] = [np.degrees(geometry.principal_angles(J, true)) for J in (rows, columns)]
    encoder, decoder = (each.mean() for each in angles[name])
    print(f"{name}: encoder {encoder:.0f}°, decoder {decoder:.0f}° from the tangent space")

of_encoder = {name: float(each[0].mean()) for name, each in angles.items()}
of_decoder = {name: float(each[1].mean()) for name, each in angles.items()}
assert max(of_decoder.values()) < 30
assert of_encoder["plain"] > 2 * of_decoder["plain"]
assert of_encoder["denoising, 0.3"] < of_encoder["denoising, 0.1"] < of_encoder["plain"]
assert of_encoder["contractive, 10"] < of_encoder["plain"]

# %%
# All decoders span the tangent space. The plain encoder is far off it: on the sheet, an oblique view gives
# the same reconstruction as a straight one. Noise and contraction punish what the encoder sees of normal
# directions, and bring its angle down.
#
# ## How far a linear step holds
#
# D(z + δ) ≈ D(z) + J δ for small δ. The validity radius is where the two differ by a tenth of the step, in
# standard deviations of the codes.
model = models["denoising, 0.1"]
codes = model.transform(test)
radius = model.validity_radius(codes[:200], codes=codes)
print(f"validity radius on the sheet: {np.median(radius):.2f} standard deviations of the codes (median)")

near = model.linearize(codes[0])
delta = near.radius[0] * near.directions[0]
exact = model.inverse_transform(codes[:1] + delta)[0] - model.inverse_transform(codes[:1])[0]
linear = near(delta) - near.point
gap = np.linalg.norm(exact - linear) / np.linalg.norm(linear)
print(f"at its radius, one step is off by {gap:.0%}")

assert 0.03 < np.median(radius) < 1
assert abs(gap - 0.1) < 0.02

# %%
# ## Digits
#
# The tangent spaces of digits have to be estimated from neighbors, and an estimate can be checked: two
# halves of the neighbors give two estimates. Where these disagree by more than 20°, the tangent space is
# not known.
X = load_digits().images
X = X[rng.permutation(len(X))][: 500 if small else None]
train, test = np.split(X, [len(X) // 4])[::-1]
digits = {
    "plain": fit("ae", train, 8, 15 if small else 150),
    "denoising, 0.5": fit("denoising-ae", train, 8, 15 if small else 150, corruption=0.5),
}
gains = {name: model.normal_gain(X, dimension=6, max_rows=128) for name, model in digits.items()}
for name, found in gains.items():
    encoder, decoder = (np.degrees(each).mean() for each in (found.encoder_angles, found.decoder_angles))
    gain = np.median(found.normal_gain)
    print(f"{name}: encoder {encoder:.0f}°, decoder {decoder:.0f}°, normal gain {gain:.2f}")
between, known = np.degrees(np.median(found.tangent_angle)), found.reliable.mean()
print(f"tangent spaces: two halves differ by {between:.0f}°, and by less than 20° at {known:.0%} of digits")
steps = {name: model.transform(test) for name, model in digits.items()}
for name, codes in steps.items():
    reach = np.median(digits[name].validity_radius(codes[:200], codes=codes))
    print(f"{name}: validity radius {reach:.2f} standard deviations of the codes (median)")

assert found.reliable.mean() < 0.5
assert np.median(gains["denoising, 0.5"].normal_gain) < np.median(gains["plain"].normal_gain)

# %%
figure = Figure(figsize=(10, 3.6), layout="constrained")
left, right = figure.subplots(1, 2)
bins = np.linspace(0, 90, 46)
for name, (encoder, decoder) in angles.items():
    color = left.hist(encoder.ravel(), bins, histtype="step", density=True, label=f"{name}: encoder")[2][0]
    left.hist(
        decoder.ravel(), bins, histtype="step", density=True, linestyle=":", color=color.get_edgecolor()
    )
left.set(xlabel="degrees from the true tangent space (dotted: decoders)", ylabel="density", ylim=(0, 0.12))
left.legend(fontsize=7)
for name, found in {
    "sheet": radius,
    **{
        f"digits, {name}": digits[name].validity_radius(codes[:200], codes=codes)
        for name, codes in steps.items()
    },
}.items():
    right.plot(np.sort(found.ravel()), np.linspace(0, 1, found.size), label=name)
right.set(
    xscale="log", xlabel="validity radius (standard deviations of the codes)", ylabel="share of steps below"
)
right.legend(fontsize=7)

# %%
# Left: angles on the sheet. Right: how far linear steps hold.
#
# ## Where this fails
#
# - **Real tangent spaces may be unknown.** On digits two halves of the neighbors do not agree. The angles
#   printed there hold the error of the estimated tangent space, and only the comparison between models
#   means something. An audit says "cannot tell" in such a case.
# - **An encoder that reconstructs well may look anywhere.** Do not read the rows of a plain encoder's
#   Jacobian as "what matters in the data".
# - **Contraction has its price.** It shrinks all derivatives of the encoder, along the data too, and the
#   weight has to be chosen; here it does less than noise.
