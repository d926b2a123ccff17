"""Exact and fast models of Lava's own synapses."""

from lava_casc.loihi.fast_synapse.models import FastConvFixed, FastConvFloat, FastDenseFixed, FastDenseFloat

__all__ = ["FastConvFixed", "FastConvFloat", "FastDenseFixed", "FastDenseFloat"]
