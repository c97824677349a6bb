"""What can go wrong through a user's input or surroundings, each with a stable code.

Every message names the thing at fault and says what to do. The codes are listed in docs/codes.md.
"""


class SemivlError(Exception):
    """A fault that a user can mend: a stable code, what is wrong and with what, and the remedy."""

    def __init__(self, code: str, what: str, remedy: str) -> None:
        super().__init__(code, what, remedy)  # all three, so that the error survives pickling
        self.code, self.what, self.remedy = code, what, remedy

    def __str__(self) -> str:
        return f"{self.code} {self.what} {self.remedy}"


class ConfigError(SemivlError):
    """CONF...: an experiment, a setting or a value that cannot be used."""


class DataError(SemivlError):
    """DATA...: an image, a mask, a source folder or a snapshot that cannot be used."""


class StoreError(SemivlError):
    """STORE...: the object store is not there, refuses the credentials, or lacks an object."""


class ServiceError(SemivlError):
    """SERV...: an embedded service that cannot be started, reached or stopped."""


class TrainingError(SemivlError):
    """TRAIN...: a training that cannot start or go on."""


class RegistryError(SemivlError):
    """REG...: a model version, alias or gate decision that cannot be used."""


class ExportError(SemivlError):
    """EXP...: a model that cannot be written for another runtime, or not so that it says the same."""


class DriftError(SemivlError):
    """DRIFT...: new data that cannot be compared with those that a model was trained on."""


class LabelError(SemivlError):
    """LABEL...: a choice of images to label that cannot be made, or an annotation tool's export that cannot be used."""
