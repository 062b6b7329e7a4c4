"""Errors and warnings of geomiam.

Each message states the problem, the value found, and the call that corrects it. Classes also derive from the
exception that Python has for the same case, so ``except ValueError`` works as usual.
"""

from __future__ import annotations

import sys
import unicodedata
import warnings

MOST_CHARACTERS = 4_000
"""Limit of a message, since a name from a file may be longer than a screen."""
TURNS_TEXT = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Invisible characters that reverse the text after them on a screen."""


def printable(text: str) -> str:
    """Return a text with escapes in place of control characters, which could change a terminal.

    Lone surrogates are escaped too: they cannot be encoded. Line breaks and tabs stay.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(c) for c in text)


def warn(message: str | Warning, category: type[Warning] = UserWarning) -> None:
    """Issue a warning at the line outside geomiam that caused it.

    The stack level is computed, since the number of decorators and helper functions in between varies.
    """
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_inside(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, category, stacklevel=level)


def _is_inside(module: str) -> bool:
    return module.partition(".")[0] in ("geomiam", "contextlib")


def _escaped(character: str) -> str:
    unsafe = unicodedata.category(character) in ("Cc", "Cs") or character in TURNS_TEXT
    return ascii(character)[1:-1] if unsafe and character not in "\n\t" else character


class GeomiamError(Exception):
    """Base of all errors raised by geomiam."""

    def __str__(self) -> str:
        """Return the printable message; ``KeyError`` alone would return its ``repr``."""
        text = printable(Exception.__str__(self))
        return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]} …"


class SettingError(GeomiamError, ValueError):
    """An argument, an option or a field of a configuration has a value that is not allowed."""


class InputNotFound(GeomiamError, FileNotFoundError):
    """A file or store that should be read does not exist."""


class UnreadableFile(GeomiamError, OSError):
    """A file is a device, too large or damaged, or access to it is refused."""


class NameRefused(GeomiamError, ValueError):
    """A name of a variable, dim, group, modality, source or species is empty or not portable."""


class SchemaError(GeomiamError, ValueError):
    """A catalog or schema contradicts itself or the rules of its keys."""


class MissingVariable(GeomiamError, KeyError):
    """A required predictor is not in the data."""


class VariableMismatch(GeomiamError, ValueError):
    """A predictor has other units, dims or labels than in the schema."""


class SelectionError(GeomiamError, ValueError):
    """A selection has an unknown name, such as ``using=``, ``groups=`` or ``species=``."""


class GridError(GeomiamError, ValueError):
    """A dataset has no usable grid, no CRS, or another grid than required."""


class OccurrenceError(GeomiamError, ValueError):
    """An occurrence table cannot be placed on the grid."""


class LabelError(GeomiamError, ValueError):
    """Labels cannot train or score a model."""


class OutputExists(GeomiamError, FileExistsError):
    """The output exists, and ``overwrite`` is False."""


class ResumeRefused(GeomiamError):
    """An unfinished map of another model, input or settings exists at the path."""


class ArtifactError(GeomiamError, ValueError):
    """A saved model is damaged, of another format, or larger than its bounds."""


class BackboneError(GeomiamError, ValueError):
    """A backbone fits no variable, or its output differs from :class:`geomiam.Backbone`."""


class MemoryRefused(GeomiamError, MemoryError):
    """A task would need more memory than the limit; it was not started."""


class SourceError(GeomiamError):
    """A STAC catalog cannot be reached, returns invalid data, or has contradictory metadata."""


class NoScenes(SourceError):
    """A search found no readable scene."""


class AssetFailed(SourceError):
    """A file of a scene is missing, damaged or refused; the scene and the file are named."""


class AssetsFailed(UserWarning):
    """Files of scenes could not be read; their pixels are NaN."""


class MissingModality(UserWarning):
    """All variables of a modality are absent; the model predicts without them."""


class DoubtfulKind(UserWarning):
    """The inferred kind of a variable may be wrong; the message has the call that sets it."""


class OutsideTrainingRange(UserWarning):
    """Many cells have predictors outside the training range."""


class MissingLabels(MissingModality):
    """Some labels of a predictor, such as months, are absent; they count as missing."""


class OccurrencesLeftOut(UserWarning):
    """Occurrences could not be used; the message counts them by reason."""


class FewGroups(UserWarning):
    """Many predicted cells have less than half of the groups that training sites had."""


class RecordsMerged(UserWarning):
    """Records of a species in one cell count once."""


class RecordsRemoved(UserWarning):
    """Records were removed by cleaning or thinning; the message counts them."""


class NamesJoined(UserWarning):
    """Species names that differ by case or blanks were joined."""


class TrainedOnTheseSites(UserWarning):
    """A model is scored on its training sites, so the scores are too high."""


class DeviceError(GeomiamError, ValueError):
    """A device, or a precision on it, is not available."""


class LengthError(GeomiamError, ValueError):
    """A length is not a number of kilometres or text such as ``"100 km"``."""


class BlockError(GridError):
    """There are fewer distinct places than spatial blocks are required."""


class CRSAssumed(UserWarning):
    """Coordinates without CRS are interpreted as degrees."""


class GridAssumed(UserWarning):
    """Files lie on several grids, and the grid of one of them is used."""


class SmallerBlocks(UserWarning):
    """The area is smaller than the requested spatial blocks; smaller ones are used."""


class LargerBlocks(UserWarning):
    """Spatial blocks of the requested size hold nearly single places; larger ones are used."""


class OutputRefused(OutputExists):
    """The output would replace an input, another output, or files of other origin."""


class OutputBusy(ResumeRefused):
    """Another process writes the output."""


class TrainingWarning(UserWarning):
    """A model may be poor: short training, few presences, or overfitting.

    ``topic`` is equal for messages that differ only in numbers or species.
    """

    def __init__(self, message: str, topic: str | None = None):
        super().__init__(message)
        self.topic = topic or message


class DoubtfulSource(UserWarning):
    """Values or position of a file probably differ from the catalog."""


class NeverObserved(UserWarning):
    """Predictors have no value at any training site."""


class OtherYear(UserWarning):
    """Embeddings or images are of another year than those that a model was trained with."""


class NoWorkers(UserWarning):
    """The cluster that should do the work has had no worker for a minute; the work waits."""
