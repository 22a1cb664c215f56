"""PNG grids: what is shown where, and that a file is whole or not there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from chartae.core.errors import DataError, PlanError
from chartae.core.files import atomic
from chartae.core.images import is_picture, pairs, save_grid
from chartae.core.spaces import Space

GAP, TILE = 2, 56


def show(path, X, **options):
    save_grid(path, X, **options)
    with Image.open(path) as image:
        return np.asarray(image)


@given(
    n=st.integers(1, 7),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    columns=st.none() | st.integers(1, 9),
    channels=st.sampled_from([None, 1, 3]),
)
def test_every_item_stands_in_its_tile(tmp_path_factory, n, height, width, columns, channels):
    shape = (n, height, width) + (() if channels is None else (channels,))
    X = np.random.default_rng(0).integers(0, 256, shape)
    options = {"columns": columns, "value_range": (0, 255), "layout": "hw" if channels is None else "hwc"}
    sheet = show(tmp_path_factory.mktemp("grid") / "a.png", X, **options)
    factor = max(1, -(-TILE // max(height, width)))
    assert max(height, width) * factor >= TILE
    across = min(n, columns or int(np.ceil(np.sqrt(n))))
    expected = np.squeeze(X, -1) if channels == 1 else X
    for i in range(n):
        top = GAP + i // across * (height * factor + GAP)
        left = GAP + i % across * (width * factor + GAP)
        tile = sheet[top : top + height * factor, left : left + width * factor]
        np.testing.assert_array_equal(tile[::factor, ::factor], expected[i])
        np.testing.assert_array_equal(tile[factor - 1 :: factor, factor - 1 :: factor], expected[i])
    assert (sheet[:GAP] == 128).all()
    assert (sheet[:, -GAP:] == 128).all()


def test_channels_first_is_the_same_picture(tmp_path):
    X = np.random.default_rng(0).random((4, 3, 10, 12))
    first = show(tmp_path / "a.png", X)
    last = show(tmp_path / "b.png", np.moveaxis(X, 1, -1))
    np.testing.assert_array_equal(first, last)


def test_values_are_clipped_to_the_range(tmp_path):
    sheet = show(tmp_path / "a.png", np.full((1, 56, 56), 20.0), value_range=(0, 16))
    assert sheet[10, 10] == 255
    sheet = show(tmp_path / "a.png", np.full((1, 56, 56), 4.0), value_range=(0, 16))
    assert sheet[10, 10] == 64


def test_the_first_row_may_stand_at_the_bottom(tmp_path):
    X = np.random.default_rng(0).random((3, 9, 12))
    lower = show(tmp_path / "a.png", X, origin="lower")
    np.testing.assert_array_equal(lower, show(tmp_path / "b.png", X[:, ::-1]))
    with pytest.raises(PlanError, match="use 'upper' or 'lower'"):
        save_grid(tmp_path / "c.png", X, origin="top")


def test_constant_and_missing_values_are_shown_without_a_warning(tmp_path):
    assert show(tmp_path / "a.png", np.zeros((1, 8, 8)))[GAP, GAP] == 0
    assert show(tmp_path / "a.png", np.full((1, 8, 8), np.nan))[GAP, GAP] == 128
    X = np.array([[[np.inf, 0.0], [1.0, -np.inf]]])
    assert show(tmp_path / "a.png", X, layout="hw")[GAP, GAP] == 128


def test_the_layout_decides_which_axis_counts_channels(tmp_path):
    X = np.random.default_rng(0).random((2, 3, 10, 3))
    last, first = (show(tmp_path / "a.png", X, layout=layout) for layout in ("hwc", "chw"))
    assert last.shape == show(tmp_path / "a.png", X).shape == (3 * 6 + 2 * GAP, 2 * (10 * 6 + GAP) + GAP, 3)
    assert first.shape == (10 * 6 + 2 * GAP, 2 * (3 * 6 + GAP) + GAP, 3)
    with pytest.raises(PlanError, match="items of 2 axes"):
        save_grid(tmp_path / "a.png", X, layout="hw")
    with pytest.raises(DataError, match="is not images"):
        save_grid(tmp_path / "a.png", X, layout="any")


@pytest.mark.parametrize(
    "shape", [(3, 4), (0, 9, 9), (2, 5, 5, 4), (2, 4, 5, 5), (2, 3, 4, 5, 3), (2, 100, 3), (5,), ()]
)
def test_what_is_not_an_image_is_refused(tmp_path, shape):
    with pytest.raises(DataError, match="is not images"):
        save_grid(tmp_path / "a.png", np.zeros(shape))
    assert list(tmp_path.iterdir()) == []


def test_no_columns_are_refused(tmp_path):
    with pytest.raises(DataError, match="columns=1 or more"):
        save_grid(tmp_path / "a.png", np.zeros((2, 8, 8)), columns=0)


@pytest.mark.parametrize(
    "shape, shown",
    [
        ((8, 8), True),
        ((3, 8, 8), True),
        ((8, 8, 1), True),
        ((8,), False),
        ((100, 3), False),
        ((8, 8, 4), False),
        ((12, 8, 8), False),
        ((3, 8, 8, 3), False),
    ],
)
def test_is_picture(shape, shown):
    """A shape is guessed at as a space guesses; a space knows."""
    assert is_picture(shape) is is_picture(list(shape)) is is_picture(Space(shape)) is shown
    assert not is_picture(Space(shape, layout="any"))
    if len(shape) == 2:
        assert is_picture(Space(shape, layout="hw"))


@pytest.mark.parametrize("shape", [(9, 8), (9, 8, 3), (3, 9, 8)], ids=str)
def test_what_is_a_picture_is_shown(tmp_path, shape):
    show(tmp_path / "a.png", np.random.default_rng(0).random((2, *shape)))


@given(n=st.integers(1, 9), columns=st.integers(1, 5))
def test_pairs_put_each_item_above_its_partner(n, columns):
    above = np.arange(n, dtype=float).reshape(n, 1, 1)
    laid = pairs(above, above + 100, columns).reshape(-1, 2, columns)
    np.testing.assert_array_equal(laid[:, 1], laid[:, 0] + 100)
    kept = laid[:, 0].ravel()
    np.testing.assert_array_equal(kept[:n], np.arange(n))
    assert np.isnan(kept[n:]).all()


def test_pairs_of_two_shapes_are_refused():
    with pytest.raises(DataError, match=r"\(2, 3\) and \(2, 4\)"):
        pairs(np.zeros((2, 3)), np.zeros((2, 4)), 2)


def test_a_file_is_replaced_at_once_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "a.bin"
    with atomic(path) as file:
        file.write(b"old")

    def interrupted():
        with atomic(path) as file:
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == ["a.bin"]
