"""Networks: shapes of any size, ways of conditioning, residual blocks, and what trains them."""

import itertools

import pytest
import torch
from torch import Tensor, nn

from chartae.core.errors import PlanError
from chartae.core.spaces import Space
from chartae.models.recipes import build
from chartae.parts.networks import MLP, ConvDecoder, ConvEncoder, Film, Layers, Residual, networks
from chartae.training.kernels import Gradients, gradients_for

ITEMS = {
    "mlp": [(7,), (3, 5), (2, 3, 4)],
    "linear": [(7,), (3, 5), (2, 3, 4)],
    "conv1d": [(7,), (1,), (100,), (3, 5), (2, 64), (1, 33)],
    "conv2d": [(1, 7, 5), (3, 16, 16), (2, 1, 9), (1, 33, 20)],
    "resnet": [(7,), (3, 5), (2, 33), (1, 7, 5), (3, 16, 16)],
}
CASES = [(name, shape) for name, shapes in ITEMS.items() for shape in shapes]
#: Networks with hidden layers to scale, and an item of each.
DEEP = [
    ("mlp", (7,)),
    ("conv1d", (2, 9)),
    ("conv1d", (9,)),
    ("conv2d", (2, 7, 5)),
    ("resnet", (7,)),
    ("resnet", (2, 7, 5)),
]
#: Each with each way of conditioning that it knows.
WAYS = [(*case, way) for case in DEEP for way in ("concat", "film")] + [("linear", (7,), "concat")]


def make(
    name: str,
    shape: tuple[int, ...],
    *,
    per_value: int = 1,
    condition_dim: int = 0,
    conditioning: str = "concat",
    activation: str = "relu",
    hidden: tuple[int, ...] | None = None,
) -> tuple[nn.Module, nn.Module]:
    out_shape = (per_value * shape[0], *shape[1:])
    torch.manual_seed(0)
    return networks[name](shape, out_shape, 6, 3, hidden, condition_dim, activation, conditioning)


def stir(*modules: nn.Module) -> None:
    """Move parameters away from zero, where some start."""
    generator = torch.Generator().manual_seed(1)
    for module in modules:
        for p in module.parameters():
            p.data += 0.1 * torch.randn(p.shape, generator=generator)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("name", "shape"), CASES, ids=str)
@pytest.mark.parametrize("condition_dim", [0, 2])
def test_shapes(name, shape, condition_dim):
    for per_value in (1, 2):
        encoder, decoder = make(name, shape, per_value=per_value, condition_dim=condition_dim)
        c = [random(4, condition_dim)] if condition_dim else []
        assert encoder(random(4, *shape), *c).shape == (4, 6)
        assert decoder(random(4, 3), *c).shape == (4, per_value * shape[0], *shape[1:])


@pytest.mark.parametrize("length", range(1, 20))
def test_convolutions_of_any_length(length):
    for steps in (1, 2, 3):
        channels = (4,) * steps
        assert ConvEncoder((2, length), 5, channels)(random(3, 2, length)).shape == (3, 5)
        assert ConvDecoder(5, (2, length), channels)(random(3, 5)).shape == (3, 2, length)


@pytest.mark.parametrize(("name", "shape", "conditioning"), WAYS, ids=str)
def test_gradients_reach_every_parameter(name, shape, conditioning):
    pair = make(name, shape, condition_dim=2, conditioning=conditioning, activation="silu")
    stir(*pair)
    c = random(4, 2, seed=3)
    loss = pair[0](random(4, *shape), c).square().sum() + pair[1](random(4, 3), c).square().sum()
    loss.backward()
    for module in pair:
        assert all(p.grad.abs().sum() > 0 for p in module.parameters())


@pytest.mark.parametrize(("name", "shape"), DEEP, ids=str)
@pytest.mark.parametrize("conditioning", ["concat", "film"])
def test_the_condition_matters(name, shape, conditioning):
    pair = make(name, shape, condition_dim=2, conditioning=conditioning)
    stir(*pair)
    for network, h in zip(pair, (random(4, *shape), random(4, 3)), strict=True):
        assert not torch.allclose(network(h, random(4, 2)), network(h, random(4, 2, seed=1)))


@pytest.mark.parametrize(("name", "shape"), DEEP, ids=str)
def test_film_starts_as_the_identity(name, shape):
    pair = make(name, shape, condition_dim=2, conditioning="film")
    for network, h in zip(pair, (random(4, *shape), random(4, 3)), strict=True):
        assert torch.equal(network(h, random(4, 2)), network(h))


@pytest.mark.parametrize(("name", "shape"), DEEP, ids=str)
def test_film_without_a_condition_is_no_condition(name, shape):
    film, concat = (make(name, shape, conditioning=way) for way in ("film", "concat"))
    for a, b, h in zip(film, concat, (random(4, *shape), random(4, 3)), strict=True):
        assert a.state_dict().keys() == b.state_dict().keys()
        assert torch.equal(a(h), b(h))


def test_film_scales_and_shifts():
    film, c = Film(2, 3), random(4, 2)
    stir(film)
    scale, shift = film.linear(c).chunk(2, 1)
    h = random(4, 3, 5, 6)
    expected = (1 + scale)[:, :, None, None] * h + shift[:, :, None, None]
    torch.testing.assert_close(film(h, c), expected)
    assert torch.equal(film(h), h)


