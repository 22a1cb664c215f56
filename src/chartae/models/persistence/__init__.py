"""Run folders: config.json, model.safetensors, history.jsonl, and, until a fit is finished, its checkpoint.

Nothing in them is ever executed. One rule says what a folder holds: where there is a checkpoint, which has
everything in one file, it is the run; otherwise the three files are. A run is begun, replaced and finished by
the exchange or the removal of that one file, so that a folder opens at whatever moment a program was killed.
"""

from chartae.models.persistence.files import FILES, FORMAT, TIMES
from chartae.models.persistence.folders import config_of, is_unfinished, refuse_occupied
from chartae.models.persistence.reading import read_checkpoint, read_run
from chartae.models.persistence.writing import OpenRun, write_run

__all__ = [
    "FILES",
    "FORMAT",
    "TIMES",
    "OpenRun",
    "config_of",
    "is_unfinished",
    "read_checkpoint",
    "read_run",
    "refuse_occupied",
    "write_run",
]
