"""Tables: columns of several kinds, missing values, and the parts that know them."""

from __future__ import annotations

import ast
import datetime as dt
import json
import math
import re
import shlex
import warnings
from decimal import Decimal

import numpy as np
import pandas as pd
import polars as pl
import pyarrow
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

import chartae as ct
from chartae.apps.options import as_column_options
from chartae.core.columns import Schema
from chartae.core.contracts import Batch
from chartae.core.errors import DataError, PlanError
from chartae.core.noise import Noise
from chartae.core.spaces import Space
from chartae.density.completion import complete
from chartae.estimators.suspicions import warn_of_outliers
from chartae.models.recipes import build
from chartae.parts.tables import Inputs
from chartae.parts.units import infer_space
from chartae.training.kernels import Gradients

SMALL = {"latent_dim": 2, "hidden": (16,), "max_epochs": 3, "random_state": 0}


def mixed(n=200, seed=0, gaps=0.0):
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    table = pd.DataFrame(
        {
            "size": 3 * z + rng.normal(size=n),
            "precise": (z + rng.normal(size=n)).astype(np.float32),
            "whole": np.round(1000 * z).astype(np.int64) - 5000,
            "visits": rng.poisson(np.exp(1 + 0.5 * z)),
            "member": z + rng.normal(size=n) > 0,
            "flag": (z > 0).astype(np.int64) * 3 + 1,
            "color": np.array(["red", "green", "blue"])[rng.integers(0, 3, n)],
            "grade": pd.Categorical(
                np.array(["a", "b", "c"])[rng.integers(0, 3, n)], ["c", "b", "a"], ordered=True
            ),
            "when": pd.Timestamp("2026-01-01") + pd.to_timedelta(np.round(1e6 * z), unit="s"),
            "price": 20 * np.exp(z + 0.5 * rng.normal(size=n)),
        }
    )
    if gaps:
        table = table.mask(rng.random(table.shape) < gaps)
    return table


def test_kinds_are_seen():
    kinds = {column.name: column.kind for column in Schema.learn(mixed()).columns}
    assert kinds == {
        "size": "continuous",
        "precise": "continuous",
        "whole": "continuous",
        "visits": "count",
        "member": "binary",
        "flag": "binary",
        "color": "categorical",
        "grade": "categorical",
        "when": "continuous",
        "price": "positive",
    }


@pytest.mark.parametrize(
    "draw, kind",
    [
        (lambda rng: rng.exponential(5, 300), "positive"),
        (lambda rng: rng.lognormal(10, 1, 300), "positive"),
        (lambda rng: 1e-9 * rng.gamma(2, size=300), "positive"),
        (lambda rng: rng.uniform(0, 1, 300), "continuous"),
        (lambda rng: rng.normal(1.7, 0.1, 300), "continuous"),  # which happens to lie above zero
        (lambda rng: rng.normal(1e9, 1.0, 300), "continuous"),
        (lambda rng: rng.gamma(20, size=300), "continuous"),  # next to a normal density
        (lambda rng: rng.lognormal(size=300) - 0.3, "continuous"),
        (lambda rng: np.append(rng.exponential(5, 300), 0.0), "continuous"),
    ],
)
def test_skewed_positive_numbers_are_seen(draw, kind):
    """Of 100 seeds each: the gain of one density over the other is far enough from where kinds change."""
    kinds = [
        Schema.learn(pd.DataFrame({"x": draw(np.random.default_rng(seed))})).columns[0].kind
        for seed in range(100)
    ]
    assert kinds == [kind] * 100


def test_what_is_drawn_of_positive_columns_is_positive_and_follows_them():
    rng = np.random.default_rng(0)
    z = rng.normal(size=2000)
    table = pd.DataFrame({"price": np.exp(3 + z), "hours": rng.exponential(2, 2000), "size": z})
    m = ct.VAE(latent_dim=2, hidden=(32,), max_epochs=30, random_state=0).fit(table)
    drawn = m.sample(2000, random_state=1)
    assert (drawn[["price", "hours"]] > 0).all(axis=None)
    assert drawn["hours"].median() == pytest.approx(2 * math.log(2), rel=0.15)
    assert np.corrcoef(np.log(drawn["price"]), drawn["size"])[0, 1] > 0.8
    as_continuous = ct.VAE(
        columns={"price": "continuous", "hours": "continuous"},
        latent_dim=2,
        hidden=(32,),
        max_epochs=30,
        random_state=0,
    ).fit(table)
    assert m.score(table) > as_continuous.score(table)  # both of the values, not of logarithms
    with pytest.raises(DataError, match=r"'hours' holds 0 in row 2 \(from 0\), and positive numbers"):
        m.transform(table[:5].assign(hours=[1.0, 2.0, 0.0, 1.0, 1.0]))
    with pytest.raises(DataError, match=r"'size' holds .* and positive numbers"):
        ct.VAE(columns={"size": "positive"}, **SMALL).fit(table)


def test_few_rows_are_rarely_taken_for_skewed():
    """Of 200 seeds each, of numbers that happen to be positive."""
    for n in (5, 10, 20, 50):
        for draw in (lambda rng, n=n: rng.uniform(size=n), lambda rng, n=n: rng.normal(10, 3, size=n)):
            tables = (pd.DataFrame({"x": draw(np.random.default_rng(seed))}) for seed in range(200))
            kinds = [Schema.learn(table).columns[0].kind for table in tables]
            assert kinds.count("positive") <= 10, n


@pytest.mark.parametrize("unit", [1e-300, 1e-170, 1e-40, 1.0, 1e150])
def test_positive_columns_of_any_size(unit):
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"p": unit * rng.lognormal(0, 3, 200), "s": rng.normal(size=200)})
    m = ct.VAE(columns={"p": "positive"}, **SMALL).fit(table)
    pd.testing.assert_frame_equal(m.schema_.decode(m.schema_.encode(table)), table)
    assert np.isfinite(m.score(table))
    far = m.inverse_transform(np.array([[1e3, -1e3], [-1e3, 1e3], [1e3, 1e3]]))
    assert ((far["p"] > 0) & np.isfinite(far["p"])).all()
    assert m.transform(far).shape == (3, 2)


