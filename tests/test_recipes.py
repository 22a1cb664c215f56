"""The contract that every recipe keeps, whatever its parts: a new recipe is tested by being registered."""

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import chartae as ct
from chartae.core.contracts import Batch, Plan, RawCondition
from chartae.core.errors import PlanError
from chartae.core.noise import Noise
from chartae.core.spaces import Space
from chartae.models.assembly import SHARED
from chartae.models.recipes import build
from chartae.models.registry import _RECIPES, find, recipe
from chartae.parts.networks import Film

RECIPES = ct.recipes()
NAMES = [r.name for r in RECIPES]
CONDITIONAL = [r.name for r in RECIPES if r.conditional]
#: Each as it is, and with a prior that follows the condition where it has one.
CONDITIONAL_PRIORS = [(name, {}) for name in CONDITIONAL] + [
    (r.name, {"conditional_prior": True}) for r in RECIPES if "conditional_prior" in r.parameters
]
SMALL = {"latent_dim": 2, "hidden": (8,), "max_epochs": 2, "batch_size": 16, "random_state": 0}

each_recipe = pytest.mark.parametrize("name", NAMES)


def rows(n: int, shape: tuple[int, ...] = (5,), seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, *shape))


@pytest.fixture(scope="module")
def item(refused) -> dict[str, tuple[int, ...]]:
    """Shape of an item that a recipe takes: a vector, unless it needs images."""
    return {name: (9, 8) if refused(name, (5,)) else (5,) for name in NAMES}


@each_recipe
def test_no_parameter_of_a_recipe_is_taken_for_one_that_all_share(name):
    assert not SHARED & {*find(name).parameters}


def model(name: str, **parameters: object) -> ct.Autoencoder:
    return ct.Autoencoder(recipe=name, **{**SMALL, **parameters})


def terms_of(plan: Plan, batch: Batch, seed: int = 0) -> dict:
    return plan.objective(plan.model.trace(batch, k=plan.objective.samples, noise=Noise(seed)))


def backward(plan: Plan, batch: Batch) -> None:
    sum(term.value() for term in terms_of(plan, batch).values()).backward()


def untouched(module: nn.Module) -> list[str]:
    return [n for n, p in module.named_parameters() if p.grad is None or not (p.grad != 0).any()]


@pytest.fixture(scope="module")
def fitted(item) -> dict[str, ct.Autoencoder]:
    return {name: model(name).fit(rows(60, item[name])) for name in NAMES}


@each_recipe
@pytest.mark.parametrize(
    ("shape", "network", "likelihood", "noise"),
    [
        ((5,), "linear", "normal", 0.3),
        ((5,), "mlp", "normal", "global"),
        ((5,), "mlp", "normal", "item"),
        ((9, 8), "conv2d", "normal", "feature"),
        ((9, 8), "conv2d", "bernoulli", "global"),
        ((9, 8), "conv2d", "categorical", "global"),
    ],
)
def test_the_gradient_reaches_every_parameter(name, shape, network, likelihood, noise, refused):
    torch.manual_seed(0)
    space = Space(shape, likelihood, levels=3 if likelihood == "categorical" else None)
    hidden = None if network == "linear" else (8,)
    # tanh: a rectified unit may be dead by chance.
    given = {"network": network, "hidden": hidden, "noise": noise, "activation": "tanh"}
    if refused(name, space, **given):
        return
    plan = build(name, space, latent_dim=2, **given)
    values = 3 if likelihood == "categorical" else 2
    x = torch.randint(0, values, (20, *space.model_shape)) / (values - 1)
    backward(plan, Batch(x))
    assert untouched(plan.model) + untouched(plan.objective) == []


@pytest.mark.parametrize(("name", "parameters"), CONDITIONAL_PRIORS)
@pytest.mark.parametrize("network", ["mlp", "conv2d"])
@pytest.mark.parametrize("conditioning", ["concat", "film"])
def test_the_gradient_reaches_the_condition(name, parameters, network, conditioning):
    torch.manual_seed(0)
    plan = build(
        name,
        (9, 8),
        latent_dim=2,
        network=network,
        hidden=(8,),
        activation="tanh",
        condition={"n_labels": 3, "vector_dim": 2},
        conditioning=conditioning,
        **parameters,
    )
    for module in plan.model.modules():
        if isinstance(module, Film):  # which starts as the identity, whatever the condition
            nn.init.normal_(module.linear.weight, std=0.1)
    # Layers of a prior start at zero, whatever the condition: give them something to pass on.
    for parameter in plan.model.prior.parameters():
        if not parameter.any():
            nn.init.normal_(parameter)
    vector = torch.randn(20, 2)
    vector[::4] = torch.nan
    label = torch.arange(20) % 4 - 1  # -1 is the null token
    backward(plan, Batch(torch.randn(20, 1, 9, 8), RawCondition(label, vector)))
    assert untouched(plan.model) == []


