"""chartae learns the manifold that data live on, and tells whether its map can be trusted."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

__all__ = [
    "AE",
    "CVAE",
    "VAE",
    "Autoencoder",
    "Captioner",
    "HeadClassifier",
    "HeadRegressor",
    "ProbabilisticEmbedding",
    "Recipe",
    "TextVAE",
    "WordEmbedding",
    "audit",
    "control_report",
    "intrinsic_dimension",
    "label_efficiency_curve",
    "load",
    "load_decoder",
    "plot",
    "read",
    "recipes",
    "stream",
    "sweep",
]

# Names are imported at first use: `import chartae` must not pay for torch.
_WHERE = {
    "AE": "chartae.estimators.autoencoders",
    "CVAE": "chartae.estimators.autoencoders",
    "VAE": "chartae.estimators.autoencoders",
    "Autoencoder": "chartae.estimators.autoencoders",
    "Captioner": "chartae.estimators.captions",
    "HeadClassifier": "chartae.estimators.heads",
    "HeadRegressor": "chartae.estimators.heads",
    "ProbabilisticEmbedding": "chartae.estimators.embeddings",
    "Recipe": "chartae.models.recipes",
    "WordEmbedding": "chartae.estimators.words",
    "TextVAE": "chartae.estimators.autoencoders",
    "audit": "chartae.audits.report",
    "control_report": "chartae.audits.control",
    "intrinsic_dimension": "chartae.geometry.dimension",
    "label_efficiency_curve": "chartae.estimators.efficiency",
    "load": "chartae.estimators.runs",
    "load_decoder": "chartae.estimators.runs",
    "plot": "chartae.audits.maps",
    "read": "chartae.training.readers",
    "recipes": "chartae.models.recipes",
    "stream": "chartae.training.streams",
    "sweep": "chartae.estimators.sweeps",
}

if TYPE_CHECKING:
    from chartae.audits.control import control_report
    from chartae.audits.maps import plot
    from chartae.audits.report import audit
    from chartae.estimators.autoencoders import AE, CVAE, VAE, Autoencoder, TextVAE
    from chartae.estimators.captions import Captioner
    from chartae.estimators.efficiency import label_efficiency_curve
    from chartae.estimators.embeddings import ProbabilisticEmbedding
    from chartae.estimators.heads import HeadClassifier, HeadRegressor
    from chartae.estimators.runs import load, load_decoder
    from chartae.estimators.sweeps import sweep
    from chartae.estimators.words import WordEmbedding
    from chartae.geometry.dimension import intrinsic_dimension
    from chartae.models.recipes import Recipe, recipes
    from chartae.training.readers import read
    from chartae.training.streams import stream


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'chartae' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