def test_the_density_of_positive_columns_is_of_their_values():
    """Of a change of the unit a density loses its log, and of logarithms themselves nothing."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"p": rng.lognormal(0, 1, 300), "s": rng.normal(size=300)})
    scores = [ct.VAE(**SMALL).fit(t).score_samples(t) for t in (table, table.assign(p=100 * table["p"]))]
    np.testing.assert_allclose(scores[1], scores[0] - math.log(100), atol=2e-3)
    logs = (
        ct.VAE(**SMALL)
        .fit(table.assign(p=np.log(table["p"])))
        .score_samples(table.assign(p=np.log(table["p"])))
    )
    np.testing.assert_allclose(scores[0], logs - np.log(table["p"]), atol=2e-3)
    gappy = table.mask(rng.random(table.shape) < 0.2)
    assert np.isfinite(ct.VAE(**SMALL).fit(gappy).score_samples(gappy)).all()


def test_gaps_of_positive_columns_are_filled_with_positive_numbers():
    rng = np.random.default_rng(0)
    z = rng.normal(size=500)
    table = pd.DataFrame({"price": np.exp(z), "twice": 2 * np.exp(z + 0.1 * rng.normal(size=500)), "z": z})
    gappy = table.mask(rng.random(table.shape) < 0.2)
    m = ct.VAE(latent_dim=1, hidden=(32,), max_epochs=60, random_state=0).fit(gappy)
    filled = m.reconstruct(gappy)
    assert (filled[["price", "twice"]] > 0).all(axis=None)
    gone = gappy["twice"].isna() & gappy["price"].notna()
    assert np.corrcoef(np.log(filled["twice"][gone]), np.log(table["twice"][gone]))[0, 1] > 0.8


def heard(fit):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit()
    return [str(warning.message) for warning in caught]


def test_a_value_that_makes_up_the_variance_is_named():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"income": rng.normal(50, 10, 200), "tails": rng.standard_t(3, 200)})
    assert not heard(lambda: ct.VAE(**SMALL).fit(table))
    table.loc[[17, 40], "income"] = [999_999.0, np.nan]
    (said,) = heard(lambda: ct.VAE(**SMALL).fit(table))
    assert "'income' holds 999999 in row 17 (from 0), which is 92% of the variance of its logarithms" in said
    (said,) = heard(lambda: ct.VAE(columns={"income": "continuous"}, **SMALL).fit(table))
    assert "'income' holds 999999 in row 17 (from 0), which is 99% of its variance and leaves" in said
    table["income"] = np.where(np.arange(200) == 17, np.nan, table["income"])
    assert not heard(lambda: ct.VAE(**SMALL).fit(table))
    days = pd.DataFrame(
        {"when": pd.date_range("2026-01-01", periods=200).to_series().sample(frac=1, random_state=0).values}
    )
    assert not heard(lambda: ct.VAE(**SMALL).fit(days))
    days.loc[3, "when"] = pd.Timestamp("1700-01-01")
    (said,) = heard(lambda: ct.VAE(**SMALL).fit(days))
    assert "'when' holds 1700-01-01 00:00:00 in row 3" in said


@pytest.mark.parametrize(
    "draw, alarms",
    [
        (lambda rng: rng.normal(size=200), 0),
        (lambda rng: rng.standard_t(3, size=200), 0),
        (lambda rng: rng.standard_t(2, size=200), 3),
        (lambda rng: np.where(rng.random(200) < 0.03, rng.exponential(size=200), 0.0), 12),
        (lambda rng: np.where(rng.random(200) < 0.02, 10.0, 1.0) * rng.normal(size=200), 0),
        (lambda rng: rng.choice([0.0, 0.5, 1.5], p=[0.9, 0.05, 0.05], size=200), 0),
        (lambda rng: np.where(np.arange(200) == 7, -999, rng.normal(0, 10, size=200)), 100),
        (lambda rng: np.where(np.arange(200) < 5, -999, rng.normal(0, 10, size=200)), 100),
        (lambda rng: np.where(np.arange(200) == 7, 999_999, rng.integers(20, 60, size=200)), 100),
        (lambda rng: np.where(np.arange(200) == 7, 1e200, rng.normal(size=200)), 100),
    ],
)
def test_outliers_are_named_and_tails_are_not(draw, alarms):
    """How many of 100 seeds are warned of: all of those with sentinels, and few of those with long tails."""
    found = 0
    for seed in range(100):
        table = pd.DataFrame({"x": draw(np.random.default_rng(seed))})
        schema = Schema.learn(table)
        found += len(heard(lambda t=table, s=schema: warn_of_outliers(s.encode(t), s)))
    assert found == 100 if alarms == 100 else found <= alarms


def test_columns_that_name_rows_are_named():
    rng = np.random.default_rng(0)
    size = rng.normal(size=100)
    texts = [f"n{i}" for i in range(100)]
    for column, words in (
        (range(100), "'id' numbers the rows"),
        (np.arange(1000.0, 1100.0), "'id' numbers the rows"),
        (texts, "'id' holds another text in each row"),
        ([*texts[:99], "n0"], None),
        (np.random.default_rng(1).permutation(100) + 7, "'id' numbers the rows"),
        (np.append(np.arange(99), 7), None),
        (np.arange(0, 200, 2), None),
        (np.arange(0.0, 10.0, 0.1), None),
    ):
        said = heard(lambda c=column: ct.VAE(**SMALL).fit(pd.DataFrame({"id": c, "size": size})))
        assert [words in line for line in said] == ([True] if words else [])
    assert not heard(
        lambda: ct.VAE(columns={"id": "continuous"}, **SMALL).fit(
            pd.DataFrame({"id": range(100), "size": size})
        )
    )
    few = pd.DataFrame({"city": ["Rom", "Riga", "Oslo", "Bern"], "size": size[:4]})
    assert not heard(lambda: ct.VAE(**SMALL).fit(few))


def test_values_that_make_up_the_scale_of_an_array_are_named():
    rng = np.random.default_rng(0)
    plain = rng.normal(size=(300, 5))
    far = plain.copy()
    far[7, 3] = 1e6
    (said,) = heard(lambda: ct.VAE(**SMALL).fit(far))
    assert said.startswith("column 3 holds 1e+06 in row 7 (from 0), which is 100% of the variance of all")
    far[7, 3] = np.nan  # as it says
    assert not heard(lambda: ct.VAE(missing="mask", **SMALL).fit(far))
    edge = np.c_[plain, np.zeros(300)]
    edge[9, 5] = 1.0  # all of its column's variance, and little of the items'
    flag = np.c_[rng.random(300) < 0.02, 0.01 * plain]  # a rare event is no mistake
    ink = rng.choice([0, 128, 255], p=[0.94, 0.005, 0.055], size=(300, 64))
    for X in (ink.astype(np.uint8), ink / 255.0):
        assert not heard(lambda X=X: ct.VAE(**SMALL).fit(X))
    wide = np.c_[1e4 * plain, rng.normal(size=300)]
    wide[7, 5] = -999.0  # beside columns of that size nothing, and of its own scale all
    assert not any("-999" in line for line in heard(lambda: ct.VAE(**SMALL).fit(wide)))
    (said,) = heard(lambda: ct.VAE(scale="feature", **SMALL).fit(wide))
    assert said.startswith("column 5 holds -999 in row 7 (from 0), which is 100% of its variance")
    assert not heard(lambda: ct.VAE(scale="none", **SMALL).fit(wide))
    for X in (plain, edge, flag, rng.standard_t(3, (300, 5)), rng.poisson(2.0, (300, 5)) + 0.5):
        assert not heard(lambda X=X: ct.VAE(**SMALL).fit(X))
    holes = np.where(rng.random((300, 5)) < 0.01, -999.0, plain)
    (said,) = heard(lambda: ct.VAE(**SMALL).fit(holes))
    assert f"holds -999 in row {np.flatnonzero((holes == -999).any(1))[0]} (from 0)" in said
    assert f"and in {(holes == -999).sum() - 1} more" in said


def test_two_values_of_which_one_is_rare_are_no_outliers():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"tax": rng.choice([0.19, 0.07], 600, p=[0.95, 0.05]), "x": rng.normal(size=600)})
    assert not heard(lambda: ct.VAE(**SMALL).fit(table))


def test_constant_columns_of_arrays_are_named_beside_gaps():
    X = np.random.default_rng(0).normal(size=(60, 3))
    X[:, 1] = 2.0
    X[::7, 1] = X[:9, 0] = np.nan
    (said,) = heard(lambda: ct.VAE(missing="mask", **SMALL).fit(X))
    assert said.startswith("column 1 (from 0) is constant")


def test_zeros_and_ones_beside_large_numbers_are_named():
    rng = np.random.default_rng(0)
    income = rng.normal(50_000, 20_000, 300)
    flags = rng.random((300, 3)) < [0.5, 0.2, 0.9]
    (said,) = heard(lambda: ct.VAE(**SMALL).fit(np.c_[income, flags]))
    assert said.startswith("columns 1, 2 and 3 (from 0) will hardly count")
    rare = np.c_[rng.integers(0, 256, 300), rng.random(300) < 0.01]  # as a pixel at the edge has them
    for X in (rare, np.c_[3 * income / 20_000, flags]):
        assert not heard(lambda X=X: ct.VAE(**SMALL).fit(X))


@pytest.mark.parametrize("library", ["pandas", "polars", "stream"])
def test_columns_that_are_left_out_are_no_part_of_the_model(library, tmp_path):
    rng = np.random.default_rng(0)
    bare = pd.DataFrame({"size": rng.normal(size=60), "kind": np.repeat(["a", "b", "c"], 20)})
    names = pd.DataFrame({"id": [f"n{i}" for i in range(60)]})
    names["both"] = {"pandas": [1j] * 60, "polars": [[1]] * 60, "stream": [f"m{i}" for i in range(60)]}[
        library
    ]
    whole = pd.concat([names, bare], axis=1)
    if library == "polars":
        bare, whole = pl.from_pandas(bare), pl.from_pandas(whole)
    elif library == "stream":
        for name, table in (("whole", whole), ("bare", bare)):
            table.to_parquet(tmp_path / f"{name}.parquet")
        bare, whole = (ct.stream(tmp_path / f"{name}.parquet") for name in ("bare", "whole"))
    columns = {"id": "drop", "both": "drop"}
    model = ct.VAE(columns=columns, **SMALL)
    assert not heard(lambda: model.fit(whole))
    assert model.feature_names_in_.tolist() == ["size", "kind"] == model.schema_.names
    kept = ct.load(model.save(tmp_path / "run"))
    twin = ct.VAE(**SMALL).fit(bare)
    for fitted in (model, kept):  # with these columns or without
        np.testing.assert_array_equal(fitted.transform(whole), twin.transform(bare))
        np.testing.assert_array_equal(fitted.transform(bare), twin.transform(bare))
    assert list(kept.sample(3).columns) == ["size", "kind"]
    with pytest.raises(PlanError, match="no column 'od'"):
        ct.VAE(columns={"od": "drop"}, **SMALL).fit(whole)
    with pytest.raises(DataError, match="all of whose columns are dropped"):
        ct.VAE(columns=dict.fromkeys(whole.columns, "drop"), **SMALL).fit(whole)


def test_what_is_refused_or_warned_of_is_left_out_as_it_says():
    table = pd.DataFrame({"a b's": [f"n{i}" for i in range(1100)], "one": 1.0, "size": np.arange(1100) % 7})
    with pytest.raises(DataError, match="1,100 different") as refused:
        ct.VAE(**SMALL).fit(table)
    said = re.search(r"columns=(\{.*\})", str(refused.value))
    columns = ast.literal_eval(said[1])
    (line,) = heard(lambda: ct.VAE(columns=columns, **SMALL).fit(table))
    columns |= ast.literal_eval(re.search(r"columns=(\{.*\})", line)[1])
    assert columns == {"a b's": "drop", "one": "drop"}
    assert not heard(lambda: ct.VAE(columns=columns, **SMALL).fit(table))
    assert as_column_options(line).endswith("drop it (--column one=drop)")
    words = shlex.split(as_column_options(str(refused.value)).partition("(")[2][:-1])
    assert words == ["--column", "a b's=drop"]


@given(
    st.integers(0, 6),
    st.sampled_from(["float64", "float32", "Float64", "object"]),
    st.integers(-4, 8),
    st.booleans(),
)
def test_numbers_come_back_with_as_many_digits_as_they_had(digits, dtype, size, gaps):
    rng = np.random.default_rng(digits + 10 * size + 40)
    assume(dtype != "float32" or digits + size <= 5)  # it holds some seven digits
    assume(digits + size >= 2)
    values = np.round(rng.normal(scale=10.0**size, size=50), digits)
    written = pd.Series(values, dtype=dtype if dtype != "object" else None)
    if gaps:
        written[3] = None
    if dtype == "object":
        written = written.map(lambda v: None if v != v else Decimal(f"{v:.{digits}f}"))
    table = pd.DataFrame({"x": written})
    schema = Schema.learn(table)
    (column,) = schema.columns
    assert column.digits == digits or (
        column.digits < digits and (np.round(values, column.digits) == values).all()
    )
    numbers = schema.encode(table)
    noisy = numbers + 0.3 * 10.0**-digits * (rng.random(numbers.shape) - 0.5)
    again = schema.decode(noisy)["x"].to_numpy(dtype=float, na_value=np.nan)
    np.testing.assert_array_equal(again, written.to_numpy(dtype=float, na_value=np.nan))
    assert Schema.from_config(json.loads(json.dumps(schema.config()))) == schema


def test_numbers_that_were_measured_keep_all_their_digits():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"x": rng.normal(size=2000), "large": 1e300 * rng.normal(size=2000)})
    assert [c.digits for c in Schema.learn(table).columns] == [None, 0]
    late = np.append(np.zeros(1500), rng.normal(size=500))
    assert Schema.learn(pd.DataFrame({"x": late})).columns[0].digits is None
    schema = Schema.learn(table)
    pd.testing.assert_frame_equal(schema.decode(schema.encode(table)), table)


def test_what_is_computed_has_the_digits_of_what_it_stands_for():
    rng = np.random.default_rng(0)
    sums = rng.integers(1, 9, 200) * np.round(rng.uniform(0.1, 9, 200), 2)  # 3 * 1.1 is 3.3000000000000003
    assert (np.round(sums, 2) != sums).any()
    (column,) = Schema.learn(pd.DataFrame({"x": sums})).columns
    assert column.digits == 2


def test_no_zero_is_negative():
    table = pd.DataFrame({"x": np.round(np.random.default_rng(0).normal(size=100), 1)})
    schema = Schema.learn(table)
    assert not np.signbit(schema.decode(np.array([[-0.04], [-0.0], [0.04]]))["x"]).any()


@pytest.mark.parametrize("zone", [None, "Asia/Kolkata", "Europe/Berlin"])
@pytest.mark.parametrize("step, grain", [("s", 1), ("min", 60), ("30min", 60), ("h", 3600), ("500ms", None)])
def test_stamps_come_back_as_coarse_as_they_were(step, grain, zone):
    rng = np.random.default_rng(0)
    width = pd.Timedelta(step if step[0].isdigit() else f"1{step}")
    after = pd.to_timedelta(rng.integers(0, 90, 60), unit="h") + rng.integers(0, 99, 60) * width
    stamps = pd.Timestamp("2024-03-30 05:00", tz="UTC") + after
    table = pd.DataFrame({"t": stamps.tz_convert(zone) if zone else stamps.tz_localize(None)})
    schema = Schema.learn(table)
    assert schema.columns[0].grain == grain
    noise = 0.3 * (grain or 0) * (rng.random((60, 1)) - 0.5)
    assert schema.decode(schema.encode(table) + noise).equals(table)


@pytest.mark.parametrize("fitted", ["pandas", "polars"])
def test_what_is_there_stays_as_it_is_whatever_its_type(fitted, tmp_path):
    rng = np.random.default_rng(0)
    n = 200
    table = pd.DataFrame(
        {"amount": np.round(rng.lognormal(3, 1, n)) + 1.0, "degrees": np.round(rng.normal(size=n), 1)}
    )
    table["when"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 900, n), unit="h")
    table["kind"] = np.repeat(["a", "b"], n // 2)
    table.loc[::9, "degrees"] = np.nan
    convert = pl.from_pandas if fitted == "polars" else (lambda frame: frame)
    model = ct.VAE(**SMALL).fit(convert(table))
    new = pd.DataFrame({"amount": [0.25, 0.4, 12.75, 99.49], "degrees": [1.2345, np.nan, -0.5, 3.0]})
    new["when"] = pd.to_datetime("2024-01-01 10:11:12.250")
    new["kind"] = list("abab")
    new.to_parquet(tmp_path / "new.parquet")
    kinds = {
        "as it is": new,
        "polars": pl.from_pandas(new),
        "objects": new.astype(object),
        "nullable": new.convert_dtypes(),
        "milliseconds": new.astype({"when": "datetime64[ms]"}),
        "stream": ct.stream(tmp_path / "new.parquet"),
    }
    for kind in kinds.values():
        full = model.reconstruct(kind)
        full = full.to_pandas() if fitted == "polars" else full
        assert full.iloc[[0, 2, 3]].astype(str).equals(new.iloc[[0, 2, 3]].astype(str))
        assert full["amount"].tolist() == new["amount"].tolist()
        assert np.isfinite(full["degrees"][1])


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_a_time_of_day_stays_in_a_column_of_days(zone):
    days = pd.DataFrame({"day": pd.date_range("2024-03-01", periods=60, tz=zone)})
    schema = Schema.learn(days)
    later = days.iloc[:3] + pd.Timedelta(hours=20)
    unit = later["day"].dt.as_unit("ms").to_frame()  # of another type than the days that were learned
    assert schema.decode(schema.encode(unit), unit)["day"].tolist() == later["day"].tolist()
    assert schema.decode(schema.encode(unit))["day"].tolist() == days["day"][1:4].tolist()


def test_a_path_takes_rows_by_the_names_of_their_values():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": rng.normal(size=60), "id": np.arange(60), "b": rng.choice(["u", "v"], 60)})
    model = ct.VAE(columns={"id": "drop"}, **SMALL).fit(table)
    path = model.interpolate(table.iloc[0], table.iloc[1], steps=3)
    assert (list(path.columns), len(path)) == (["a", "b"], 3)
    for first, last in (
        (table.iloc[[0]], table.iloc[[1]]),
        (table[["b", "a"]].iloc[0], table[["b", "a"]].iloc[1]),
        (table[["a", "b"]].iloc[0].to_numpy(), table[["a", "b"]].iloc[1].tolist()),
        (pl.from_pandas(table)[0], pl.from_pandas(table)[1]),
    ):
        pd.testing.assert_frame_equal(model.interpolate(first, last, steps=3), path)
    with pytest.raises(DataError, match="two rows with the columns a, b"):
        model.interpolate([1.0], [2.0])
    with pytest.raises(DataError, match="two items of one shape"):
        model.interpolate(table[:2], table[2:5])


def spelled(kind):
    rng = np.random.default_rng(0)
    numbers, days = (
        rng.lognormal(7, 1, 300),
        pd.Timestamp("2020-01-01") + pd.to_timedelta(range(300), unit="D"),
    )
    return {
        "thousands": [f"{v:,.2f}" for v in numbers],
        "currency": [f"${v:,.2f}" for v in numbers],
        "code": [f"{v:.2f} EUR" for v in numbers],
        "european": [f"{v:.2f}".replace(".", ",") for v in numbers],
        "percent": [f"{v:.1f}%" for v in numbers],
        "a few gaps": ["?" if i % 20 == 0 else f"{v:.1f}" for i, v in enumerate(numbers)],
        "day first": days.strftime("%d/%m/%Y").tolist(),
        "iso": days.strftime("%Y-%m-%d").tolist(),
        "zip": [f"{v:05d}" for v in rng.integers(1000, 99999, 300)],
        "article": [f"SKU{v}" for v in rng.integers(10_000, 99_999, 300)],
        "model": [f"BMW {v}" for v in rng.integers(100, 999, 300)],
        "number": [f"#{v}" for v in range(300)],
        "phone": [f"555 {a} {b}" for a, b in rng.integers(100, 999, (300, 2))],
        "sku": [str(v) for v in rng.integers(10_000, 99_999, 300)],
        "address": [f"10.0.{a}.{b}" for a, b in rng.integers(0, 255, (300, 2))],
        "security": [f"{a}-{b}-{c}" for a, b, c in rng.integers((100, 10, 1000), (999, 99, 9999), (300, 3))],
        "grade": rng.choice(["1.0", "1.3", "1.7", "2.0"], 300).tolist(),
        "name": [f"n{i}" for i in range(300)],
    }[kind]


@pytest.mark.parametrize(
    "kind, what",
    [
        *(
            (kind, "numbers")
            for kind in ("thousands", "currency", "code", "european", "percent", "a few gaps")
        ),
        *((kind, "dates") for kind in ("day first", "iso")),
        *((kind, None) for kind in ("zip", "sku", "address", "security", "grade", "name")),
        *((kind, None) for kind in ("article", "model", "number", "phone")),
    ],
)
def test_texts_that_spell_numbers_or_dates_are_named(kind, what):
    texts = spelled(kind)
    table = pd.DataFrame({"x": texts, "size": np.random.default_rng(1).normal(size=300)})
    said = heard(lambda: ct.VAE(**SMALL).fit(table))
    assert [f"spell {what}" in line for line in said if "spell" in line] == ([True] if what else [])
    assert not any(
        "spell" in line for line in heard(lambda: ct.VAE(columns={"x": "categorical"}, **SMALL).fit(table))
    )
    if what:
        with pytest.raises(PlanError, match=f"cannot be 'continuous': they spell {what}"):
            ct.VAE(columns={"x": "continuous"}, **SMALL).fit(table)


def test_prices_are_sampled_in_cents_and_above_zero():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"price": np.maximum(np.round(rng.lognormal(-3, 1.5, 400), 2), 0.01)})
    table["degrees"] = np.round(rng.normal(20, 5, 400)).astype(float)
    drawn = ct.VAE(latent_dim=1, max_epochs=5, random_state=0).fit(table).sample(500, random_state=0)
    assert drawn["price"].min() == 0.01
    for name, digits in (("price", 2), ("degrees", 0)):
        assert (np.round(drawn[name], digits) == drawn[name]).all()


def test_columns_of_arrays_that_have_units_of_their_own_are_named():
    rng = np.random.default_rng(0)
    own = rng.normal(size=(200, 6)) * [1, 500, 0.01, 80, 0.02, 3] + [10, 900, 0.1, 200, 0.3, 20]
    (said,) = heard(lambda: ct.VAE(**SMALL).fit(own))
    assert said.startswith("columns 2 and 4 (from 0) will hardly count")
    for scale in ("feature", "global", "none"):
        assert not heard(lambda scale=scale: ct.VAE(scale=scale, **SMALL).fit(own))
    assert not heard(lambda: ct.VAE(**SMALL).fit(pd.DataFrame(own, columns=list("abcdef"))))
    scores = rng.normal(size=(200, 6)) * 10.0 ** -np.arange(6)  # of a PCA: their unit is one
    assert not heard(lambda: ct.VAE(**SMALL).fit(scores))
    paper = np.full((200, 6), 255.0) - (rng.random((200, 6)) < [0.5, 0.5, 0.5, 0.5, 0.5, 0.01])
    assert not heard(lambda: ct.VAE(**SMALL).fit(paper))


@pytest.mark.parametrize("gaps", [0.0, 0.2])
def test_tables_come_back_as_they_went_in(gaps):
    table = mixed(gaps=gaps)
    schema = Schema.from_config(Schema.learn(table).config())
    back = schema.decode(schema.encode(table))
    if gaps:  # pandas has several values for none, and keeps whichever it was given
        back, table = (t.astype(object).where(t.notna(), None) for t in (back, table))
    pd.testing.assert_frame_equal(back, table)


def test_kinds_may_be_said():
    table = mixed()
    asked = {"visits": "categorical", "size": "laplace", "flag": "count", "whole": "student-t"}
    by_name = {c.name: c for c in Schema.learn(table, asked, ("laplace", "student-t")).columns}
    assert by_name["visits"].kind == "categorical"
    assert by_name["visits"].categories == tuple(sorted(set(table["visits"])))
    assert (by_name["size"].kind, by_name["size"].likelihood) == ("continuous", "laplace")
    assert (by_name["flag"].kind, by_name["flag"].categories) == ("count", None)
    with pytest.raises(PlanError, match="did you mean 'visits'"):
        Schema.learn(table, {"visit": "count"})
    with pytest.raises(PlanError, match="cannot be 'counts': did you mean 'count'"):
        Schema.learn(table, {"visits": "counts"})
    with pytest.raises(PlanError, match="holds text"):
        Schema.learn(table, {"color": "count"})
    with pytest.raises(PlanError, match="holds 3 values and cannot be binary"):
        Schema.learn(table, {"color": "binary"})


@pytest.mark.parametrize(
    "column, words",
    [
        ({"a": [None, None]}, "'a' holds no values"),
        ({"a": [1.0, np.inf]}, "'a' is infinite in row 1"),
        ({"a": [f"id-{i}" for i in range(2000)]}, "2,000 different texts"),
    ],
)
def test_columns_that_no_model_can_use_are_named(column, words):
    with pytest.raises(DataError, match=words):
        Schema.learn(pd.DataFrame(column))


def test_all_columns_that_cannot_be_used_are_named_at_once():
    table = pd.DataFrame({"a": [1.0, np.inf], "b": [1.0, 2.0], "c": [1j, 1j], "d": [1, "x"]})
    with pytest.raises(DataError, match=r"'a' is infinite in row 1 .*; nor can 'c' and 'd' be used$"):
        Schema.learn(table)
    with pytest.raises(DataError, match=r"'d' mixes numbers and text: make all its values text, or numbers$"):
        Schema.learn(table[["b", "d"]])


def test_values_that_are_not_known_are_named():
    table = mixed()
    m = ct.VAE(**SMALL).fit(table)
    for name, value, words in (
        ("color", "pink", "'pink', which is not known: it knows 'blue', 'green', 'red'"),
        ("visits", -1, "whole numbers from 0 up are needed"),
        ("size", np.inf, "finite numbers are needed"),
        ("size", np.nan, "'size' of the table has no value in row 0"),
    ):
        bad = table[:5].astype({name: object})
        bad.loc[0, name] = value
        with pytest.raises(DataError, match=words):
            m.transform(bad)
    with pytest.raises(ValueError, match="feature names should match"):
        m.transform(table.drop(columns="size"))
    with pytest.raises(DataError, match="pass a DataFrame"):
        m.transform(np.zeros((3, 9)))


@pytest.mark.parametrize("dtype", ["float16", "float32", "Float32"])
def test_floats_stay_within_their_type(dtype):
    rng = np.random.default_rng(0)
    size = 0.99 * float(np.finfo(dtype.lower()).max)
    table = pd.DataFrame({"a": rng.uniform(-1, 1, 300) * size, "b": rng.choice(["x", "y"], 300)})
    made = ct.VAE(**SMALL).fit(table.astype({"a": dtype})).sample(2000, random_state=0)
    assert made["a"].dtype == dtype
    assert np.isfinite(made["a"].to_numpy(dtype=float)).all()


def test_names_that_are_numbers_come_back_as_such(tmp_path):
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 3)), columns=[0, 1, 7])
    model = ct.VAE(**SMALL).fit(table)
    model.save(tmp_path / "a")
    for made in (model.reconstruct(table), ct.load(tmp_path / "a").sample(3)):
        pd.testing.assert_index_equal(made.columns, table.columns)


def test_what_pandas_cannot_make_again_is_refused():
    import pyarrow as pa

    kind = pd.ArrowDtype(pa.dictionary(pa.int32(), pa.string()))
    table = pd.DataFrame({"a": np.arange(40) / 7, "b": pd.Series(["u", "v"] * 20, dtype=kind)})
    with pytest.raises(DataError, match=r"column 'b' has the type dictionary.*astype\('category'\)"):
        ct.VAE(**SMALL).fit(table)
    table["b"] = table["b"].astype("category")
    assert ct.VAE(**SMALL).fit(table).sample(2)["b"].dtype.categories.tolist() == ["u", "v"]


@pytest.mark.parametrize(
    ("names", "words"),
    [
        (pd.MultiIndex.from_tuples([("a", "u"), ("a", "v")]), "have 2 levels: make one"),
        (["a", "a"], "column 'a' is there twice"),
    ],
)
def test_names_of_columns_that_are_none(names, words):
    with pytest.raises(DataError, match=words):
        ct.VAE(**SMALL).fit(pd.DataFrame(np.random.default_rng(0).normal(size=(20, 2)), columns=names))


def test_categories_that_are_none_are_named():
    dates = pd.Categorical(pd.date_range("2020-01-01", periods=20))
    with pytest.raises(DataError, match="column 'b' holds '2020-01-01 00:00:00', which cannot be a category"):
        ct.VAE(**SMALL).fit(pd.DataFrame({"a": np.arange(20) / 7, "b": dates}))


def test_new_rows_of_numbers_vary_as_rows_do():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"a": 10 * rng.normal(size=400), "b": rng.normal(size=400) + 3})
    m = ct.VAE(latent_dim=1, max_epochs=5, random_state=0).fit(table)
    new, means = (m.sample(2000, random_state=0, observation_noise=noise) for noise in (None, False))
    assert ((new.std() / table.std()).between(0.8, 1.2)).all()
    assert (means.std() < 0.8 * new.std()).any()


def test_fewer_rows_than_dimensions_have_fewer():
    X = np.random.default_rng(0).normal(size=(30, 500))
    assert ct.VAE(max_epochs=1, random_state=0).fit(X).latent_dim_ < 30


def test_a_constant_column_warns():
    table = pd.DataFrame({"a": np.arange(30.0) / 7, "b": np.ones(30)})
    with pytest.warns(UserWarning, match="column 'b' is constant"):
        ct.AE(**SMALL).fit(table)


@pytest.mark.parametrize("gaps", [0.0, 0.2])
@pytest.mark.parametrize("recipe", ["ae", "vae", "iwae", "denoising-ae", "contractive-ae", "beta-vae"])
def test_every_recipe_takes_tables(recipe, gaps, tmp_path):
    table = mixed(gaps=gaps)
    m = ct.Autoencoder(recipe=recipe, **SMALL).fit(table)
    assert m.space_.likelihood == "columns"
    assert all(math.isfinite(row["loss"]) for row in m.history_)
    codes = m.transform(table)
    assert np.isfinite(codes).all()
    assert np.isfinite(m.score_samples(table)).all()
    complete = mixed()
    for made in (m.sample(20, random_state=0), m.inverse_transform(codes), m.reconstruct(table)):
        assert list(made.columns) == list(table.columns)
        assert not made.isna().to_numpy().any()
        assert set(made["color"]) <= {"red", "green", "blue"}
        if not gaps:
            assert made.dtypes.equals(complete.dtypes)
    again = ct.load(m.save(tmp_path / "run"))
    pd.testing.assert_frame_equal(again.sample(20, random_state=0), m.sample(20, random_state=0))
    np.testing.assert_array_equal(again.score_samples(table), m.score_samples(table))
    decoder = ct.load_decoder(m.export_decoder(tmp_path / "decoder"))
    pd.testing.assert_frame_equal(decoder.sample(20, random_state=0), m.sample(20, random_state=0))


def test_a_joint_likelihood_is_the_sum_of_its_columns():
    table = mixed()
    schema = Schema.learn(table)
    X = schema.encode(table)
    space = infer_space(X, schema=schema)
    torch.manual_seed(0)
    likelihood = build("vae", space, latent_dim=2, hidden=(8,)).model.likelihood
    px = likelihood(torch.zeros(1, len(X), 2))
    x = space.to_model(torch.from_numpy(X))
    each = px.log_prob(x, per_dim=True)
    torch.testing.assert_close(each.sum(-1), px.log_prob(x))
    # Masses lose nothing by a change of units, densities the log of their scale.
    volume = likelihood.log_volume(space)
    kinds = [column.kind for column in schema.columns]
    for i, kind in enumerate(kinds):
        number = kind in ("continuous", "positive")
        assert float(volume[i]) == (pytest.approx(math.log(X[:, i].std())) if number else 0.0)
    drawn = space.from_model(px.draw(1, Noise(0)).z[0, 0].detach()).numpy()
    assert set(drawn[:, kinds.index("categorical")]) <= {0.0, 1.0, 2.0}
    counts = drawn[:, kinds.index("count")]
    np.testing.assert_allclose(counts, counts.round(), atol=1e-4)


def test_missing_values_count_for_nothing():
    """An item with gaps scores as the item without those values does, given the code."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(50, 4)) * [1, 2, 3, 4]
    space = infer_space(X, scale="feature", gaps=True)
    model = build("vae", space, latent_dim=2, hidden=(8,)).model.eval()
    px = model.likelihood(torch.zeros(1, 50, 2))
    x = space.to_model(torch.from_numpy(X))
    whole = px.log_prob(x, per_dim=True) - model.likelihood.log_volume(space).float()
    holes = torch.from_numpy(rng.random(X.shape) < 0.3)
    got = model.log_likelihood(px, x.masked_fill(holes, torch.nan))
    torch.testing.assert_close(got, whole.masked_fill(holes, 0.0).sum(-1))
    torch.testing.assert_close(model.log_likelihood(px, x), whole.sum(-1))


