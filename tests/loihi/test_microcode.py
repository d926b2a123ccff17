"""The neuron program for the chip, interpreted: against the fixed-point model, loops over Python ints, and networks."""

import itertools
import re
from pathlib import Path

import naive
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loihi_models import started, step
from random_networks import random_images, random_network

from lava_casc.errors import RangeError
from lava_casc.hardware import read_hardware
from lava_casc.integer import signed_range
from lava_casc.loihi import run
from lava_casc.loihi.build import build
from lava_casc.loihi.cif import CIF
from lava_casc.loihi.cif.models import PyCIFFixed
from lava_casc.loihi.layout import lava_shape, lava_values, torch_images
from lava_casc.loihi.neurocore import interpreter
from lava_casc.loihi.neurocore.allocation import allocate
from lava_casc.loihi.neurocore.interpreter import SOURCE, cif_program, parse

DOCS = Path(__file__).resolve().parents[2] / "docs" / "microcode.md"
TEXT = SOURCE.read_text(encoding="utf-8")
PROGRAM = cif_program()
LOW, HIGH = signed_range(24)


def allocated(cif):
    """Return what the neurocore model allocates for a CIF process."""
    return allocate(cif.proc_params, {name: getattr(cif, name).init for name in ("bias", "u0", "threshold")})


class Population:
    """As many interpreted neurons as a CIF process has, with the words and constants that the chip would get."""

    def __init__(self, cif, program=PROGRAM):
        made = allocated(cif)
        self.program, self.constants = program, made.constants
        columns = {name: values.tolist() for name, values in made.words.items()}
        columns["u"] = np.broadcast_to(cif.u.init, cif.shape).ravel().tolist()
        columns["y"] = [0] * made.neurons
        self.words = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def step(self, currents):
        """Return potentials, counts and spikes after a step; a message of 0 is none of the three."""
        messages = []
        for i, current in enumerate(np.ravel(currents).tolist()):
            self.words[i], message = self.program.step(self.constants, self.words[i], current)
            assert message != 0, "a message of 0 is not silence"
            messages.append(message or 0)
        return [w["u"] for w in self.words], [w["y"] for w in self.words], messages


