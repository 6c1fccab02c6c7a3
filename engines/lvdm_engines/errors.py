"""The exception tree: everything a caller can do something about is an `LvdmError`.

    LvdmError
    ├── BundleError          damaged, incomplete or unknown bundle
    ├── CheckpointError      a training checkpoint that cannot be read
    ├── ConfigError          a model configuration that cannot be used
    ├── ExportError          a graph that could not be exported
    ├── BackendError         a backend that cannot run here
    ├── SessionError         wrong feeds, or a run that failed
    │   └── DeviceMemoryError    out of memory; a smaller batch may work
    ├── NumericsError        NaN or infinity in a result
    ├── OptionsError         a request that contradicts itself or the model
    ├── PlanError            a length or mode that no plan can satisfy
    ├── VideoError           a video that cannot be read or written
    ├── WorkError            a work directory that cannot be used
    │   └── OtherRunError        it is in use, or holds another run's clips
    └── TrainingError        a training run that cannot start or go on

A message is one line: what was got, what was expected, what to do next.
"""


class LvdmError(Exception):
    """Anything that went wrong in a way that the message explains."""


class BundleError(LvdmError):
    """A bundle is damaged, incomplete, unknown or newer than this library."""


class CheckpointError(LvdmError):
    """A checkpoint cannot be read, or does not hold what the model needs."""


class ConfigError(LvdmError):
    """A model configuration is malformed or not supported."""


class ExportError(LvdmError):
    """A graph could not be exported, or differs from its source."""


class BackendError(LvdmError):
    """A backend is not usable on this machine."""


class SessionError(LvdmError):
    """Feeds do not fit a graph, or running it failed."""


class DeviceMemoryError(SessionError):
    """A session ran out of host or device memory; a smaller batch may fit."""


class NumericsError(LvdmError):
    """A stage produced NaN or infinity."""


class OptionsError(LvdmError):
    """What the caller asks contradicts itself or the model."""


class PlanError(LvdmError):
    """No plan of clips gives what was asked."""


class VideoError(LvdmError):
    """A video cannot be read, decoded, encoded or written."""


class TrainingError(LvdmError):
    """Training cannot start or cannot go on."""


class WorkError(LvdmError):
    """A work directory cannot be used."""


class OtherRunError(WorkError):
    """A work directory is in use, or holds what another run has left."""