def test_concatenation_is_as_it_was():
    """The same layers of the same names: old weights fit."""

    def like(ours: nn.Module, plain: nn.Module) -> nn.Module:
        plain.load_state_dict({k.removeprefix("layers."): v for k, v in ours.state_dict().items()})
        return plain

    encoder, _ = make("mlp", (7,), condition_dim=2, hidden=(5,))
    plain = like(encoder, nn.Sequential(nn.Linear(9, 5), nn.ReLU(), nn.Linear(5, 6)))
    x, c = random(4, 7), random(4, 2)
    assert torch.equal(encoder(x, c), plain(torch.cat([x, c], 1)))
    encoder, decoder = make("conv2d", (3, 7, 5), condition_dim=2, hidden=(4, 8))
    down = [nn.Conv2d(5, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 8, 3, 2, 1), nn.ReLU()]
    convolve = like(encoder, nn.Sequential(*down, nn.Flatten(), nn.Linear(32, 6)))
    start = [nn.Linear(5, 32), nn.Unflatten(1, (8, 2, 2)), nn.ReLU()]
    up = [nn.ConvTranspose2d(8, 4, 3, 2, 1, (1, 0)), nn.ReLU(), nn.ConvTranspose2d(4, 3, 3, 2, 1, (0, 0))]
    grow = like(decoder, nn.Sequential(*start, *up))
    x, z = random(4, 3, 7, 5), random(4, 3)
    planes = c[:, :, None, None].expand(-1, -1, 7, 5)
    assert torch.equal(encoder(x, c), convolve(torch.cat([x, planes], 1)))
    assert torch.equal(decoder(z, c), grow(torch.cat([z, c], 1)))


def test_a_series_of_one_channel_is_its_row():
    flat, channel = (make("conv1d", shape, per_value=2) for shape in [(9,), (1, 9)])
    x, z = random(4, 9), random(4, 3)
    assert torch.equal(flat[0](x), channel[0](x[:, None]))
    assert torch.equal(flat[1](z).unflatten(1, (2, 9)), channel[1](z))


@pytest.mark.parametrize("axes", [0, 1, 2])
def test_a_residual_block_starts_as_the_identity(axes):
    block, h = Residual(3, axes, condition_dim=2), random(4, 3, *(5,) * axes)
    before = h.clone()
    assert torch.equal(block(h, random(4, 2)), h)
    stir(block)
    assert not torch.equal(block(h, random(4, 2)), h)
    assert torch.equal(h, before)  # nothing is done in place to the input


@pytest.mark.parametrize(("name", "shape", "conditioning"), WAYS, ids=str)
def test_state_is_saved_and_loaded(name, shape, conditioning):
    old, new = (make(name, shape, condition_dim=2, conditioning=conditioning) for _ in range(2))
    stir(*old)
    c = random(4, 2)
    for a, b, h in zip(old, new, (random(4, *shape), random(4, 3)), strict=True):
        b.load_state_dict(a.state_dict())
        assert torch.equal(a(h, c), b(h, c))


@pytest.mark.parametrize(
    ("name", "shape", "options", "match"),
    [
        ("conv1d", (1, 4, 4), {}, "give items of shape .channels, length."),
        ("conv2d", (4, 4), {}, "use network='mlp'"),
        ("resnet", (1, 4, 4, 4), {}, "use network='mlp'"),
        ("resnet", (4,), {"hidden": ()}, "give hidden some"),
        ("conv1d", (2, 9), {"hidden": ()}, "give hidden some"),
        ("linear", (4,), {"hidden": (3,)}, "leave hidden out"),
        ("linear", (4,), {"condition_dim": 2, "conditioning": "film"}, "conditioning='concat'"),
        ("mlp", (4,), {"conditioning": "flim"}, "did you mean 'film'"),
        ("conv1d", (2, 9), {"activation": "rely"}, "unknown activation"),
    ],
)
def test_what_does_not_fit_is_refused(name, shape, options, match):
    with pytest.raises(PlanError, match=match) as caught:
        make(name, shape, **options)
    assert "\n" not in str(caught.value)


def test_a_row_that_is_no_multiple_is_refused():
    with pytest.raises(PlanError, match="conv1d needs series"):
        networks["conv1d"]((4,), (6,), 2, 1, None, 0, "relu", "concat")


def test_only_plain_layers_are_trained_by_hand():
    """A network that does more than linear layers and ReLU gets the general way."""
    plan = build("vae", Space((4,), "bernoulli"), latent_dim=2, hidden=(8,))
    assert type(gradients_for(plan, torch.float32)) is not Gradients
    options = [{"condition_dim": 2, "conditioning": "film"}, {"blocks": 1}]
    for hidden, option in itertools.product([(8,), (8, 8)], options):
        plan = build("vae", Space((4,), "bernoulli"), latent_dim=2, hidden=(8,))
        plan.model.posterior.network = MLP((4,), (4,), hidden, **option)
        plan.model.likelihood.network = MLP((2,), (4,), hidden, **option)
        assert type(gradients_for(plan, torch.float32)) is Gradients
    plan = build("vae", Space((4,), "bernoulli"), latent_dim=2, hidden=(8,), network="resnet")
    assert type(gradients_for(plan, torch.float32)) is Gradients


def test_layers_give_the_condition_to_those_that_use_it():
    layers = Layers(nn.Linear(4, 3), Film(2, 3), nn.Tanh(), Residual(3, condition_dim=2))
    stir(layers)
    h, c = random(5, 4), random(5, 2)
    linear, film, act, residual = layers
    assert torch.equal(layers(h, c), residual(act(film(linear(h), c)), c))