class Loop:
    """The same population as loops over Python ints, from docs/mathematics.md."""

    def __init__(self, shape, threshold, levels, bias, initial, wake_steps, period, bias_start, max_burst, release):
        (self.size,) = shape
        self.levels, self.burst, self.period, self.release, self.time = levels, max_burst, period, release, 0
        self.wake = range(bias_start, bias_start + wake_steps)
        self.threshold, bias, initial = (
            [int(v) for v in np.broadcast_to(x, shape)] for x in (threshold, bias, initial)
        )
        self.share = [abs(b) // wake_steps * (1 if b > 0 else -1) for b in bias]
        self.first = [i + b - s * wake_steps for i, b, s in zip(initial, bias, self.share, strict=True)]

    def step(self, currents):
        """Return potentials, counts and spikes after a step."""
        local = self.time % self.period + 1
        self.time += 1
        if local == 1:
            self.u, self.y = list(self.first), [0] * self.size
        spikes = [0] * self.size
        for i in range(self.size):
            if local > 1:
                self.u[i] += int(currents[i]) + (self.share[i] if local in self.wake else 0)
            if local >= self.release:
                state = self.u[i], self.y[i], self.threshold[i], self.levels, self.burst
                self.u[i], self.y[i], spikes[i] = naive.cif(*state)
        return list(self.u), list(self.y), spikes


def both_agree(neurons, currents, program=PROGRAM, loop=True):
    """Compare step by step; `currents` is (steps, neurons)."""
    cif = CIF(**neurons)
    model, chip, by_hand = started(cif, PyCIFFixed), Population(cif, program), Loop(**neurons)
    for row in currents:
        sent = step(model, gate=[0], a_in=row)
        expected = (model.u.tolist(), model.y.tolist(), sent["s_out"].tolist())
        for one in (chip, by_hand) if loop else (chip,):
            found = one.step(row)
            # No assert of pytest's: where it fails on purpose, a hundred times, its report would take minutes.
            if found != expected:
                raise AssertionError(f"{type(one).__name__}: (u, y, s) is {found}, and in the model {expected}")


def exhaustive(levels, max_burst, release, values=(-5, -1, 0, 3)):
    """Return a neuron for each sequence of currents, threshold, bias and initial potential, and two samples."""
    cases = [*itertools.product(itertools.product(values, repeat=3), (1, 2, 3), (-3, 0, 5), (0, 1))]
    sequences, threshold, bias, initial = zip(*cases, strict=True)
    neurons = {
        "shape": (len(cases),),
        "threshold": np.array(threshold),
        "levels": levels,
        "bias": np.array(bias),
        "initial": np.array(initial),
        "wake_steps": 2,
        "period": 6,
        "bias_start": 3 if release == 1 else 2,
        "max_burst": max_burst,
        "release": release,
    }
    sample = [
        [values[i % len(values)] for i in range(len(cases))],
        *zip(*sequences, strict=True),
        *[[0] * len(cases)] * 2,
    ]
    return neurons, [*sample, *(row[::-1] for row in sample), *sample[:2]]


SMALL = [(0, 1, 1), (1, 1, 1), (2, 1, 1), (3, 1, 1), (2, 2, 1), (3, 2, 1), (3, 3, 1), (3, 3, 3), (2, 1, 3), (3, 9, 2)]


@pytest.mark.parametrize(("levels", "max_burst", "release"), SMALL)
def test_every_small_neuron_does_what_the_model_and_the_loop_do(levels, max_burst, release):
    both_agree(*exhaustive(levels, max_burst, release))


@st.composite
def proven(draw):
    """Return a neuron whose range proof fills 24 bits to whatever part, and currents that the proof allows."""
    levels, period = draw(st.integers(0, 9)), draw(st.integers(2, 9))
    threshold = draw(st.integers(1, HIGH) | st.integers(1, 300))
    # What is received lies in [low, high]: initial potential, bias and inputs each take some part of it.
    high = draw(st.integers(0, HIGH) | st.just(HIGH))
    low = draw(st.integers(max(LOW + min(threshold * levels, high), high - HIGH), 0))
    low = draw(st.sampled_from([low, max(LOW + min(threshold * levels, high), high - HIGH)]))
    initial = draw(st.integers(low, high))
    bias = draw(st.integers(low - min(initial, 0), high - max(initial, 0)))
    least, most = low - min(initial, 0) - min(bias, 0), high - max(initial, 0) - max(bias, 0)
    least, most = min(least, 0), max(most, 0)
    neurons = {
        "shape": (1,),
        "threshold": threshold,
        "levels": levels,
        "bias": bias,
        "initial": initial,
        "wake_steps": draw(st.integers(1, 4)),
        "period": period,
        "bias_start": draw(st.integers(2, 4)),
        "max_burst": draw(st.sampled_from([1, 1, 2, 5, 200])),
        "release": draw(st.integers(1, 4)),
    }
    currents = []
    for _ in range(3):
        sums = [0, *draw(st.lists(st.integers(least, most), min_size=period - 1, max_size=period - 1))]
        currents += [draw(st.integers(LOW, HIGH)), *(b - a for a, b in itertools.pairwise(sums))]
    return neurons, [[current] for current in currents]


@settings(max_examples=250, deadline=None)
@given(case=proven())
def test_what_is_proven_to_fit_never_overflows_and_is_what_the_model_and_the_loop_do(case):
    both_agree(*case)


def test_the_greatest_burst_of_a_message_of_8_bits():
    neurons = {"shape": (2,), "threshold": [1, 3], "levels": 300, "wake_steps": 1, "period": 12, "max_burst": 127}
    neurons |= {"bias": 0, "initial": 0, "bias_start": 2, "release": 1}
    both_agree(neurons, [[0, 0], [500, 900], [0, 0], [0, 0], [0, 0], [-500, -2000], *[[0, 0]] * 8])


def without(line):
    """Return the program without the instruction of one line; its label stays."""
    lines = TEXT.splitlines()
    label, colon, _ = lines[line - 1].split(";")[0].rpartition(":")
    lines[line - 1] = label + colon
    return parse("\n".join(lines))


OPPOSITE = {"add": "sub", "sub": "add", "jlt": "jge", "jge": "jlt"}


def flipped(line):
    """Return the program with the opposite instruction in one line."""
    lines = TEXT.splitlines()
    (opcode,) = [i.opcode for i in PROGRAM.instructions if i.line == line]
    lines[line - 1] = re.sub(rf"\b{opcode}\b", OPPOSITE[opcode], lines[line - 1], count=1)
    return parse("\n".join(lines))


#: A few neurons on which every part of the program matters.
PROBES = [exhaustive(*case, values=(-7, 0, 9)) for case in ((2, 1, 1), (3, 2, 1), (3, 3, 3))]
UNARY = [exhaustive(*case, values=(-7, 0, 9)) for case in ((2, 1, 1), (2, 1, 3))]
BROKEN = (AssertionError, RangeError, ValueError)  # other values, an overflow, no end or a read before it is set


def test_the_whole_program_passes_where_the_broken_ones_do_not():
    assert not _is_seen(PROGRAM)
    assert not _is_seen(PROGRAM, UNARY)


@pytest.mark.parametrize("instruction", PROGRAM.instructions, ids=lambda i: f"{i.line}-{i.opcode}")
def test_no_instruction_can_be_left_out(instruction):
    assert _is_seen(without(instruction.line))


@pytest.mark.parametrize(
    "instruction", [i for i in PROGRAM.instructions if i.opcode in OPPOSITE], ids=lambda i: f"{i.line}-{i.opcode}"
)
def test_no_instruction_can_be_turned_round(instruction):
    assert _is_seen(flipped(instruction.line))


@pytest.mark.parametrize("instruction", PROGRAM.instructions, ids=lambda i: f"{i.line}-{i.opcode}")
def test_the_unary_mode_needs_all_but_the_two_jumps_backwards(instruction):
    backwards = instruction.opcode == "jump" and instruction.operands[0] in ("up", "down")
    assert _is_seen(without(instruction.line), UNARY) != backwards


def _is_seen(program, probes=PROBES):
    for neurons, currents in probes:
        try:
            both_agree(neurons, currents, program, loop=False)
        except BROKEN:
            return True
    return False


@pytest.mark.parametrize("mode", ["unary", "graded"])
@pytest.mark.parametrize("seed", range(3))
def test_whole_networks_of_interpreted_neurons_spike_as_lava_does(seed, mode):
    rng = np.random.default_rng(seed)
    network = random_network(rng)
    images = random_images(rng, network, 2)
    schedule = network.schedule(mode)
    record = run(network, images, schedule, engine="graph", record=("spikes",), until_silent=False)
    circuit = build(network, network.encode(images), schedule)
    layers = {name: Population(made) for name, made in circuit.layers.items() if isinstance(made, CIF)}
    (readout,) = network.readouts
    layers[readout.name] = Population(integrator(network, readout, schedule))
    wiring = naive.Wiring(network)
    assert len(layers) > 1
    for sample, image in enumerate(network.encode(images)):
        # The input, which nothing here interprets, and the pools are taken from others; every neuron is run.
        spikes = {name: record.spikes[name][sample] for name in record.spikes}
        spikes[network.input.name] = naive.naive_simulate(network, image, schedule).spikes[network.input.name]
        silence = {name: np.zeros(network.shapes[name], np.int64) for name in spikes}
        for at in range(schedule.period):
            arriving = {name: np.ravel(spikes[name][at - 1] if at else silence[name]).tolist() for name in spikes}
            for name, population in layers.items():
                shape = network.shapes[name]
                currents = np.array(wiring.currents(network[name], arriving)).reshape(shape)
                u, _, sent = population.step(lava_values(currents))
                if name != readout.name:
                    assert (torch_images(np.array(sent), shape) == spikes[name][at]).all()
        assert np.ravel(torch_images(np.array(u), shape)).tolist() == record.logits[sample].tolist()


def integrator(network, readout, schedule):
    """Return the neurons of no levels that are a readout."""
    return CIF(
        shape=lava_shape(network.shapes[readout.name]),
        threshold=1,
        levels=0,
        bias=lava_values(readout.bias),
        bias_start=network.timing(schedule)[readout.name].bias_start,
        wake_steps=schedule.wake_steps,
        period=schedule.period,
    )


SHARED = {"levels": 3, "period": 9, "wake": 2, "sleep": 4, "free": 1, "most": 1, "least": -1}
NEURON = {"u": 0, "y": 0, "t": 1, "bias": 0, "u0": 0, "theta": 9}


@pytest.mark.parametrize(
    ("words", "current", "message"),
    [
        ({"u": HIGH - 6}, 7, rf"line \d+: u \({HIGH + 1}\) exceeds its 24 signed bits \({HIGH}\)\. The network was"),
        ({"u": LOW + 6}, -7, rf"u \({LOW - 1}\) exceeds its 24 signed bits \({LOW}\)"),
        ({"u": HIGH, "bias": 1}, 0, rf"u \({HIGH + 1}\) exceeds"),
        ({}, HIGH + 1, rf"at the start: a \({HIGH + 1}\) exceeds its 24 signed bits"),
        ({"theta": HIGH + 1}, 0, rf"theta \({HIGH + 1}\) exceeds its 23 unsigned bits \({HIGH}\)"),
        ({"y": -1}, 0, r"y \(-1\) exceeds its 23 unsigned bits \(0\)"),
    ],
)
def test_an_overflow_is_an_error_and_never_wraps(words, current, message):
    with pytest.raises(RangeError, match=message):
        PROGRAM.step(SHARED, NEURON | words, current)


@pytest.mark.parametrize(
    ("words", "current"), [({"u": HIGH - 7}, 7), ({"u": LOW + 7}, -7), ({"u": HIGH - 1, "bias": 1}, 0)]
)
def test_one_less_is_no_overflow(words, current):
    assert PROGRAM.step(SHARED, NEURON | words, current)[0]["t"] == 2


def test_a_message_that_is_too_long_is_an_error():
    program = parse("word u s24\ntemp s s4\nset s, 7\nadd s, 1\nsend s")
    with pytest.raises(RangeError, match=r"line 4: s \(8\) exceeds its 4 signed bits \(7\)"):
        program.step({}, {"u": 0}, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("word u s24\nmul u, 2", "line 2: no instruction mul"),
        ("word u s24\nadd u", "line 2: no instruction add"),
        ("word u s24\nadd u, v", "line 2: 'v' cannot stand in add"),
        ("word u s24\nadd u, -1", "line 2: '-1' cannot stand in add"),
        ("const c s24\nset c, 1", "line 2: 'c' cannot stand in set"),
        ("input a s24\nset a, 1", "line 2: 'a' cannot stand in set"),
        ("word u s24\nset 1, u", "line 2: '1' cannot stand in set"),
        ("jump away", "line 1: 'away' cannot stand in jump"),
        ("word u s24\nword u s24", "line 2: 'u' is no name, or one that is taken"),
        ("word u s24\nu: send u", "line 2: 'u' is no name"),
        ("a b: send 1", "line 1: 'a b' is no name"),
        ("word u f32", "line 1: a declaration is"),
        ("send 1\nword u s24", "line 2: a declaration is"),
    ],
)
def test_what_the_notation_does_not_have_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("temp s s8\nsend s", "line 2: s is read before it is set"),
        ("send 1\nsend 1", "line 2: a second message in one step"),
        ("on: jump on", "does not end"),
        ("word u s24\nsend 1", "other words and constants"),
    ],
)
def test_programs_that_go_wrong_are_stopped(text, message):
    with pytest.raises(ValueError, match=message):
        parse(text).step({}, {}, 0)


