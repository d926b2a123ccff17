"""How much faster lava_casc's models of Lava's Conv and Dense are than Lava's own: ratios, both in this very run.

    python benchmarks/lava_synapses.py [--json FILE]

Fixed point, one thread a process, four inputs in five silent. Every case is timed twice: the step of the model alone,
and in a circuit of source, synapse and sink on Lava's CPU simulator. Lava's messages cost the circuit time whatever the
synapse does: the same circuit with a synapse that computes nothing says how much, and so the most that any synapse
could be faster. What the models deliver is compared with ==.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.conv.models import PyConvModelFixed
from lava.proc.conv.process import Conv
from lava.proc.dense.models import PyDenseModelBitAcc
from lava.proc.dense.process import Dense
from lava.proc.io.sink import RingBuffer as Sink
from lava.proc.io.source import RingBuffer as Source
from threadpoolctl import threadpool_limits

import lava_casc

STOCK = {Conv: PyConvModelFixed, Dense: PyDenseModelBitAcc}
#: Different inputs, one after the other.
INPUTS = 8
ROUNDS = 5


class SilentConv(PyConvModelFixed):
    """A convolution that computes nothing."""

    def run_spk(self):
        """Send, and receive."""
        self.a_out.send(self.a_buf)
        self.s_in.recv()


class SilentDense(PyDenseModelBitAcc):
    """A dense synapse that computes nothing."""

    a_buff = PyDenseModelBitAcc.a_buff

    def run_spk(self):
        """Send, and receive."""
        self.a_out.send(self.a_buff)
        self.s_in.recv()


def conv(rng, inputs, outputs, size):
    """Return a 3x3 convolution with 8-bit weights."""
    weight = rng.integers(-127, 128, (outputs, 3, 3, inputs))
    return Conv(weight=weight, padding=(1, 1), input_shape=(size, size, inputs), num_message_bits=8)


def dense(rng, inputs, outputs):
    """Return a dense synapse with 8-bit weights."""
    return Dense(weights=rng.integers(-64, 64, (outputs, inputs)) * 2, num_message_bits=8)


#: Name, a function that makes the synapse, and how many times faster than Lava's own it has to be.
CASES = (
    ("conv 64->64 at 16x16", lambda rng: conv(rng, 64, 64, 16), 100),
    ("conv 3->64 at 32x32", lambda rng: conv(rng, 3, 64, 32), 12),
    ("conv 128->128 at 8x8", lambda rng: conv(rng, 128, 128, 8), 300),
    ("dense 4096->4096", lambda rng: dense(rng, 4096, 4096), 4),
)


def spikes(rng, synapse):
    """Return what the synapse receives, one input a row."""
    shape = (INPUTS, *synapse.s_in.shape)
    return (rng.integers(0, 2, shape) * 2 - 1) * (rng.random(shape) < 0.2)


def model_step(make, stock_steps, our_steps):
    """Return the seconds of a step of Lava's model and of ours, without Lava's messages, and whether they agree."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "loihi"))
    from loihi_models import started

    rng = np.random.default_rng(0)
    synapse = make(rng)
    inputs = spikes(rng, synapse).astype(np.int32)
    stock = started(synapse, STOCK[type(synapse)])
    ours = started(synapse, lava_casc.loihi.fast_models()[type(synapse)])

    def run(model, steps):
        sent, seconds = [], []
        for number in range(steps):
            model.s_in.messages.append(inputs[number % INPUTS])
            start = time.perf_counter()
            model.run_spk()
            seconds.append(time.perf_counter() - start)
            sent.append(model.a_out.messages.popleft())
            del sent[:-2]  # memory that is given back is there for the next message, as Lava's is
        return sent[-1], seconds

    with threadpool_limits(1, "blas"):  # as in Lava
        (theirs, _), (mine, _) = run(stock, 3), run(ours, 3)  # the first step prepares the weights
        same = bool(theirs.any() and np.array_equal(theirs, mine))
        rounds = [(run(stock, stock_steps)[1], run(ours, our_steps)[1]) for _ in range(ROUNDS)]
    slow, fast = (statistics.median(sum(times, [])) for times in zip(*rounds, strict=True))
    return slow, fast, same


