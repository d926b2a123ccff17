"""The errors that a user can cause, each with one clear line that says what to do.

Every message has the form ``<layer path>: <what> (<value>) exceeds <limit> (<limit value>) of <hw config>. <remedy>.``
where it is about a limit, and otherwise says what, where, and one remedy. All of them end the command line with
exit code 2; anything else that reaches the top is a bug in lava_casc (exit code 1).
"""


class CascError(Exception):
    """Wrong usage, an unsupported model, or a value out of range: the user's to mend, never a bug in lava_casc."""


class UnsupportedModelError(CascError):
    """A model holds a layer or an operation that cannot be taken to spikes exactly."""


class RangeError(CascError):
    """A value lies outside what the network or the hardware can hold. Nothing is ever clipped to fit."""


class InvalidNetworkError(CascError):
    """An integer network contradicts itself: shapes that do not meet, an unknown source, a wrong dtype."""


class CheckpointError(CascError):
    """A checkpoint is missing, damaged, foreign, or would need pickled code to load."""


class NetworkFileError(CascError):
    """A network file is missing, damaged, foreign, of another version, or cannot be written."""


class HardwareConfigError(CascError):
    """A hardware configuration is missing or holds a wrong key, type or unit."""


class DataError(CascError):
    """A data set is missing or damaged, or does not fit the network."""


class MissingDependencyError(CascError):
    """A package that this command needs is not installed."""


class ClusterError(CascError):
    """A job cannot be made, submitted, found or collected."""


def exceeds(path: str, what: str, value: object, limit: str, limit_value: object, remedy: str) -> RangeError:
    """Return the `RangeError` of one exceeded limit, worded alike everywhere.

    Parameters
    ----------
    path : str
        Of the layer.
    what : str
    value : object
    limit : str
    limit_value : object
    remedy : str
        One sentence.

    Returns
    -------
    RangeError
    """
    return RangeError(f"{path}: {what} ({value}) exceeds {limit} ({limit_value}). {remedy}.")


def first_line(error: BaseException) -> str:
    """Return the first line of what a library says of a failure, cut to a length that fits into a message.

    Parameters
    ----------
    error : BaseException

    Returns
    -------
    str
    """
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