@pytest.mark.parametrize("burst", [1, 2, 3, 127])
def test_a_step_takes_as_many_instructions_as_the_docs_say(burst, monkeypatch):
    claim = re.search(r"at most `(\d+) \+ (\d+) g` instructions", DOCS.read_text(encoding="utf-8"))
    assert claim
    fixed, each = map(int, claim.groups())

    def run_all(instructions):
        # A step of n instructions ends in the n + 1st turn of the interpreter.
        monkeypatch.setattr(interpreter, "BUDGET", instructions + 1)
        shared = SHARED | {"levels": 200, "most": burst, "least": -burst}
        for u, y, t, free in itertools.product((-9999, -1, 0, 9, 9999), (0, burst, 200), (0, 1, 9), (1, 2)):
            PROGRAM.step(shared | {"free": free}, NEURON | {"u": u, "y": y, "t": t}, 0)

    run_all(fixed + each * burst)
    with pytest.raises(ValueError, match="does not end"):
        run_all(fixed + each * burst - 1)


def test_the_docs_say_first_that_it_was_never_run():
    assert DOCS.read_text(encoding="utf-8").splitlines()[2].startswith("**Never run on a chip.**")


def test_the_docs_have_the_program_verbatim():
    assert f"```text\n{TEXT}```\n" in DOCS.read_text(encoding="utf-8")


