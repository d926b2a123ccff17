"""Which parts of the mechanism are at work: the paper's ablations."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Variant:
    """A neuron and its schedule, whole or with a part left out (CASC, arXiv 2406.05371, tables 1 and 5).

    Attributes
    ----------
    signed : bool
        Whether a neuron takes back what it said too early. Without it this is the integrate-and-fire neuron with soft
        reset, which only ever adds.
    sleeps : bool
        Whether input and bias stop when the wake is over. Without it they go on at the same rate, and a neuron's answer
        is its rate, ``count * wake_steps / step``.
    """

    signed: bool = True
    sleeps: bool = True

    @property
    def capped(self) -> bool:
        """Whether a neuron counts to its levels at most: what makes silence a certificate, of the whole alone."""
        return self.signed and self.sleeps


#: The paper's four, by name: negative spikes make IF a CIF, the wake-sleep controller is WSC.
VARIANTS = {
    "if": Variant(signed=False, sleeps=False),
    "if+wsc": Variant(signed=False, sleeps=True),
    "cif": Variant(signed=True, sleeps=False),
    "cif+wsc": Variant(),
}
WHOLE = VARIANTS["cif+wsc"]
