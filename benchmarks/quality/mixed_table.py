"""A table of people with known structure: all kinds of columns, skew, modes, rare levels, dependence."""

from __future__ import annotations

import numpy as np
import pandas as pd

CITIES = ["Aachen", "Bonn", "Celle", "Dresden", "Emden", "Fulda"]
CITIES += ["Gera", "Hamm", "Ilmenau", "Jena", "Kiel", "Lahr"]
JOBS = ["teacher", "nurse", "engineer", "clerk", "retired"]
FARES = ["none", "family", "single"]


def people(n: int, seed: int = 0, *, missing: float = 0.0) -> pd.DataFrame:
    """Make ``n`` rows: three continuous columns, two counts, two of truth, three of categories, and a date.

    ``missing`` is the share of values that are left out completely at random.
    """
    rng = np.random.default_rng(seed)
    kind = rng.choice(
        3, n, p=[0.5, 0.35, 0.15]
    )  # whether somebody is young, settled or old: not in the table
    age = np.array([28.0, 46.0, 70.0])[kind] + np.array([4.0, 7.0, 5.0])[kind] * rng.standard_normal(n)
    odds = np.array([[3, 3, 3, 2, 0.05], [2, 3, 2, 3, 0.3], [0.2, 0.2, 0.1, 0.2, 6]])[kind]
    job = _pick(rng, odds)
    pay = np.array([10.4, 10.2, 10.9, 10.1, 9.8])[job] + 0.012 * (age - 45) * (job != 4)
    income = np.exp(pay + np.array([0.2, 0.2, 0.35, 0.2, 0.4])[job] * rng.standard_normal(n))  # skewed
    owner = rng.random(n) < 1 / (1 + np.exp(-(age - 45) / 8 - (np.log(income) - 10.3)))
    flat = 55 + 12 * rng.standard_normal(n)
    house = 120 + 25 * rng.standard_normal(n) + 20 * (np.log(income) - 10.3)
    area = np.where(owner, house, flat).clip(15)  # two modes
    children = rng.poisson(np.array([0.3, 1.8, 2.1])[kind])
    doctor = rng.negative_binomial(1.5, 1.5 / (1.5 + np.exp((age - 20) / 30)))
    shares = 1 / np.arange(1, 13) ** 1.3  # the rarest city has 1 % of the people
    city = _pick(rng, np.where(job[:, None] == 2, shares[::-1] + shares, shares))
    fare = _pick(rng, np.stack([np.exp(-children / 2), 0.3 + 0.4 * children, np.full(n, 0.5)], 1))
    day = 200 * rng.beta(2, 5, n) + 365.25 * (rng.random(n) < 0.4 + 0.3 * owner)  # two winters
    table = pd.DataFrame(
        {
            "age": age,
            "income": income,
            "area": area,
            "children": children,
            "visits": doctor,
            "owner": owner,
            "car": (rng.random(n) < np.where(np.isin(city, (0, 1, 2)), 0.35, 0.8)).astype(np.int64),
            "job": np.array(JOBS)[job],
            "city": pd.Categorical(np.array(CITIES)[city], CITIES),
            "fare": np.array(FARES)[fare],
            "since": pd.Timestamp("2022-09-01") + pd.to_timedelta(np.round(day), unit="D"),
        }
    )
    return table.mask(rng.random(table.shape) < missing) if missing else table


def _pick(rng: np.random.Generator, odds: np.ndarray) -> np.ndarray:
    """Draw a level of each row of ``(n, levels)`` odds."""
    cut = odds.cumsum(1) / odds.sum(1, keepdims=True)
    return (rng.random((len(odds), 1)) > cut).sum(1)
