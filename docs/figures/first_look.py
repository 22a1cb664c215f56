"""Draw the figure at the top of the README: a map of handwritten digits, and what its decoder makes of it.

python docs/figures/first_look.py
"""

from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from sklearn.datasets import load_digits

import chartae as ct

SIDE = 13

X, y = load_digits(return_X_y=True)
vae = ct.VAE(latent_dim=2, random_state=0).fit(X.reshape(-1, 8, 8))

figure, (left, right) = plt.subplots(1, 2, figsize=(9.6, 4.4), layout="constrained")
ct.plot(vae, X.reshape(-1, 8, 8), y, ax=left)
left.set(title="codes of 1,797 digits, by their labels", aspect="equal")

# A grid of codes, one for each small image, with the first code along and the second upwards.
(low, high), ends = np.quantile(vae.codes_, [0.02, 0.98], axis=0), []
along, up = (np.linspace(a, b, SIDE) for a, b in zip(low, high, strict=True))
codes = np.stack(np.meshgrid(along, up[::-1]), -1).reshape(-1, 2)
tiles = np.pad(vae.inverse_transform(codes), ((0, 0), (1, 1), (1, 1)))
tiles = tiles.reshape(SIDE, SIDE, 10, 10).swapaxes(1, 2).reshape(10 * SIDE, 10 * SIDE)
right.imshow(tiles, cmap="gray_r", vmin=0, vmax=16, extent=(low[0], high[0], low[1], high[1]), aspect="auto")
right.set(title="what the decoder makes of a grid of codes", xlabel="code 1", ylabel="code 2")
figure.savefig(Path(__file__).with_suffix(".png"), dpi=110)
