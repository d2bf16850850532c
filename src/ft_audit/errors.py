"""The mistakes a user can make: each error names the value, where it came from and the fix."""


class UserError(ValueError):
    """A mistake in what the user gave us; the command line prints it and exits with 1."""


class ConfigError(UserError):
    """A configuration, recipe or suite file that cannot mean what it says."""


class DataError(UserError):
    """A data set or suite whose rows cannot be read."""


class ModelError(UserError):
    """A model, tokenizer or adapter that cannot be audited."""


class SaeError(UserError):
    """A dictionary that cannot be read, or does not fit the model."""


class StoreError(UserError):
    """A store that is missing, damaged or made by something else."""


class MissingExtraError(UserError):
    """A verb whose optional packages are not installed."""


class ServiceError(UserError):
    """A service on the network that does not answer, or not as it should."""