def circuit_step(make, models, steps):
    """Return the seconds of a step of source, synapse and sink, and what arrived in the last of them."""
    rng = np.random.default_rng(0)
    synapse = make(rng)
    source = Source(data=np.moveaxis(spikes(rng, synapse), 0, -1))
    sink = Sink(shape=synapse.a_out.shape, buffer=1)  # the last step alone: a Var leaves Lava value by value
    source.s_out.connect(synapse.s_in)
    synapse.a_out.connect(sink.a_in)
    config = Loihi2SimCfg(select_tag="fixed_pt", exception_proc_model_map=models)
    try:
        synapse.run(RunSteps(3), config)
        seconds = []
        for _ in range(ROUNDS):
            start = time.perf_counter()
            synapse.run(RunSteps(steps), config)
            seconds.append((time.perf_counter() - start) / steps)
        # Every model has to end with the same input, whatever number of steps it ran.
        synapse.run(RunSteps(-(3 + ROUNDS * steps) % INPUTS + INPUTS + 3), config)
        return statistics.median(seconds), sink.data.get()
    finally:
        synapse.stop()


def measure(stock_steps=2, our_steps=40):
    """Return a record of every case, of the model alone and in a circuit.

    Parameters
    ----------
    stock_steps, our_steps : int
        Of each there are five rounds, and the median counts.

    Returns
    -------
    list of dict
        ``case``, ``part`` ("model" or "circuit"), ``stock_ms`` and ``ours_ms`` a step, ``ratio``, ``bar``, ``met``,
        ``equal``; of a circuit also ``messages_ms``, what it takes with a synapse that computes nothing, and
        ``limit``, the ratio that such a synapse would have.
    """
    found = []
    for name, make, bar in CASES:
        slow, fast, same = model_step(make, stock_steps, our_steps)
        found.append(_record(name, "model", slow, fast, bar, same))
        slow, theirs = circuit_step(make, STOCK, stock_steps)
        fast, mine = circuit_step(make, lava_casc.loihi.fast_models(), our_steps)
        least, _ = circuit_step(make, {Conv: SilentConv, Dense: SilentDense}, our_steps)
        same = bool(np.array_equal(theirs, mine) and theirs.any())
        messages = {"messages_ms": least * 1e3, "limit": slow / least}
        found.append(_record(name, "circuit", slow, fast, bar, same) | messages)
    return found


def _record(name, part, slow, fast, bar, same):
    ratio = slow / fast
    record = {"case": name, "part": part, "stock_ms": slow * 1e3, "ours_ms": fast * 1e3, "ratio": ratio, "bar": bar}
    return record | {"met": same and ratio >= bar, "equal": same}


def table(records):
    """Return the records as lines of text."""
    lines = [f"{'':21s} {'':8s} {'stock ms':>9s} {'ours ms':>8s} {'ratio':>7s} {'bar':>4s}"]
    for record in records:
        line = "{case:21s} {part:8s} {stock_ms:9.2f} {ours_ms:8.3f} {ratio:7.1f} {bar:4d}".format(**record)
        line += " met    " if record["met"] else " not met"
        if record["part"] == "circuit":
            line += "  messages alone {messages_ms:.2f} ms: at most {limit:.0f}".format(**record)
        lines.append(line + ("" if record["equal"] else "  THE RESULTS DIFFER"))
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the records there, too")
    path = parser.parse_args().json
    records = measure()
    print("\n".join(table(records)))
    if path is not None:
        path.write_text(json.dumps(records, indent=2) + "\n")
    sys.exit(not all(record["equal"] for record in records))


if __name__ == "__main__":
    main()
