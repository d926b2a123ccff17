"""Limits of a target, read from ``hw_configs/*.toml``. Every number there has a unit and a source."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lava_casc.configs import explained, read_toml, shipped
from lava_casc.errors import HardwareConfigError

DEFAULT = "loihi2_oheo_gulch"


class Quantity(BaseModel):
    """One number.

    Attributes
    ----------
    value : int or "unknown"
    unit : str
    source : str
        Where the number is published; of an unknown one, why the assumed number is a careful one.
    assumed : int, optional
        What is used in place of an unknown value, and only then.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    value: int | Literal["unknown"]
    unit: str
    source: str = Field(min_length=1)
    assumed: int | None = None

    @model_validator(mode="after")
    def _assumed_if_unknown(self) -> Quantity:
        if (self.value == "unknown") != (self.assumed is not None):
            raise ValueError("an unknown value needs what is assumed, a known one has nothing assumed")
        return self

    @property
    def number(self) -> int:
        """The value, or what is assumed in its place."""
        return self.assumed if isinstance(self.value, str) else self.value  # type: ignore[return-value]

    @property
    def is_known(self) -> bool:
        """Whether the value is published."""
        return self.value != "unknown"


class _Section(BaseModel):
    """Quantities, each with the one unit that it has, and within its bounds."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    UNITS: ClassVar[dict[str, str]]
    BOUNDS: ClassVar[dict[str, tuple[int, int]]] = {}

    @model_validator(mode="after")
    def _units_and_bounds(self) -> _Section:
        for name, unit in self.UNITS.items():
            quantity = getattr(self, name)
            if quantity.unit != unit:
                raise ValueError(f"{name}: the unit is {quantity.unit!r}, and must be {unit!r}")
            low, high = self.BOUNDS.get(name, (1, 1 << 31))
            if not low <= quantity.number <= high:
                raise ValueError(f"{name}: {quantity.number} is not within {low} .. {high}")
        return self


class Registers(_Section):
    """How wide everything is.

    Attributes
    ----------
    state_bits : Quantity
        Signed bits of a neuron's state words (potential, bias, threshold) and of a synaptic accumulator.
    weight_bits : Quantity
        Signed bits of a synaptic weight's mantissa.
    weight_exponent_max : Quantity
        The greatest power of two by which the weights of one synapse group can be scaled.
    message_bits : Quantity
        Signed bits of the payload of a graded spike.
    bias_bits : Quantity
        Signed bits of the bias mantissa of the stock neuron.
    delay_steps : Quantity
        The longest delay of a synapse.
    """

    UNITS = {
        "state_bits": "bit", "weight_bits": "bit", "weight_exponent_max": "power of two", "message_bits": "bit",
        "bias_bits": "bit", "delay_steps": "step",
    }  # fmt: skip
    BOUNDS = {
        "state_bits": (2, 32), "weight_bits": (2, 16), "weight_exponent_max": (0, 24), "message_bits": (2, 32),
        "bias_bits": (2, 32), "delay_steps": (0, 1 << 16),
    }  # fmt: skip

    state_bits: Quantity
    weight_bits: Quantity
    weight_exponent_max: Quantity
    message_bits: Quantity
    bias_bits: Quantity
    delay_steps: Quantity


class Core(_Section):
    """What one neurocore holds.

    Attributes
    ----------
    neurons, synaptic_memory, axons_in, axons_out : Quantity
        Neurons; bytes for weights; incoming axons, one for each neuron that sends to the core; outgoing axons, one for
        each core that a neuron sends to.
    """

    UNITS = {"neurons": "neuron", "synaptic_memory": "byte", "axons_in": "axon", "axons_out": "axon"}

    neurons: Quantity
    synaptic_memory: Quantity
    axons_in: Quantity
    axons_out: Quantity


class Chip(_Section):
    """How many cores there are.

    Attributes
    ----------
    cores, chips : Quantity
        Cores of a chip, and chips of a board.
    """

    UNITS = {"cores": "core", "chips": "chip"}

    cores: Quantity
    chips: Quantity


class Inrc(BaseModel):
    """How members of Intel's research community reach it.

    Attributes
    ----------
    partitions, boards : list of str
        Of SLURM, as public scripts name them.
    generations : list of {"N3B3", "N3C1"}
    path : list of str
        Folders of the cloud host to put before PATH.
    source : str
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    partitions: list[str] = Field(min_length=1)
    boards: list[str]
    generations: list[Literal["N3B3", "N3C1"]] = Field(min_length=1)
    path: list[str]
    source: str = Field(min_length=1)