@each_recipe
def test_a_row_s_terms_are_its_own(name, item):
    """Rows share parameters and nothing else: one row's terms do not depend on the others'.

    What is said of the batch as a whole, such as how its codes correlate, has no rows.
    """
    torch.manual_seed(0)
    # tanh: the slopes of rectified units are often the same for two rows.
    plan = build(name, item[name], latent_dim=2, hidden=(8,), activation="tanh")
    plan.model.eval()
    x, y = (torch.randn(6, *plan.model.space.model_shape) for _ in range(2))
    changed = torch.cat([y[:2], x[2:3], y[3:]])
    before, after = (terms_of(plan, Batch(x)) for x in (x, changed))
    own = [term for term in before if before[term].rows.dim()]
    assert own
    for term in own:
        same = torch.isclose(before[term].rows, after[term].rows, rtol=1e-6, atol=0)
        assert same.tolist() == [False, False, True, False, False, False]


@each_recipe
def test_same_seed_same_result(name, item):
    X = rows(60, item[name])
    first, again, other = (model(name, random_state=seed).fit(X) for seed in (0, 0, 1))
    assert np.array_equal(first.transform(X), again.transform(X))
    assert np.array_equal(first.sample(5, random_state=3), again.sample(5, random_state=3))
    numbers = [
        [{k: v for k, v in epoch.items() if k not in ("seconds", "rows_per_second")} for epoch in m.history_]
        for m in (first, again)
    ]
    assert numbers[0] == numbers[1]
    assert not np.array_equal(first.transform(X), other.transform(X))


@each_recipe
def test_no_seed_differs_each_time(name, item):
    X = rows(30, item[name])
    # Of 8 rectified units all are dead once in 256 fits, and samples are then the same.
    first, again = (model(name, random_state=None, max_epochs=1, hidden=(32,)).fit(X) for _ in range(2))
    assert not np.array_equal(first.transform(X), again.transform(X))
    assert not np.array_equal(first.sample(3), first.sample(3))


@each_recipe
def test_a_run_folder_gives_the_model_back(name, fitted, tmp_path, item):
    X, saved = rows(10, item[name], seed=1), fitted[name]
    loaded = ct.load(saved.save(tmp_path / "run"))
    assert type(loaded) is type(saved)
    assert loaded.get_params() == saved.get_params() | {"hidden": [8]}
    for method in ("transform", "project", "score_samples", "predict"):
        assert np.array_equal(getattr(loaded, method)(X), getattr(saved, method)(X)), method
    assert np.array_equal(loaded.sample(4, random_state=0), saved.sample(4, random_state=0))
    assert loaded.history_ == saved.history_


@each_recipe
@pytest.mark.parametrize(
    ("shape", "network"),
    [
        ((7,), "auto"),
        ((1,), "auto"),
        ((1, 5, 9), "conv2d"),
        ((3, 17, 13), "conv2d"),
        ((17, 13, 3), "auto"),
        ((9, 4), "auto"),
        ((1, 1, 1), "conv2d"),
        ((5, 6, 7, 2), "auto"),
    ],
    ids=str,
)
def test_any_shape(name, shape, network, refused):
    if refused(name, shape, network=network):
        return
    X = rows(21, shape)
    m = model(name, network=network, max_epochs=1).fit(X)
    assert m.transform(X).shape == (21, 2)
    assert m.project(X).shape == X.shape
    assert m.sample(3, random_state=0).shape == (3, *shape)
    for shared in (False, True):
        assert m.sample_posterior(X, 4, shared=shared, random_state=0).shape == (4, 21, 2)
    assert m.interpolate(X[0], X[1], steps=3).shape == (3, *shape)
    scores = m.score_samples(X)
    assert scores.shape == (21,)
    assert np.isfinite(scores).all()