def test_gradients_do_not_see_what_is_missing():
    X = np.random.default_rng(0).normal(size=(20, 3))
    X[::2, 1] = np.nan
    space = infer_space(X, gaps=True)
    plan = build("vae", space, latent_dim=2, hidden=(8,))
    _, terms = Gradients(plan)(Batch(space.to_model(torch.from_numpy(X))), Noise(0))
    assert bool(terms["nll"].rows.isfinite().all())
    assert all(bool(p.grad.isfinite().all()) for p in plan.model.parameters())


def test_inputs_say_what_is_missing():
    inputs = Inputs(Space((2, 3, 3), layout="chw", gaps=True))
    x = torch.ones(1, 2, 3, 3)
    x[0, 1, 2, 2] = torch.nan
    out = inputs(x)
    assert out.shape[1:] == inputs.shape == (4, 3, 3)
    assert float(out[0, 1, 2, 2]) == 0.0 == float(out[0, 3, 2, 2])
    assert float(out[0, 2:].sum()) == 17.0


def test_inputs_hide_values_in_training_only():
    x = torch.ones(500, 2)
    x[:, 1] = torch.nan
    inputs = Inputs(Space((2,), gaps=True), hide=0.3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        out = inputs(x)
        torch.testing.assert_close(out[:, 0], out[:, 2])  # a value goes with its flag
    assert abs(float(out[:, 2].mean()) - 0.7) < 4 * np.sqrt(0.3 * 0.7 / 500)
    assert not out[:, [1, 3]].any()
    assert bool((inputs.eval()(x)[:, 2] == 1).all())
    whole = Inputs(Space((2,)), hide=0.3)  # nothing can be missing, so that nothing is hidden
    assert bool((whole(torch.ones(500, 2)) == 1).all())
    with pytest.raises(PlanError, match="hide"):
        Inputs(Space((2,), gaps=True), hide=1.0)


def test_gaps_do_not_count_as_dimensions():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(600, 2)) @ rng.normal(size=(2, 8))
    X[rng.random(X.shape) < 0.2] = np.nan
    assert ct.VAE(missing="mask", max_epochs=1, random_state=0).fit(X).latent_dim_ <= 4


