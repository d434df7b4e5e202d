"""Data sets as tensors: found or fetched, verified, and the same on every machine."""

from .cifar10 import load_cifar10
from .digits_in_scenes import load_digits_in_scenes
from .errors import DamagedDataError, DataError, DownloadError, MissingDataError
from .image_data import ImageData, Split
from .images import load_images
from .pixels import flatten_images, unflatten_images
from .surnames import NameSplit, SurnameData, load_surnames
from .texts import TextData, load_text

__all__ = [
    "DamagedDataError",
    "DataError",
    "DownloadError",
    "ImageData",
    "MissingDataError",
    "NameSplit",
    "Split",
    "SurnameData",
    "TextData",
    "flatten_images",
    "load_cifar10",
    "load_digits_in_scenes",
    "load_images",
    "load_surnames",
    "load_text",
    "unflatten_images",
]