@each_recipe
def test_one_row_is_like_many(name, fitted, item):
    X, m = rows(9, item[name]), fitted[name]
    np.testing.assert_allclose(m.transform(X[3:4]), m.transform(X)[3:4], rtol=1e-12)
    np.testing.assert_allclose(m.score_samples(X[3:4]), m.score_samples(X)[3:4], rtol=1e-12)
    assert m.sample(1, random_state=0).shape == (1, *item[name])


@each_recipe
@pytest.mark.parametrize("n", [2, 17, 33])
def test_a_last_batch_of_one_row(name, n, item):
    X = rows(n, item[name])
    m = model(name, validation_fraction=0.0, max_epochs=2).fit(X)
    assert all(np.isfinite(epoch["loss"]) for epoch in m.history_)
    assert np.isfinite(m.transform(X)).all()


@each_recipe
@pytest.mark.parametrize(
    ("likelihood", "X"),
    [
        ("bernoulli", np.random.default_rng(0).integers(0, 2, (40, 5))),
        ("bernoulli", np.random.default_rng(0).uniform(size=(40, 5))),
        ("categorical", np.random.default_rng(0).integers(0, 4, (40, 5)).astype(np.uint8)),
        ("categorical", np.random.default_rng(0).integers(0, 4, (40, 6, 5, 3)).astype(np.uint8)),
    ],
    ids=["binary", "gray", "categories", "category images"],
)
def test_every_likelihood(name, likelihood, X, item, refused):
    if X.ndim == 2:
        X = np.resize(X, (len(X), *item[name]))
    if refused(name, Space(X.shape[1:], likelihood, levels=4)):
        return
    m = model(name, likelihood=likelihood).fit(X)
    assert (m.score_samples(X) < 0).all()  # a mass is at most one
    if likelihood == "categorical":
        assert set(np.unique(m.sample(50, random_state=0))) <= set(range(4))
    else:
        assert 0 <= m.sample(50, random_state=0).min() <= m.sample(50, random_state=0).max() <= 1


@each_recipe
@pytest.mark.parametrize("noise", ["global", "feature", "item", 0.5])
def test_every_noise(name, noise, item, refused):
    if refused(name, item[name], noise=noise):
        return
    X = rows(40, item[name])
    m = model(name, noise=noise).fit(X)
    assert np.isfinite(m.score_samples(X)).all()
    drawn = m.sample(200, random_state=0, observation_noise=True) - m.sample(200, random_state=0)
    assert drawn.std() > 0.1


@each_recipe
def test_half_precision_trains_to_nearly_the_same_loss(name, item):
    X = rows(300, (8,)) @ rows(8, (8,), seed=1)
    if len(item[name]) == 2:
        X = X[:, None, :] * rows(1, (8, 1), seed=2)
    losses = [
        model(name, precision=precision, hidden=(128, 128), max_epochs=2).fit(X).history_[-1]["loss"]
        for precision in ("float32", "bf16")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.03)
    assert losses[1] != losses[0]


@each_recipe
def test_samples_of_the_posterior_are_an_axis(name):
    torch.manual_seed(0)
    plan = build(name, (9, 8), latent_dim=2, network="conv2d", hidden=(8,))
    plan.model.eval()
    batch = Batch(torch.randn(4, 1, 9, 8))
    trace = plan.model.trace(batch, k=3, noise=Noise(0))
    assert trace.levels[0].z.shape == (3, 4, 2)
    assert trace.log_lik.shape == (3, 4)
    assert trace.px.batch_shape == (3, 4)
    assert trace.px.event_shape == (1, 9, 8)
    assert trace.expect(trace.log_lik).shape == (4,)
    z, c = trace.levels[0].z, None
    alone = [plan.model.likelihood(z[i : i + 1], c).log_prob(batch.x)[0] for i in range(3)]
    torch.testing.assert_close(trace.log_lik, torch.stack(alone))


@each_recipe
def test_unknown_parameters_are_refused_with_a_suggestion(name, item):
    with pytest.raises(PlanError, match=rf"recipe '{name}' has no parameter 'no_such_thing'"):
        model(name, recipe_params={"no_such_thing": 1}).fit(rows(20, item[name]))
    for known in next(r for r in RECIPES if r.name == name).parameters:
        with pytest.raises(PlanError, match=f"did you mean '{known}'"):
            build(name, (5,), **{known + "x": 1})


