"""How much faster lava_casc's models of Lava's Conv and Dense are than Lava's own: a ratio, both in this very run.

    python benchmarks/lava_synapses.py [--steps N]

Each case is a source, one synapse and a sink on Lava's CPU simulator in fixed point; the results are compared with ==.
The time of the same circuit with an empty run is not taken off, so that Lava's messaging counts for both.
"""

import argparse
import time

import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.conv.process import Conv
from lava.proc.dense.process import Dense
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source

import lava_casc

#: Name, and a function that makes the synapse and the shape of its input. Four of a neuron's inputs in five are silent.
CASES = {
    "conv 64->64 at 16x16": lambda rng: conv(rng, 64, 64, 16),
    "conv 3->64 at 32x32": lambda rng: conv(rng, 3, 64, 32),
    "conv 128->128 at 8x8": lambda rng: conv(rng, 128, 128, 8),
    "dense 4096->4096": lambda rng: (
        Dense(weights=rng.integers(-64, 64, (4096, 4096)) * 2, num_message_bits=8), (4096,)
    ),
}  # fmt: skip


def conv(rng, inputs, outputs, size):
    """Return a 3x3 convolution with 8-bit weights and the shape of its input."""
    weight = rng.integers(-127, 128, (outputs, 3, 3, inputs))
    shape = (size, size, inputs)
    return Conv(weight=weight, padding=(1, 1), input_shape=shape, num_message_bits=8), shape


def run(make, steps, models):
    """Return what arrives at the sink, and the seconds that a step took."""
    rng = np.random.default_rng(0)
    synapse, shape = make(rng)
    source = Source(data=rng.integers(-1, 2, (*shape, steps)) * (rng.random((*shape, steps)) < 0.3))
    sink = Sink(shape=synapse.a_out.shape, buffer=1)  # the last step alone: a Var leaves Lava value by value
    source.s_out.connect(synapse.s_in)
    synapse.a_out.connect(sink.a_in)
    config = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=models)
    try:
        synapse.run(RunSteps(1), config)
        start = time.perf_counter()
        synapse.run(RunSteps(steps - 1), config)
        seconds = (time.perf_counter() - start) / (steps - 1)
        return sink.data.get(), seconds
    finally:
        synapse.stop()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=30)
    steps = parser.parse_args().steps
    for name, make in CASES.items():
        stock, slow = run(make, steps, None)
        ours, fast = run(make, steps, lava_casc.loihi.fast_models())
        same = "equal" if np.array_equal(stock, ours) and stock.any() else "DIFFERENT"
        print(f"{name:22s} stock {slow * 1e3:7.2f} ms/step, ours {fast * 1e3:6.2f}, ratio {slow / fast:6.1f}, {same}")


if __name__ == "__main__":
    main()