@pytest.mark.parametrize("zone", [None, "Europe/Berlin"])
def test_days_come_back_as_days(zone):
    days = pd.DataFrame({"day": pd.date_range("2024-03-01", periods=60, tz=zone), "n": range(60)})
    schema = Schema.learn(days)
    codes = schema.encode(days)
    assert schema.decode(codes).equals(days)
    shifted = schema.decode(codes + np.array([3600.0 * 8, 0.0]))
    assert shifted["day"].equals(days["day"])
    assert not Schema.learn(days.assign(day=days["day"] + pd.Timedelta(minutes=1))).columns[0].days


def test_arrays_with_gaps_need_leave():
    X = np.random.default_rng(0).normal(size=(100, 3))
    X[0, 0] = np.nan
    with pytest.raises(DataError, match="NaN in row 0"):
        ct.VAE(**SMALL).fit(X)
    m = ct.VAE(missing="mask", **SMALL).fit(X)
    assert np.isfinite(m.transform(X)).all()
    assert np.isfinite(m.score_samples(X)).all()


def test_reconstruct_fills_gaps_and_keeps_the_rest():
    rng = np.random.default_rng(0)
    z = rng.normal(size=(2000, 1))
    X = z @ np.ones((1, 4)) + 0.1 * rng.normal(size=(2000, 4)) + [0, 5, 10, 15]
    truth = X.copy()
    holes = rng.random(X.shape) < 0.2
    X[holes] = np.nan
    m = ct.VAE(latent_dim=1, hidden=(32,), missing="mask", max_epochs=30, random_state=0).fit(X)
    filled = m.reconstruct(X)
    np.testing.assert_array_equal(filled[~holes], X[~holes])
    known = holes & (holes.sum(1) < 4)[:, None]
    error = np.sqrt(np.mean((filled - truth)[known] ** 2))
    assert error < 0.3  # the mean of a column is off by 1, and 0.1 is noise
    draws = m.reconstruct(X, n_draws=20, random_state=0)
    assert draws.shape == (20, 2000, 4)
    np.testing.assert_array_equal(draws[0][~holes], X[~holes])
    # Draws scatter about as much as they are wrong.
    assert 0.5 < draws.std(0)[known].mean() / error < 2.0
    np.testing.assert_array_equal(draws, m.reconstruct(X, n_draws=20, random_state=0))


