"""An interpreter of the pseudo-assembly in which the neuron program is written, register by register.

It serves the tests, and tells `allocation` which words and constants there are and what they can hold. The notation
is described in docs/microcode.md; nothing of it is Intel's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lava_casc.errors import exceeds
from lava_casc.integer import signed_range

SOURCE = Path(__file__).with_name("cif.pseudo")
KINDS = ("word", "const", "input", "temp")
#: What each instruction takes: a register to write (d), a value (x), or a label (l).
OPERANDS = {
    "set": "dx",
    "add": "dx",
    "sub": "dx",
    "jump": "l",
    "jlt": "xxl",
    "jge": "xxl",
    "jeq": "xxl",
    "send": "x",
}
#: More than the longest step of the neuron program takes: 7 instructions a unit, 127 units, and 15.
BUDGET = 1024
UNPROVEN = "The network was not proven for what it received: see lava_casc.ranges"


@dataclass(frozen=True)
class Slot:
    """A declared register or constant.

    Attributes
    ----------
    name : str
    kind : {"word", "const", "input", "temp"}
        State of a neuron; shared by a layer; the arriving current; undefined at the start of a step.
    signed : bool
    bits : int
    """

    name: str
    kind: str
    signed: bool
    bits: int

    @property
    def limits(self) -> tuple[int, int]:
        """The least and the greatest value."""
        return signed_range(self.bits) if self.signed else (0, (1 << self.bits) - 1)

    def hold(self, value: int, where: str, remedy: str = UNPROVEN) -> int:
        """Return `value`, or raise where the slot cannot hold it.

        Raises
        ------
        RangeError
            Nothing wraps and nothing saturates.
        """
        low, high = self.limits
        if not low <= value <= high:
            width = f"its {self.bits} {'signed' if self.signed else 'unsigned'} bits"
            raise exceeds(where, self.name, value, width, high if value > high else low, remedy)
        return value


@dataclass(frozen=True)
class Instruction:
    """One line of a program.

    Attributes
    ----------
    line : int
        Where it stands in the text, from 1.
    opcode : str
    operands : tuple of str
    """

    line: int
    opcode: str
    operands: tuple[str, ...]


@dataclass(frozen=True)
class Program:
    """A parsed program.

    Attributes
    ----------
    slots : dict of str to Slot
    instructions : tuple of Instruction
    labels : dict of str to int
        The place, in `instructions`, that each label stands before.
    """

    slots: dict[str, Slot]
    instructions: tuple[Instruction, ...]
    labels: dict[str, int]

    def names(self, kind: str) -> list[str]:
        """Return the slots of a kind, in the order of the text."""
        return [slot.name for slot in self.slots.values() if slot.kind == kind]

    def step(
        self, constants: Mapping[str, int], words: Mapping[str, int], current: int
    ) -> tuple[dict[str, int], int | None]:
        """Run one time step of one neuron.

        Parameters
        ----------
        constants, words : mapping of str to int
            All of the program's own.
        current : int
            What arrives.

        Returns
        -------
        words : dict of str to int
            After the step.
        message : int or None
            What was sent; None where nothing was, which is not a message of 0.

        Raises
        ------
        RangeError
            A register cannot hold what an instruction writes to it.
        ValueError
            The program reads what was never set, sends twice or does not end.
        """
        given = dict(constants) | dict(words) | dict.fromkeys(self.names("input"), current)
        if set(given) != {slot.name for slot in self.slots.values() if slot.kind != "temp"}:
            raise ValueError(f"the program has other words and constants than {sorted(given)}")
        values = {name: self.slots[name].hold(value, "at the start") for name, value in given.items()}
        message: int | None = None
        at = 0
        for _ in range(BUDGET):
            if at == len(self.instructions):
                return {name: values[name] for name in self.names("word")}, message
            instruction = self.instructions[at]
            where, (first, *rest) = f"line {instruction.line}", instruction.operands
            at += 1
            if instruction.opcode == "send":
                if message is not None:
                    raise ValueError(f"{where}: a second message in one step")
                message = _read(values, first, where)
            elif instruction.opcode in ("set", "add", "sub"):
                value = _read(values, rest[0], where)
                if instruction.opcode != "set":
                    value = _read(values, first, where) + (value if instruction.opcode == "add" else -value)
                values[first] = self.slots[first].hold(value, where)
            elif self._jumps(instruction, values, where):
                at = self.labels[instruction.operands[-1]]
        raise ValueError(f"the program does not end within {BUDGET} instructions")

    def _jumps(self, instruction: Instruction, values: Mapping[str, int], where: str) -> bool:
        """Return whether a jump is taken. A comparison compares: it forms no difference that might overflow."""
        if instruction.opcode == "jump":
            return True
        left, right = (_read(values, name, where) for name in instruction.operands[:2])
        return {"jlt": left < right, "jge": left >= right, "jeq": left == right}[instruction.opcode]


def _read(values: Mapping[str, int], operand: str, where: str) -> int:
    if operand.isdigit():
        return int(operand)
    if operand not in values:
        raise ValueError(f"{where}: {operand} is read before it is set")
    return values[operand]


def parse(text: str) -> Program:
    """Return the program of a text.

    Raises
    ------
    ValueError
        A line that the notation does not have.
    """
    slots: dict[str, Slot] = {}
    instructions: list[Instruction] = []
    labels: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        code = line.split(";")[0].strip()
        label, colon, rest = code.rpartition(":")
        if colon:
            _new(label.strip(), {*slots, *labels}, number)
            labels[label.strip()] = len(instructions)
        first, *others = rest.replace(",", " ").split() or [""]
        if first in KINDS:
            name, width = others
            if width[0] not in "su" or instructions:
                raise ValueError(f"line {number}: a declaration is `kind name s24` or `u23`, ahead of all instructions")
            _new(name, {*slots, *labels}, number)
            slots[name] = Slot(name, first, width[0] == "s", int(width[1:]))
        elif first:
            instructions.append(Instruction(number, first, tuple(others)))
    for instruction in instructions:
        _check(instruction, slots, labels)
    return Program(slots, tuple(instructions), labels)


def cif_program() -> Program:
    """Return the neuron program that is shipped, and printed in docs/microcode.md."""
    return parse(SOURCE.read_text(encoding="utf-8"))


def _new(name: str, known: set[str], number: int) -> None:
    if not name.isidentifier() or name in known:
        raise ValueError(f"line {number}: {name!r} is no name, or one that is taken")


def _check(instruction: Instruction, slots: Mapping[str, Slot], labels: Mapping[str, int]) -> None:
    """Refuse unknown instructions, and operands that are not what the instruction takes."""
    pattern = OPERANDS.get(instruction.opcode, "")
    if len(pattern) != len(instruction.operands) or not pattern:
        raise ValueError(f"line {instruction.line}: no instruction {instruction.opcode} {instruction.operands}")
    for kind, operand in zip(pattern, instruction.operands, strict=True):
        right = {
            "l": operand in labels,
            "x": operand in slots or operand.isdigit(),
            "d": operand in slots and slots[operand].kind in ("word", "temp"),
        }[kind]
        if not right:
            raise ValueError(f"line {instruction.line}: {operand!r} cannot stand in {instruction.opcode}")