class Hardware(BaseModel):
    """What one target can hold.

    Attributes
    ----------
    name : str
        The target's name, used in error messages.
    about : str
    energy : str, optional
        The table of energy constants that fits best, of ``hw_configs/energy``.
    registers : Registers
    core, chip : Core and Chip, optional
        Missing where nothing is partitioned.
    inrc : Inrc, optional
        Missing where nothing is submitted.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str = Field(min_length=1)
    about: str = Field(min_length=1)
    energy: str | None = None
    registers: Registers
    core: Core | None = None
    chip: Chip | None = None
    inrc: Inrc | None = None

    @model_validator(mode="after")
    def _cores_on_chips(self) -> Hardware:
        if (self.core is None) != (self.chip is None):
            raise ValueError("core and chip belong together: give both, or neither")
        return self

    @property
    def state_bits(self) -> int:
        """Signed bits of a state word and of an accumulator."""
        return self.registers.state_bits.number

    @property
    def weight_bits(self) -> int:
        """Signed bits of a weight's mantissa."""
        return self.registers.weight_bits.number

    @property
    def weight_exponent_max(self) -> int:
        """The greatest exponent of weights."""
        return self.registers.weight_exponent_max.number

    @property
    def message_bits(self) -> int:
        """Signed bits of a graded spike."""
        return self.registers.message_bits.number

    def with_registers(self, name: str | None = None, **numbers: int) -> Hardware:
        """Return a target whose registers have other numbers, and which may have another name.

        Parameters
        ----------
        name : str, optional
        **numbers : int
            Values by the names of `Registers`.

        Returns
        -------
        Hardware
        """
        changed = {
            name: getattr(self.registers, name).model_copy(update={"value": number, "assumed": None})
            for name, number in numbers.items()
        }
        registers = self.registers.model_copy(update=changed)
        return self.model_copy(update={"registers": registers, "name": name or self.name})


def read_hardware(source: str | Path = DEFAULT) -> Hardware:
    """Read a hardware configuration.

    Parameters
    ----------
    source : str or Path
        The path of a TOML file, or the bare name of one that lava_casc ships (``loihi2_oheo_gulch``).

    Returns
    -------
    Hardware

    Raises
    ------
    HardwareConfigError
        The file is missing, is no TOML, or has a wrong key, unit or value.
    """
    path = _find(source)
    try:
        return Hardware.model_validate(read_toml(path))
    except ValidationError as error:
        raise HardwareConfigError(f"{path}: {explained(error.errors(), _keys)}") from error


def shipped_configs() -> dict[str, Path]:
    """Return the configurations that lava_casc ships, by name.

    Returns
    -------
    dict of str to Path
    """
    return shipped("")


def _find(source: str | Path) -> Path:
    path = Path(source)
    if path.is_file():
        return path
    known = shipped_configs()
    if str(source) in known:
        return known[str(source)]
    near = get_close_matches(str(source), known, 1)
    remedy = f"Did you mean {near[0]}?" if near else f"Give a TOML file or one of: {', '.join(known)}."
    raise HardwareConfigError(f"{source}: no such hardware configuration. {remedy}")


def _keys(place: Sequence[str]) -> Sequence[str]:
    """Return the keys of the section or the quantity that a key stands in."""
    model: Any = Hardware
    for part in place[:-1]:
        field = model.model_fields.get(part) if model is not None else None
        kinds = (Registers, Core, Chip, Inrc, Quantity)
        model = next((kind for kind in kinds if field and kind.__name__ in str(field.annotation)), None)
    return [] if model is None else list(model.model_fields)