class Sided(nn.Module):
    """Six in ten codes of N(0, 1) say the first of two categories with .62, the others the second, surely."""

    def forward(self, z):
        logits = torch.where(z > 0.2533, 6.0, -0.5)
        return torch.cat([-logits / 2, logits / 2], -1)


def test_the_likeliest_category_is_that_of_all_codes_together():
    """Not what most codes find likeliest."""
    space = Space((1,), "categorical", 2, gaps=True)
    model = build("vae", space, latent_dim=1, hidden=(8,)).model.eval()
    model.likelihood.network = Sided()
    missing = Batch(torch.tensor([[torch.nan]]))
    draws = complete(model, space, missing, k=4000, noise=Noise(0), draws=4000)
    assert float(draws.mean()) == pytest.approx(0.4 * 0.9975 + 0.6 * 0.3775, abs=0.05)
    assert complete(model, space, missing, k=4000, noise=Noise(0)).item() == 1


def test_many_draws_decode_as_many_items_at_once_as_there_are_codes():
    model = build("vae", Space((3,), gaps=True), latent_dim=2, hidden=(8,)).model.eval()
    sizes = []
    model.likelihood.register_forward_hook(lambda module, args, out: sizes.append(len(args[0])))
    batch = Batch(torch.tensor([[1.0, torch.nan, 2.0], [0.0, 0.0, torch.nan]]))
    made = complete(model, model.space, batch, k=8, noise=Noise(0), draws=50)
    assert made.shape == (50, 2, 3)
    assert max(sizes) == 8