@each_recipe
@pytest.mark.parametrize("given", ["latent_dim", "network", "hidden", "noise", "condition"])
def test_a_parameter_of_the_estimator_is_no_parameter_of_the_recipe(name, given, item):
    with pytest.raises(PlanError, match=f"'{given}'"):
        model(name, recipe_params={given: None}).fit(rows(20, item[name]))


@each_recipe
@pytest.mark.parametrize("bad", ["a", None, np.nan, np.inf, True])
def test_numbers_are_numbers(name, bad, item):
    for own, default in next(r for r in RECIPES if r.name == name).parameters.items():
        if isinstance(default, float | int) and not isinstance(default, bool):
            with pytest.raises(PlanError, match=rf"{own}=.*: give a (whole )?number"):
                build(name, item[name], **{own: bad})


def test_unknown_recipe():
    with pytest.raises(PlanError, match="unknown recipe 'vea': did you mean 'vae'"):
        ct.Autoencoder(recipe="vea").fit(rows(20))
    with pytest.raises(PlanError, match="unknown recipe 'vea'"):
        build("vea", (4,))


@each_recipe
@pytest.mark.parametrize("reserved", ["objective", "posterior", "prior"])
def test_parts_that_a_recipe_names_cannot_be_passed(name, reserved):
    with pytest.raises(PlanError, match=f"no parameter '{reserved}'"):
        build(name, (5,), **{reserved: None})