def test_every_line_of_the_program_says_what_it_is():
    for line in TEXT.splitlines():
        if line.split(";")[0].strip() not in ("", "done:"):
            assert len(line.partition(";")[2].strip()) > 5


def test_the_table_of_the_docs_has_every_register_in_its_width():
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| (\d+) (signed|unsigned) \|", DOCS.read_text(encoding="utf-8"), re.M)
    expected = [
        (slot.name, slot.kind, str(slot.bits), "signed" if slot.signed else "unsigned")
        for slot in PROGRAM.slots.values()
    ]
    assert rows == expected


def test_the_docs_count_words_and_instructions():
    assert len(PROGRAM.names("word")) == 6
    assert f"six words, and its program for {len(PROGRAM.instructions)} instructions" in DOCS.read_text(
        encoding="utf-8"
    )


def test_the_widths_are_those_of_the_hardware():
    bits = read_hardware()
    for slot in PROGRAM.slots.values():
        assert slot.bits + (not slot.signed) <= bits.state_bits
    assert [PROGRAM.slots[name].bits for name in ("u", "bias", "u0", "a")] == [bits.state_bits] * 4
    assert PROGRAM.slots["s"].bits == 8 <= bits.message_bits


def test_the_docs_name_every_instruction():
    text = DOCS.read_text(encoding="utf-8")
    assert [name for name in interpreter.OPERANDS if f"| `{name} " not in text] == []
