"""Everything that geomiam raises on purpose.

Each message states what is wrong, what was found, and the call that mends it. Where Python has an
exception for the same case, the class derives from it too: ``except ValueError`` works as usual.
"""

from __future__ import annotations

import sys
import unicodedata
import warnings

MOST_CHARACTERS = 4_000
"""Of a message; a name from a file may be longer than a screen."""
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
    """Issue a warning at the line outside geomiam that led to it.

    A fixed ``stacklevel`` would have to count the decorators and helpers in between.
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
        """Return the message, safe to print; ``KeyError`` would return its ``repr``."""
        text = printable(Exception.__str__(self))
        return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]} …"


class SettingError(GeomiamError, ValueError):
    """An argument, an option or a field of a configuration has a value that is not allowed."""


class InputNotFound(GeomiamError, FileNotFoundError):
    """A file or store that should be read does not exist."""


class UnreadableFile(GeomiamError, OSError):
    """A file exists, but it is a device, too large, damaged, or access to it is refused."""


class NameRefused(GeomiamError, ValueError):
    """A name of a variable, dim, group, modality, source or species is empty or not portable."""


class SchemaError(GeomiamError, ValueError):
    """A catalog or schema contradicts itself or the rules of its keys."""


class MissingVariable(GeomiamError, KeyError):
    """A predictor that is needed is not in the data."""


class VariableMismatch(GeomiamError, ValueError):
    """A predictor is there, but its units, dims or labels are not those of the schema."""


class SelectionError(GeomiamError, ValueError):
    """``using=``, ``groups=`` or ``species=`` names something that does not exist."""


class GridError(GeomiamError, ValueError):
    """A dataset has no usable grid, no CRS, or not the grid it should have."""


class OccurrenceError(GeomiamError, ValueError):
    """An occurrence table cannot be placed on the grid."""


class LabelError(GeomiamError, ValueError):
    """Labels that no model can be trained or scored on."""


class OutputExists(GeomiamError, FileExistsError):
    """The output is there already and overwriting was not asked for."""


class ResumeRefused(GeomiamError):
    """An unfinished map is there that was begun with another model, input or settings."""


class ArtifactError(GeomiamError, ValueError):
    """A saved model is damaged, of another format, or larger than its bounds."""


class BackboneError(GeomiamError, ValueError):
    """A backbone fits no variable, or does not answer as :class:`geomiam.Backbone` says."""


class MemoryRefused(GeomiamError, MemoryError):
    """A task would need more memory than the limit; nothing was started."""


class SourceError(GeomiamError):
    """A catalogue cannot be asked, answers what it should not, or its metadata contradict themselves."""


class NoScenes(SourceError):
    """A search found nothing that could be read."""


class AssetFailed(SourceError):
    """A file of a scene is missing, damaged or refused; the scene and the file are named."""


class AssetsFailed(UserWarning):
    """Files of scenes that could not be read; their pixels are NaN."""


class MissingModality(UserWarning):
    """A whole modality is absent; predictions are made without it."""


class DoubtfulKind(UserWarning):
    """The inferred kind of a variable may be wrong; the message has the call that settles it."""


class OutsideTrainingRange(UserWarning):
    """Many predictors lie outside the range that the model was trained on."""


class MissingLabels(MissingModality):
    """Some labels of a predictor, such as months, are absent; they count as missing."""


class OccurrencesLeftOut(UserWarning):
    """Occurrences that could not be used, counted by reason."""


class FewGroups(UserWarning):
    """Many predicted cells have less than half of the groups that training sites had."""


class RecordsMerged(UserWarning):
    """Records of a species in one cell count once."""


class NamesJoined(UserWarning):
    """Species names that differ by case or blanks are one species."""


class TrainedOnTheseSites(UserWarning):
    """A model is scored on sites that it was fitted on; the scores are too good."""


class MissingFiles(UserWarning):
    """Files of a data set that are not there for some sites; their values are NaN."""


class DeviceError(GeomiamError, ValueError):
    """A device, or a precision on it, is not available."""


class LengthError(GeomiamError, ValueError):
    """A length is not a number of kilometres or text such as ``"100 km"``."""


class BlockError(GridError):
    """The sites lie at fewer places than blocks are needed."""


class CRSAssumed(UserWarning):
    """Coordinates without CRS were taken as degrees."""


class SmallerBlocks(UserWarning):
    """The area is smaller than the blocks asked for; smaller ones are used."""


class LargerBlocks(UserWarning):
    """Blocks of the size asked for are nearly single places; larger ones are used."""


class OutputRefused(OutputExists):
    """The output would destroy something: an input, another output, or files of other origin."""


class OutputBusy(ResumeRefused):
    """Another writer is at work on the output."""


class TrainingWarning(UserWarning):
    """A fit that may be poor: too short, too few presences, or overfitted.

    ``topic`` is equal for messages that differ in their numbers or species only.
    """

    def __init__(self, message: str, topic: str | None = None):
        super().__init__(message)
        self.topic = topic or message


class DoubtfulSource(UserWarning):
    """A file whose numbers or whose place are probably not what the catalog declares."""


class NeverObserved(UserWarning):
    """Predictors without a value at any training site."""