class Encoder(nn.Module):
    """Batch statistics and dropout: what a second, hidden call would show."""

    def __init__(self, values: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(), nn.Linear(values, 9), nn.BatchNorm1d(9), nn.Dropout(0.1), nn.Tanh()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@each_recipe
def test_modules_of_the_user(name, tmp_path, item):
    shape = (3, 4) if item[name] == (5,) else (1, 9, 8)
    X, values = rows(40, shape), math.prod(shape)
    # A decoder may see a part of the code alone.
    width = getattr(build(name, shape, latent_dim=2).model.likelihood.network, "width", 2)
    pair = (Encoder(values), nn.Sequential(nn.Linear(width, values), nn.Unflatten(1, shape)))
    before = [p.clone() for net in pair for p in net.state_dict().values()]
    m = model(name, network=pair).fit(X)
    assert m.network_ == "yours"
    assert m.project(X).shape == X.shape
    # What was passed in is not what was trained.
    assert all(map(torch.equal, before, (p for net in pair for p in net.state_dict().values())))
    again = ct.load(m.save(tmp_path / "run"), network=pair)
    assert np.array_equal(again.transform(X), m.transform(X))
    seen = m.model_.posterior.plain.network.module.layers[2].num_batches_tracked
    assert (
        seen == m.n_iter_ * 3
    )  # 36 rows in batches of 16: each step calls the encoder once in training mode


# ------------------------------------------------------------------- conditions

N = 40
LABELS = np.random.default_rng(0).choice(["a", "b", "c"], N)
VECTORS = np.random.default_rng(1).normal(size=(N, 2))
CONDITIONS = {
    "strings": (LABELS, "b"),
    "integers": (np.arange(N) % 3, 2),
    "booleans": (np.arange(N) % 2 == 0, True),
    "objects": (LABELS.astype(object), "c"),
    "scalar": (VECTORS[:, 0], 0.5),
    "vectors": (VECTORS, [0.1, 0.2]),
    "maps": (VECTORS.reshape(N, 1, 2) * np.ones((N, 3, 2)), np.ones((3, 2))),
    "both": ({"label": LABELS, "vector": VECTORS}, {"label": "a", "vector": [0.0, 1.0]}),
    "none": (None, None),
}


@pytest.mark.parametrize("name", CONDITIONAL)
@pytest.mark.parametrize(
    ("network", "conditioning"),
    [("mlp", "concat"), ("conv2d", "concat"), ("mlp", "film"), ("conv2d", "film")],
)
@pytest.mark.parametrize("kind", CONDITIONS)
def test_every_kind_of_condition(name, network, conditioning, kind, tmp_path):
    y, one = CONDITIONS[kind]
    X = rows(N, (9, 8))
    if one is None and conditioning == "film":
        pytest.skip("there is nothing to scale and shift by")
    m = model(name, network=network, conditioning=conditioning).fit(X, y)
    assert m.transform(X, y).shape == (N, 2)
    assert m.project(X, y).shape == X.shape
    assert np.isfinite(m.score_samples(X, y)).all()
    for n in (1, 4):
        assert m.sample(n, condition=one, random_state=0).shape == (n, 9, 8)
    assert m.interpolate(X[0], X[1], steps=3, condition=one).shape == (3, 9, 8)
    again = ct.load(m.save(tmp_path / "run"))
    assert np.array_equal(again.score_samples(X, y), m.score_samples(X, y))
    if one is not None:
        with_it, without = (m.sample(4, condition=c, random_state=0) for c in (one, None))
        assert not np.array_equal(with_it, without)


@pytest.mark.parametrize("name", CONDITIONAL)
def test_a_single_condition_is_meant_for_all_rows(name):
    X = rows(N)
    m = model(name).fit(X, {"label": LABELS, "vector": VECTORS})
    one = {"label": "b", "vector": VECTORS[0]}
    all_of_them = {"label": np.full(N, "b"), "vector": np.tile(VECTORS[0], (N, 1))}
    assert np.array_equal(m.transform(X, one), m.transform(X, all_of_them))
    # Half a condition is a condition too: the other half is the null token.
    assert not np.array_equal(m.transform(X, {"label": "b"}), m.transform(X, one))


@pytest.mark.parametrize("name", CONDITIONAL)
def test_conditioning_inside_layers_needs_a_condition_and_layers(name):
    X, film = rows(N), {"conditioning": "film"}
    with pytest.raises(PlanError, match="conditioning='film' needs a condition: pass y to fit"):
        model(name, **film).fit(X)
    with pytest.raises(PlanError, match=r"conditioning='film' needs a condition: .* such as 'cvae'"):
        model("vae", **film).fit(X, LABELS)
    with pytest.raises(PlanError, match="conditioning='film' acts inside the networks, and these are yours"):
        model(name, network=(nn.Linear(5, 4), nn.Linear(2, 5)), **film).fit(X, LABELS)
    with pytest.raises(PlanError, match="network='linear' with conditioning='concat'"):
        model(name, network="linear", hidden=None, **film).fit(X, LABELS)
    with pytest.raises(ValueError, match="'conditioning' parameter"):
        model(name, conditioning="flim").fit(X, LABELS)


@pytest.mark.parametrize("name", CONDITIONAL)
def test_a_run_from_before_conditioning_could_be_chosen_still_opens(name, tmp_path):
    X = rows(N)
    m = model(name).fit(X, LABELS)
    config = m.save(tmp_path / "run") / "config.json"
    content = json.loads(config.read_text())
    del content["blueprint"]["conditioning"], content["estimator"]["parameters"]["conditioning"]
    config.write_text(json.dumps(content))
    weights = tmp_path / "run/model.safetensors"
    save_file(load_file(weights), weights)  # which, back then, did not know what was written with them
    again = ct.load(tmp_path / "run")
    assert again.conditioning == "concat"
    assert np.array_equal(again.transform(X, LABELS), m.transform(X, LABELS))


@pytest.mark.parametrize("name", CONDITIONAL)
def test_modules_of_the_user_see_the_condition(name):
    class Both(nn.Module):
        def __init__(self, before: int, after: int) -> None:
            super().__init__()
            self.layer = nn.Linear(before + 3, after)

        def forward(self, h: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
            return self.layer(torch.cat([h, c], 1))

    X = rows(N)
    m = model(name, network=(Both(5, 4), Both(2, 5))).fit(X, LABELS)
    assert not np.array_equal(m.transform(X, "a"), m.transform(X, "b"))
    with pytest.raises(PlanError, match="does not take items of shape"):
        model(name, network=(nn.Linear(5, 4), nn.Linear(2, 5))).fit(X, LABELS)


# Scaling and shifting starts as the identity: the code carries the label at first.
@pytest.mark.parametrize(("conditioning", "epochs"), [("concat", 30), ("film", 100)])
def test_the_condition_carries_what_the_code_need_not(conditioning, epochs):
    """Two clusters told apart by their label alone: sampling with it lands in the right one."""
    y = np.arange(200) % 2
    X = np.where(y[:, None] == 1, 3.0, -3.0) + 0.1 * rows(200)
    training = {"max_epochs": epochs, "patience": None, "batch_size": 20, "learning_rate": 5e-3}
    m = ct.CVAE(latent_dim=1, hidden=(16,), conditioning=conditioning, random_state=0, **training).fit(X, y)
    for label, center in ((0, -3.0), (1, 3.0)):
        made = m.sample(100, condition=label, random_state=0)
        assert (np.sign(made) == np.sign(center)).all()
    # Without a condition the null token answers for the mixture.
    assert np.isfinite(m.sample(100, random_state=0)).all()


def test_the_table_of_recipes(item):
    assert set(NAMES) >= {"ae", "denoising-ae", "contractive-ae", "l2-ae", "vae", "beta-vae", "iwae", "cvae"}
    assert set(NAMES) >= {"miwae", "piwae", "ciwae"}
    assert set(NAMES) >= {"beta-tc-vae", "disentangled-beta-vae", "geco-vae", "dip-vae", "ms-ssim-vae"}
    assert item["vae"] == (5,)
    assert item["ms-ssim-vae"] == (9, 8)
    for r in RECIPES:
        assert r.paper
        assert r.summary.endswith(".")
        assert r.parts


@pytest.mark.parametrize("value", ["False", "no", 1, None])
def test_a_switch_is_true_or_false(value):
    with pytest.raises(PlanError, match="give True or False"):
        build("cvae", (4,), conditional_prior=value, condition={"n_labels": 3})


@pytest.mark.parametrize(
    ("name", "own", "said"),
    [
        ("iwae", {"kept": "x"}, "kept='x': give a whole number or None"),
        ("iwae", {"kept": 1.5}, "kept=1.5: give a whole number or None"),
        ("iwae", {"kept": True}, "kept=True: give a whole number or None"),
        ("vq-vae", {"slots": "2"}, "slots='2': give a whole number or None"),
        ("beta-vae", {"beta": np.inf}, "beta=inf: give a number"),
        ("ladder-vae", {"growth": 3.0}, "growth=3 is of the number of samples, and there is k=1"),
    ],
)
def test_parameters_are_of_the_type_they_are_annotated_with(name, own, said):
    with pytest.raises(PlanError, match=f"^{said}"):
        build(name, (4,), latent_dim=2, **own)


@pytest.mark.parametrize(("name", "own"), [("info-vae", {"lam": 0}), ("rae-l2", {"beta": -1.0})])
def test_a_weight_that_is_refused_is_named_as_it_was_given(name, own):
    (parameter, value), *_ = own.items()
    with pytest.raises(PlanError, match=rf"use 0 or more \(recipe '{name}', {parameter}={value}\)$"):
        build(name, (4,), latent_dim=2, **own)


@pytest.mark.parametrize(
    ("name", "own", "size"),
    [
        ("svae", {}, 2),
        ("hierarchical-vae", {}, 2),
        ("ladder-vae", {"levels": 3}, 3),
        ("ladder-vae", {"sizes": (3, 2)}, 5),
        ("vq-vae", {"slots": 4}, 4),
        ("fsq-vae", {"levels": (8, 5, 5)}, 3),
        ("vae", {}, 1),
    ],
)
def test_a_size_by_default_is_one_that_the_recipe_takes(name, own, size):
    t = np.random.default_rng(0).random(200)
    line = np.stack([t, 2 * t, -t, 1 - t], 1)
    m = model(name, latent_dim="auto", recipe_params=own, max_epochs=1).fit(line)
    assert m.latent_dim_ == size


def test_a_recipe_without_annotations_is_held_to_the_types_of_its_defaults():
    @recipe("plainly-typed", paper="none", parts="as vae")
    def plainly_typed(shape, *, warmup=0.0, **common):
        """VAE by another name."""
        return build("vae", shape, warmup=warmup, **common)

    try:
        assert build("plainly-typed", (4,), warmup=2).objective.warmup == 2
        with pytest.raises(PlanError, match="warmup='2': give a number"):
            build("plainly-typed", (4,), warmup="2")
    finally:
        _RECIPES._items.pop("plainly-typed")


def test_a_conditional_prior_needs_a_condition():
    with pytest.raises(PlanError, match="needs a condition: pass y to fit"):
        ct.CVAE(conditional_prior=True, max_epochs=1).fit(np.eye(20))


@pytest.mark.parametrize("name", ["vae", "beta-vae", "iwae", "cvae"])
def test_a_full_covariance(name, tmp_path):
    X = rows(60)
    m = model(name, latent_dim=3, recipe_params={"covariance": "full"}).fit(X)
    drawn = m.sample_posterior(X[:1], 4000, random_state=0)[:, 0]
    q = m.model_.posterior(m.space_.to_model(torch.from_numpy(X[:1])))
    np.testing.assert_allclose(np.cov(drawn.T), (q.scale_tril @ q.scale_tril.mT)[0].detach(), atol=0.15)
    np.testing.assert_allclose(m.transform(X[:1], return_std=True)[1][0], drawn.std(0), rtol=0.1)
    assert np.isfinite(m.score_samples(X)).all()
    again = ct.load(m.save(tmp_path / "run"))
    assert np.array_equal(again.score_samples(X), m.score_samples(X))
    with pytest.raises(PlanError, match="unknown covariance 'ful': did you mean 'full'"):
        build(name, (5,), covariance="ful")


def test_modules_that_share_layers_go_on_sharing_them():
    shared = nn.Linear(2, 2)
    pair = (nn.Sequential(nn.Linear(4, 2), shared), nn.Sequential(shared, nn.Linear(2, 4)))
    model = build("ae", (4,), network=pair, latent_dim=2).model
    assert model.posterior.network.module[1] is model.likelihood.network.module[0]
    assert model.posterior.network.module[1] is not shared


@pytest.mark.parametrize("hidden", [(), []])
def test_convolutions_need_channels(hidden):
    with pytest.raises(PlanError, match="convolutions need channels"):
        build("ae", Space((16, 16)), network="conv2d", hidden=hidden)


def test_a_module_that_gives_no_tensor_is_refused():
    class Pair(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(PlanError, match=r"Pair does not turn two items into one tensor.*into tuple"):
        build("ae", (4,), network=(Pair(), nn.Linear(2, 4)), latent_dim=2)


def test_a_module_is_told_how_it_is_called():
    with pytest.raises(PlanError, match=r"called as module\(items, condition\)"):
        build(
            "cvae", (4,), network=(nn.Sequential(nn.Linear(4, 4)), nn.Linear(2, 4)), condition={"n_labels": 3}
        )
    with pytest.raises(PlanError, match=r"network is Sequential: give a name, or a pair"):
        build("ae", (4,), network=nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)))


@pytest.mark.parametrize("likelihood", ["bernoulli", "normal"])
@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("last", [nn.Sigmoid(), nn.Identity(), nn.ReLU(), nn.Tanh()])
def test_a_sigmoid_of_the_users_is_named_where_it_is_wrong(likelihood, scale, last, recwarn):
    space = Space((4,), likelihood, scale=1.0 if likelihood == "bernoulli" else scale)
    torch.manual_seed(0)
    decoder = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 4), last)
    build("vae", space, network=(nn.Linear(4, 4), decoder), latent_dim=2)
    wrong = isinstance(last, nn.Sigmoid) and (likelihood == "bernoulli" or scale != 1)
    assert [str(w.message).split(":")[0] for w in recwarn] == wrong * [
        f"your decoder gives numbers from 0 to 1, and likelihood '{likelihood}' takes "
        + ("logits" if likelihood == "bernoulli" else "values that are centered and scaled as items are")
    ]


def test_flows_want_a_width_for_each_layer():
    with pytest.raises(PlanError, match="hidden=32: give a width for each layer"):
        build("vae-iaf", (4,), flow_hidden=32)


def test_a_recipe_may_be_defined_again_and_not_by_another():
    def define(k):
        @recipe("defined-twice", paper="none", parts="none")
        def twice(shape, *, k: int = k, **common):
            return build("iwae", shape, k=k, **common)

    try:
        define(2), define(3)  # as a cell of a notebook that runs again
        assert find("defined-twice").parameters == {"k": 3}
        with pytest.raises(PlanError, match="already: choose another name"):

            @recipe("defined-twice", paper="none", parts="none")
            def other(shape, **common): ...

        with pytest.raises(PlanError, match="already: choose another name"):

            @recipe("vae", paper="none", parts="none")
            def vae(shape, **common): ...
    finally:
        _RECIPES._items.pop("defined-twice", None)
