"""Which parts of the mechanism are at work: the paper's ablations, and what other conversions have instead."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from lava_casc.network import Neurons, Readout


@dataclass(frozen=True)
class Variant:
    """A neuron and its schedule, whole or with a part left out (CASC, arXiv 2406.05371, tables 1 and 5), or changed.

    Attributes
    ----------
    signed : bool
        Whether a neuron takes back what it said too early. Without it this is the integrate-and-fire neuron with soft
        reset, which only ever adds.
    sleeps : bool
        Whether input and bias stop when the wake is over. Without it they go on at the same rate, and a neuron's answer
        is its rate, ``count * wake_steps / step``.
    initial : Fraction, optional
        The potential that a neuron starts with, as a share of its threshold, rounded down; by default the network's
        own.
    negative_threshold : Fraction
        Where a signed neuron takes back, as a share of its threshold: at ``u <= -share * threshold``, and with the
        share 0 at ``u < 0``, which is CIF's. 0 to 1.
    """

    signed: bool = True
    sleeps: bool = True
    initial: Fraction | None = None
    negative_threshold: Fraction = Fraction(0)

    @property
    def capped(self) -> bool:
        """Whether a neuron counts to its levels at most: what makes silence a certificate, of the whole alone."""
        return self.signed and self.sleeps

    def beyond(self, layer: Neurons | Readout) -> int:
        """Return by how much a sum may be greater here than with the network's own potentials: 0 for the paper's.

        Parameters
        ----------
        layer : Neurons or Readout

        Returns
        -------
        int
        """
        share = (self.initial or 0) + self.negative_threshold
        greatest = int(layer.threshold.max()) if isinstance(layer, Neurons) else 0
        return -(-greatest * share.numerator // share.denominator)


#: The paper's four, by name: negative spikes make IF a CIF, the wake-sleep controller is WSC.
VARIANTS = {
    "if": Variant(signed=False, sleeps=False),
    "if+wsc": Variant(signed=False, sleeps=True),
    "cif": Variant(signed=True, sleeps=False),
    "cif+wsc": Variant(),
}
#: The one that certifies.
WHOLE = VARIANTS["cif+wsc"]
