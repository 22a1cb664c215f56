"""The files of a run: tensors and texts, with sums that tell whether they are as they were written."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from chartae import __version__
from chartae.core.interrupts import interruptible

if TYPE_CHECKING:
    from torch import Tensor

__all__ = [
    *("CHECKPOINT", "CONFIG", "FILES", "FORMAT", "HISTORY", "LOCK", "PICTURES", "REPORT", "SOURCE", "TIMES"),
    "WEIGHTS",
]

FORMAT = 1
CONFIG, WEIGHTS, HISTORY = FILES = ("config.json", "model.safetensors", "history.jsonl")
TIMES = ("seconds", "rows_per_second")  # of an epoch: the same fit takes another time each time
#: What commands say of a run beside it: of its data; and what it makes and is worth.
SOURCE, REPORT, PICTURES = (
    "source.json",
    ("report.html", "report.json"),
    ("samples.png", "reconstructions.png"),
)
CHECKPOINT, LOCK = "checkpoint.safetensors", ".lock"


def written(config: Mapping[str, Any]) -> str:
    stamp = {"format": FORMAT, "chartae": __version__}
    return json.dumps({**stamp, **config}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def lines(history: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in history)


def epochs(text: str) -> list[dict[str, Any]]:
    history = [json.loads(line) for line in text.splitlines()]
    if not all(isinstance(row, dict) for row in history):
        raise ValueError("it holds other things than epochs")
    return history


def sums_of(config: Any, history: Any) -> list[str]:
    """Sum up what the two texts say, however they are laid out, but for how long it took."""
    timeless = [{name: value for name, value in row.items() if name not in TIMES} for row in history]
    return [f"{zlib.crc32(json.dumps(values, sort_keys=True).encode()):08x}" for values in (config, timeless)]


def save(
    file: Path, tensors: Mapping[str, Tensor], texts: Mapping[str, str], beside: Sequence[str] = ()
) -> None:
    """Write tensors and texts with their sum, and the sums of files beside this one.

    The sums are one text, since the order of several differs from file to file.
    """
    from safetensors.torch import save_file

    apart = separate(tensors)
    save_file(apart, file, {**texts, "checksum": " ".join([_checksum(apart, texts), *beside])})


def load(file: Path) -> tuple[dict[str, Tensor], dict[str, str], list[str]]:
    from safetensors import safe_open

    # torch would take the exception of a Ctrl-C for a fault of the file.
    with interruptible(terminate=False) as wish, safe_open(file, "pt") as opened:
        texts = dict(opened.metadata() or {})
        tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no mapping
    wish.leave("stopped while a run was read")
    # Where there are no texts, another program has written the file.
    known = bool(texts)
    own, *beside = texts.pop("checksum", "none").split()
    if known and own != _checksum(tensors, texts):
        raise ValueError("its checksum is not that of what it holds")
    return tensors, texts, beside


def metadata(file: Path) -> dict[str, str]:
    from safetensors import safe_open

    with safe_open(file, "pt") as opened:
        return opened.metadata() or {}


def _checksum(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> str:
    """Sum up what a file holds, so that a bit that has flipped is seen."""
    import torch

    found = 0
    for name in sorted(texts):
        found = zlib.crc32(f"{name} {texts[name]}".encode(), found)
    for name in sorted(tensors):
        tensor = tensors[name]
        found = zlib.crc32(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode(), found)
        # Strided anew: that of a single value may be anything.
        content: Any = tensor.as_strided((tensor.numel(),), (1,)).view(torch.uint8).numpy()
        found = zlib.crc32(content, found)
    return f"{found:08x}"


def separate(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Give each tensor a storage of its own, as safetensors wants it: tied weights are written twice.

    Parameters
    ----------
    tensors : Mapping of str to Tensor
        Of any shapes, ``(...)``.

    Returns
    -------
    dict of str to Tensor
        The same, on the CPU and contiguous.

    Examples
    --------
    >>> import torch
    >>> from chartae.models.persistence.files import separate
    >>> separate({"a": torch.zeros(2, 3).T})["a"].is_contiguous()
    True
    """
    apart: dict[str, Tensor] = {}
    taken: set[int] = set()
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        apart[name] = tensor.clone() if place in taken else tensor
        taken.add(place)
    return apart