@pytest.mark.filterwarnings("ignore:with the code of another")  # columns are independent
def test_counts_are_sampled_as_widely_as_they_lie():
    """Within a few epochs, in which a spread that follows its gradient stays near where it began."""
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"age": rng.integers(18, 80, 600), "visits": rng.poisson(3, 600)})
    m = ct.VAE(latent_dim=1, max_epochs=20, random_state=0).fit(table)
    sampled = m.sample(3000, random_state=0)
    for name in table:
        assert sampled[name].std() == pytest.approx(table[name].std(), rel=0.15)


@pytest.mark.filterwarnings("ignore:with the code of another")  # columns are independent
def test_likelihoods_that_suit_the_data_do_better():
    """Of data made by it, the right likelihood has the greater score; the order is far beyond chance."""
    rng = np.random.default_rng(0)
    n = 2000

    def score(X, likelihood):
        m = ct.VAE(latent_dim=1, hidden=(16,), likelihood=likelihood, max_epochs=15, random_state=0)
        return m.fit(X[: n // 2]).score(X[n // 2 :])

    outliers = rng.standard_t(1.5, size=(n, 3))
    assert score(outliers, "student-t") > score(outliers, "normal") + 0.5
    sharp = rng.laplace(size=(n, 3))
    assert score(sharp, "laplace") > score(sharp, "normal")
    dispersed = rng.negative_binomial(1, 0.1, size=(n, 3))
    assert score(dispersed, "negative-binomial") > score(dispersed, "poisson") + 0.5
    peaks = rng.choice([-5.0, 0.0, 5.0], size=(n, 3)) + 0.1 * rng.normal(size=(n, 3))
    assert score(peaks, "normal-mixture") > score(peaks, "normal") + 1.0


def test_counts_refuse_what_is_none():
    with pytest.raises(DataError, match="counts are whole numbers"):
        ct.VAE(likelihood="poisson", **SMALL).fit(np.random.default_rng(0).normal(size=(30, 2)))


def test_polars_come_back_as_polars():
    table = pl.DataFrame({"a": [1.5, 2.0, None] * 20, "b": ["x", "y", "x"] * 20, "n": [0, 9, 4] * 20})
    schema = Schema.learn(table)
    assert [column.kind for column in schema.columns] == ["continuous", "categorical", "count"]
    assert schema.decode(schema.encode(table)).equals(table)
    sampled = ct.VAE(**SMALL).fit(table).sample(5, random_state=0)
    assert isinstance(sampled, pl.DataFrame)
    assert sampled.schema == table.schema


def test_categories_that_are_missing_are_put_to_the_vote():
    """Two columns that say the same: the mean of categories 0 and 2 would be 1."""
    X = np.random.default_rng(0).integers(0, 2, (600, 1)).repeat(3, 1) * 2
    gappy = X.astype(float)
    gappy[::3, 1] = np.nan
    m = ct.VAE(
        likelihood="categorical", missing="mask", latent_dim=1, hidden=(16,), max_epochs=40, random_state=0
    )
    filled = m.fit(gappy).reconstruct(gappy)
    assert set(np.unique(filled)) == {0.0, 2.0}
    assert (filled == X).mean() > 0.95


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_decimals_are_numbers(library):
    prices = [Decimal("1.50"), None, Decimal("12.25"), Decimal("3.10"), Decimal("80")] * 20
    table = {"price": prices, "color": ["red", "blue", "red", "blue", "red"] * 20}
    table = pl.DataFrame(table) if library == "polars" else pd.DataFrame(table)
    if library == "pyarrow":
        table["price"] = pd.array(prices, dtype=pd.ArrowDtype(pyarrow.decimal128(6, 2)))
    m = ct.VAE(**SMALL).fit(table)
    assert [column.kind for column in m.schema_.columns] == ["positive", "categorical"]
    assert np.isnan(m.schema_.encode(table)[1, 0])
    assert m.schema_.encode(table)[2, 0] == math.log(12.25)
    assert m.sample(5, random_state=0)["price"].dtype == (pl.Float64 if library == "polars" else float)


@pytest.mark.parametrize(
    "values, words",
    [
        (pd.to_timedelta(range(30), unit="h"), "as by .dt.total_seconds()"),
        (pd.period_range("2020", periods=30, freq="M"), "as by .dt.to_timestamp()"),
    ],
)
def test_what_becomes_a_number_is_told_how(values, words):
    with pytest.raises(DataError, match=re.escape(words)):
        ct.VAE(**SMALL).fit(pd.DataFrame({"a": values}))


def test_a_path_between_rows_is_a_table():
    table = mixed()
    m = ct.VAE(**SMALL).fit(table)
    path = m.interpolate(table.iloc[0], table.iloc[1], steps=4)
    assert path.dtypes.equals(table.dtypes)
    assert len(path) == 4


def test_kinds_are_listed_before_training(capsys):
    ct.VAE(verbose=1, **SMALL).fit(mixed())
    said = capsys.readouterr().out
    assert "visits   count        negative-binomial" in said
    assert "price    positive     normal-mixture of logs" in said
    assert "3: blue, green, red" in said


def test_kinds_of_what_is_no_table_are_refused():
    with pytest.raises(PlanError, match="the data are none"):
        ct.VAE(columns={"a": "count"}, **SMALL).fit(np.eye(20))


def test_a_fault_is_not_laid_to_missing_values():
    X = np.random.default_rng(0).normal(size=(60, 3))
    X[::4, 0] = np.nan
    m = ct.VAE(missing="mask", learning_rate=1e30, **SMALL)
    with pytest.warns(UserWarning, match="not finite|too large") as said, pytest.raises(RuntimeError):
        m.fit(X)
    assert not any("data themselves" in str(w.message) for w in said)


# ------------------------------------------------------------------- types, at their ends

START = dt.datetime(2020, 1, 1)


def there_and_back(table):
    schema = Schema.learn(table)
    return schema.decode(schema.encode(table))


@pytest.mark.parametrize("zone", [None, "Europe/Berlin", "UTC"])
@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_stamps_of_polars_come_back(unit, zone):
    stamps = pl.Series(
        [START + dt.timedelta(hours=700 * i) for i in range(7)] + [None], dtype=pl.Datetime(unit)
    )
    table = pl.DataFrame({"x": np.arange(8) * 1.5, "d": stamps.dt.replace_time_zone(zone)})
    assert there_and_back(table).equals(table)
    assert there_and_back(table).dtypes == table.dtypes


@pytest.mark.parametrize("zone", [None, "Europe/Berlin", "UTC"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_stamps_of_pandas_come_back(unit, zone):
    stamps = pd.Series(pd.date_range("2020-01-01", periods=8, freq="700h").as_unit(unit))
    stamps = stamps.dt.tz_localize(zone) if zone else stamps
    stamps[3] = pd.NaT
    table = pd.DataFrame({"x": np.arange(8) * 1.5, "d": stamps})
    pd.testing.assert_frame_equal(there_and_back(table), table)


def test_other_dates_and_ordered_categories_come_back():
    days = [dt.date(2020, 1, 1), None, dt.date(2021, 2, 3)] * 2
    assert there_and_back(pd.DataFrame({"d": days})).d.tolist() == days
    levels = pl.Series(["low", "high", None], dtype=pl.Enum(["low", "mid", "high"]))
    table = pl.DataFrame({"e": levels, "d": days[:3]})
    assert there_and_back(table).equals(table)
    assert there_and_back(table).dtypes == table.dtypes
    pytest.importorskip("pyarrow")
    for kind in ("timestamp[us][pyarrow]", "timestamp[us, tz=Europe/Berlin][pyarrow]"):
        zone = "Europe/Berlin" if "tz" in kind else None
        stamps = pd.Series(pd.date_range("2020-01-01", periods=8, tz=zone)).astype(kind)
        pd.testing.assert_frame_equal(there_and_back(stamps.to_frame("d")), stamps.to_frame("d"))


@pytest.mark.parametrize(
    "dtype, kind",
    [("uint8", pl.UInt8), ("int8", pl.Int8), ("int32", pl.Int32), ("UInt8", pl.UInt8), ("Int32", pl.Int32)],
)
def test_numbers_beyond_a_type_stop_at_its_ends(dtype, kind):
    ends = np.iinfo(dtype.lower())
    inner = [ends.max - 3, ends.min + 1, ends.max - 2]
    table = pd.DataFrame({"x": pd.Series(inner, dtype=dtype), "s": list("abc")})
    for each in (table, pl.DataFrame({"x": pl.Series(inner, dtype=kind), "s": list("abc")})):
        schema = Schema.learn(each)
        beyond = schema.encode(each).astype(float)
        beyond[:, 0] += [1e12, -1e12, 1e12]
        made = schema.decode(beyond)["x"]
        assert made.to_list() == [ends.max, ends.min, ends.max]
        assert made.dtype == each["x"].dtype


@pytest.mark.parametrize("unit, last", [("us", "9999-12-31"), ("ns", "2261-12-31")])
def test_dates_beyond_the_calendar_stop_at_its_end(unit, last):
    stamps = pd.to_datetime(["2020-01-01", last, "2021-01-01"]).as_unit(unit)
    schema = Schema.learn(pd.DataFrame({"d": stamps, "s": list("abc")}))
    made = schema.decode(np.array([[1e15, 0], [-1e15, 1], [0, 2]])).d
    assert made.dtype == stamps.dtype
    assert made.is_monotonic_decreasing is False
    assert made[0] >= pd.Timestamp(last)
    assert made[1] < made[2] == pd.Timestamp(0)


@pytest.mark.parametrize(
    "values, message",
    [
        (["2024-12-31", "20/13/2020", None], "column 'd' holds '20/13/2020' in row 1 .* write it as in 2024"),
        ([5, 6, 7], "column 'd' holds 5 in row 0 .from 0., which is no date"),
    ],
)
def test_what_is_no_date_is_refused_by_its_column(values, message):
    schema = Schema.learn(pd.DataFrame({"d": pd.date_range("2020-01-01", periods=3), "s": list("abc")}))
    with pytest.raises(DataError, match=message):
        schema.encode(pd.DataFrame({"d": values, "s": list("abc")}))


def test_kinds_that_a_column_cannot_have_are_refused_by_what_it_holds():
    table = pd.DataFrame({"d": pd.date_range("2020-01-01", periods=3), "half": [0.5, 1.5, 0.5]})
    with pytest.raises(PlanError, match="'d' holds dates and cannot be 'count'"):
        Schema.learn(table, {"d": "count"})
    assert Schema.learn(table, {"half": "bernoulli"}, ["bernoulli"]).columns[1].categories == (0.5, 1.5)
    with pytest.raises(DataError, match=r"'id' holds whole numbers beyond 2\^53"):
        Schema.learn(pd.DataFrame({"id": [2**60, 2**60 + 1, 3], "s": list("abc")}))


def test_texts_that_look_like_dates_here_are_texts_if_they_were():
    schema = Schema.learn(pd.DataFrame({"d": ["2020-01-01", "2020-01-02", "unknown"]}))
    dates = pd.DataFrame({"d": pd.to_datetime(["2020-01-02", "2020-01-01"])})
    assert schema.encode(dates)[:, 0].tolist() == [1.0, 0.0]


def test_what_is_there_stays_to_the_last_digit_whether_or_not_anything_is_missing():
    table = mixed(100, gaps=0.2)
    table["at"] = pd.date_range("2020-01-01", periods=100, freq="1000000007ns").as_unit("ns")
    vae = ct.VAE(**SMALL).fit(table)
    full = vae.reconstruct(table)
    assert not full.isna().any().any()
    whole = table.dropna().iloc[::-1]  # its own row names, in another order
    pd.testing.assert_frame_equal(vae.reconstruct(whole), whole, check_dtype=False)
    some = whole.copy()
    some.iloc[0, 0] = np.nan
    filled = vae.reconstruct(some)
    assert filled.index.equals(some.index)
    pd.testing.assert_frame_equal(filled.iloc[1:], whole.iloc[1:], check_dtype=False)
    assert (filled["at"] == whole["at"]).all()
    for draw in vae.reconstruct(some, n_draws=2, random_state=0):
        assert draw.index.equals(some.index)
        assert (draw["at"] == whole["at"]).all()
    assert vae.project(some).index.equals(some.index)
    frame = pl.from_pandas(table[["size", "at"]].reset_index(drop=True))
    again = ct.VAE(**SMALL).fit(frame).reconstruct(frame)
    assert (again["at"] == frame["at"]).all()
    assert again["size"].null_count() == 0


def test_arrays_of_a_table_with_positive_columns_are_in_its_units():
    rng = np.random.default_rng(0)
    table = pd.DataFrame({"price": rng.lognormal(5, 1, 200), "size": rng.normal(size=200)})
    m = ct.VAE(latent_dim=1, hidden=(8,), max_epochs=3, random_state=0).fit(table)
    assert m.schema_.columns[0].logged
    X = table.to_numpy().copy()
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        np.testing.assert_array_equal(m.transform(X), m.transform(table))
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        np.testing.assert_array_equal(m.score_samples(torch.from_numpy(X)), m.score_samples(table))
    with pytest.raises(DataError, match="items have shape"):
        m.transform(X[:, :1])


def test_a_table_of_pyarrow_is_that_of_pandas():
    import pyarrow as pa

    table = pd.DataFrame({"a": [1.5, 2.0, 0.5] * 20, "b": ["x", "y", "x"] * 20, "n": [0, 9, 4] * 20})
    m = ct.VAE(**SMALL).fit(pa.table(table))
    assert m.space_.schema.names == ["a", "b", "n"]
    np.testing.assert_array_equal(m.transform(pa.table(table)), m.transform(table))


def test_a_sparse_column_is_refused_with_what_makes_it_dense():
    table = pd.DataFrame({"a": [0.0, 1.0] * 20, "b": ["x", "y"] * 20}).astype(
        {"a": pd.SparseDtype("float", 0)}
    )
    with pytest.raises(DataError, match=r"pass X\['a'\]\.sparse\.to_dense\(\) in its place"):
        ct.VAE(**SMALL).fit(table)


@pytest.mark.parametrize("dtype", [">f8", np.longdouble])
def test_numbers_of_another_order_and_longer_ones_are_float64(dtype):
    X = np.random.default_rng(0).normal(size=(40, 3))
    m = ct.VAE(**SMALL).fit(X)
    np.testing.assert_array_equal(m.transform(X.astype(dtype)), m.transform(X), strict=True)


# ------------------------------------------------------------------- values that are nearly something else


@pytest.mark.parametrize(("n", "stray"), [(15, "?"), (15, "n.d."), (150, "-"), (150, "Total")])
def test_a_cell_that_is_no_number_is_named(n, stray):
    table = pd.DataFrame({"a": np.arange(n + 1) % 7, "b": [str(i) for i in range(n)] + [stray]})
    (line,) = [one for one in heard(lambda: ct.VAE(**SMALL).fit(table)) if "spell" in one]
    assert f"but for {stray!r}: leave such cells empty" in line


def test_categories_that_are_mostly_numbers_are_categories():
    table = pd.DataFrame({"a": np.arange(80) % 7, "b": ["1", "2", "3", "4+"] * 20})
    assert not [one for one in heard(lambda: ct.VAE(**SMALL).fit(table)) if "spell" in one]


@pytest.mark.parametrize(
    ("texts", "values"), [(["True", "False", "maybe"], [True, False]), (["1.5", "2.5", "x"], [1.5, 2.5])]
)
def test_texts_are_known_again_where_all_of_them_look_like_something_else(texts, values):
    m = ct.VAE(**SMALL).fit(pd.DataFrame({"a": np.arange(60) % 7, "c": texts * 20}))
    given = [pd.DataFrame({"a": [1, 2], "c": those}) for those in (values, [str(v) for v in values])]
    np.testing.assert_array_equal(*(m.transform(table) for table in given))


def test_whole_numbers_of_any_size_are_told_apart_or_refused():
    table = pd.DataFrame({"a": np.arange(60) % 7, "b": [10**21 + i for i in range(60)]})
    with pytest.raises(DataError, match=r"whole numbers beyond 2\^53"):
        ct.VAE(**SMALL).fit(table)


def test_dates_with_times_may_be_objects():
    hours = [dt.datetime(2020, 1, 1) + dt.timedelta(hours=i) for i in range(60)]
    table = pd.DataFrame({"a": np.arange(60) % 7, "b": pd.Series(hours, dtype=object)})
    made = ct.VAE(**SMALL).fit(table).sample(3, random_state=0)
    assert made["b"].between("2019", "2021").all()


def test_a_time_zone_that_has_no_name_is_refused():
    stamps = pd.date_range("2020", periods=60, tz="dateutil/Europe/Berlin")
    with pytest.raises(DataError, match=r"cannot make again by its name: .*tz_convert\('UTC'\)"):
        ct.VAE(**SMALL).fit(pd.DataFrame({"a": np.arange(60) % 7, "b": stamps}))
