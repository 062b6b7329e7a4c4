"""Everything geomiam raises on purpose.

Each message says what is wrong, what was found, and the call that mends it.
"""


class GeomiamError(Exception):
    """Base of all errors raised by geomiam."""


class SchemaError(GeomiamError):
    """A catalog or schema contradicts itself or the rules of its keys."""


class MissingVariable(GeomiamError):
    """A predictor that is needed is not in the data."""


class VariableMismatch(GeomiamError):
    """A predictor is there, but its units, dims or labels are not those of the schema."""


class SelectionError(GeomiamError):
    """``using=``, ``groups=`` or ``species=`` names something that does not exist."""


class GridError(GeomiamError):
    """A dataset has no usable grid, no CRS, or not the grid it should have."""


class OccurrenceError(GeomiamError):
    """An occurrence table cannot be placed on the grid."""


class LabelError(GeomiamError):
    """Labels that no model can be trained or scored on."""


class OutputExists(GeomiamError):
    """The output is there already and overwriting was not asked for."""


class ResumeRefused(GeomiamError):
    """An unfinished map is there that was begun with another model, input or settings."""


class ArtifactError(GeomiamError):
    """A saved model is damaged, of another format, or larger than its bounds."""


class EncoderError(GeomiamError):
    """An encoder of one's own fits no variable, or does not answer as :class:`geomiam.Encoder` says."""


class MemoryRefused(GeomiamError):
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


class OccurrencesLeftOut(UserWarning):
    """Occurrences that could not be used, counted by reason."""


class MissingFiles(UserWarning):
    """Files of a data set that are not there for some sites; their values are NaN."""


class DeviceError(GeomiamError, ValueError):
    """A device, or a precision on it, is not available."""
