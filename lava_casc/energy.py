"""Energy by a table of constants, read from ``hw_configs/energy/*.toml``. Every number has a unit and a source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lava_casc.configs import explained, read_toml, shipped
from lava_casc.errors import HardwareConfigError

#: What can cost energy.
EVENTS = ("mac", "input_synop", "synop", "graded_synop", "message", "update")


class Picojoule(BaseModel):
    """One constant.

    Attributes
    ----------
    value : float
    unit : {"pJ"}
    source : str
        Where the number is published.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    value: float = Field(ge=0, allow_inf_nan=False)
    unit: Literal["pJ"]
    source: str = Field(min_length=1)


class EnergyTable(BaseModel):
    """What each event costs on one machine. An event without a constant is not counted.

    Attributes
    ----------
    name : str
    about : str
        What machine this is, and what is left out.
    mac : Picojoule, optional
        A multiply-accumulate of the network before conversion. Without it that network has no energy here.
    input_synop : Picojoule, optional
        A synaptic operation of the input: a number of several bits times a weight.
    synop : Picojoule, optional
        A synaptic operation of a spike of one unit: a weight is added.
    graded_synop : Picojoule, optional
        A synaptic operation of a spike that carries a number.
    message : Picojoule, optional
        A spike sent.
    update : Picojoule, optional
        One neuron in one step.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(min_length=1)
    about: str = Field(min_length=1)
    mac: Picojoule | None = None
    input_synop: Picojoule | None = None
    synop: Picojoule | None = None
    graded_synop: Picojoule | None = None
    message: Picojoule | None = None
    update: Picojoule | None = None

    @property
    def constants(self) -> dict[str, Picojoule]:
        """Return the constants that there are, by event."""
        found = ((event, getattr(self, event)) for event in EVENTS)
        return {event: constant for event, constant in found if constant is not None}

    def energy_pj(self, events: dict[str, float]) -> float | None:
        """Return ``sum(number * constant)`` over events of kinds in `EVENTS`, in picojoule.

        None where multiply-accumulates are asked for and the table has no constant for them.

        Parameters
        ----------
        events : dict of str to float
            How many there were of each kind.

        Returns
        -------
        float or None
            In picojoule.
        """
        constants = self.constants
        if events.get("mac") and "mac" not in constants:
            return None
        return sum(number * constants[kind].value for kind, number in events.items() if kind in constants)


def read_energy(source: str | Path) -> EnergyTable:
    """Read a table of energy constants.

    Parameters
    ----------
    source : str or Path
        The path of a TOML file, or the bare name of one that lava_casc ships (``cmos45-float32``, ``cmos45-int8``,
        ``loihi1``).

    Returns
    -------
    EnergyTable

    Raises
    ------
    HardwareConfigError
        The file is missing, is no TOML, or has a wrong key, unit or value.
    """
    known = shipped_energy_tables()
    path = Path(source)
    if not path.is_file():
        if str(source) not in known:
            raise HardwareConfigError(
                f"{source}: no such table of energy constants. Give a TOML file or one of: {', '.join(known)}."
            )
        path = known[str(source)]
    try:
        return EnergyTable.model_validate(read_toml(path))
    except ValidationError as error:
        raise HardwareConfigError(f"{path}: {explained(error.errors(), _keys)}") from error


def shipped_energy_tables() -> dict[str, Path]:
    """Return the tables that lava_casc ships, by name.

    Returns
    -------
    dict of str to Path
    """
    return shipped("energy")


def _keys(place: Sequence[str]) -> Sequence[str]:
    return list(Picojoule.model_fields if len(place) > 1 else EnergyTable.model_fields)
