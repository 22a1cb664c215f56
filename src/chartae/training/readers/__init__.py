"""Readers: from a name, a file, a folder of images or an object in memory to arrays of numbers."""

from chartae.training.readers.arrays import read_array
from chartae.training.readers.dataset import Dataset
from chartae.training.readers.encoded import encoded_noun, medium_of
from chartae.training.readers.reading import read

__all__ = ["Dataset", "encoded_noun", "medium_of", "read", "read_array"]
