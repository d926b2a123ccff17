"""Limits of a target, read from ``hw_configs/*.toml``. Every number there has a unit and a source."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lava_casc.configs import read_toml, shipped
from lava_casc.errors import HardwareConfigError

DEFAULT = "loihi2"


class Hardware(BaseModel):
    """What one target can hold.

    Attributes
    ----------
    name : str
        The target's name, used in error messages.
    state_bits : int
        Signed bits of a neuron's state words (potential, bias, threshold) and of a synaptic accumulator.
    weight_bits : int
        Signed bits of a synaptic weight's mantissa.
    weight_exponent_max : int
        The greatest power of two by which the weights of one synapse group can be scaled.
    message_bits : int
        Signed bits of the payload of a graded spike.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(min_length=1)
    state_bits: int = Field(ge=2, le=32)
    weight_bits: int = Field(ge=2, le=16)
    weight_exponent_max: int = Field(ge=0, le=24)
    message_bits: int = Field(ge=2, le=32)


def read_hardware(source: str | Path = DEFAULT) -> Hardware:
    """Read a hardware configuration.

    Parameters
    ----------
    source : str or Path
        The path of a TOML file, or the bare name of one that lava_casc ships (``loihi2``).

    Raises
    ------
    HardwareConfigError
        The file is missing, is no TOML, or has a wrong key or value.
    """
    path = _find(source)
    try:
        return Hardware.model_validate(read_toml(path))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        known = ", ".join(Hardware.model_fields)
        raise HardwareConfigError(f"{path}: {key}: {first['msg']}. Known keys: {known}.") from error


def shipped_configs() -> dict[str, Path]:
    """Return the configurations that lava_casc ships, by name."""
    return shipped("")


def _find(source: str | Path) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    known = shipped_configs()
    if str(source) in known:
        return known[str(source)]
    raise HardwareConfigError(
        f"{source}: no such hardware configuration. Give a TOML file or one of: {', '.join(known)}."
    )
