"""The test cases that lava-nc ships for its own Conv and Dense, with the fast models put in: the same, bit by bit.

Left out, for there is nothing here to put in: the cases of LearningDense and of DelayDense, which are other
processes, and those that make a process without running it. lava-nc compares its convolutions with torch only where
torch is switched on in its source; with saved data it always does, and so do we.
"""

import gc
import importlib
import importlib.util
import inspect
import unittest
from pathlib import Path

import numpy as np
import pytest
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from lava.proc.conv.models import PyConvModelFixed, PyConvModelFloat
from lava.proc.conv.process import Conv
from lava.proc.dense.models import PyDenseModelBitAcc, PyDenseModelFloat
from lava.proc.dense.process import Dense
from loihi_models import started, step

from lava_casc.loihi.fast_synapse import FastConvFixed, FastConvFloat, FastDenseFixed, FastDenseFloat

FAST = {PyDenseModelFloat: FastDenseFloat, PyDenseModelBitAcc: FastDenseFixed}
#: The cases that run a plain Dense or convolve, and whether the models under test are run in Lava itself.
TAKEN = {
    "dense.test_models": {
        "TestDenseProcessModelFloat": {
            "test_float_pm_buffer",
            "test_float_pm_fan_in",
            "test_float_pm_fan_out",
            "test_float_pm_recurrence",
        },
        "TestDenseProcessModelFixed": {
            "test_bitacc_pm_fan_out_excitatory",
            "test_bitacc_pm_fan_out_mixed_sign",
            "test_bitacc_pm_fan_out_weight_exp",
            "test_bitacc_pm_fan_out_weight_precision",
            "test_bitacc_pm_fan_in_mixed_sign",
            "test_bitacc_pm_recurrence",
        },
    },
    "conv.test_utils": {"TestConv": {"test_conv", "test_conv_saved_data", "test_conv_to_sparse"}},
}
LEFT_OUT = {
    "dense.test_models": {"TestDelayDenseProcessModel": "DelayDense is another process"},
    "dense.test_process": "makes processes and runs none",
    "dense.test_learning": "LearningDense is another process",
    "dense.test_stdp_sim": "LearningDense is another process",
    "conv.test_process": "makes a process and runs none",
}
#: How many convolutions each case asks for.
CONVOLUTIONS = 10


def _module(name):
    name = f"tests.lava.proc.{name}"
    try:
        found = importlib.util.find_spec(name)
    except ModuleNotFoundError:
        found = None
    if found is None:
        pytest.skip(f"this lava-nc ships no {name}")
    return importlib.import_module(name)


def _cases(name):
    return [(group, case) for group, cases in sorted(TAKEN[name].items()) for case in sorted(cases)]


def _run(module, group, case):
    getattr(module, group)(case).debug()


def test_every_case_of_lavas_is_taken_or_left_out_with_a_reason():
    for name, groups in TAKEN.items():
        module = _module(name)
        for group, cases in inspect.getmembers(module, inspect.isclass):
            if not issubclass(cases, unittest.TestCase) or group in LEFT_OUT.get(name, {}):
                continue
            assert set(unittest.TestLoader().getTestCaseNames(cases)) == groups[group]
        files = {path.stem for path in Path(module.__file__).parent.glob("test_*.py")}
        kind = name.split(".")[0]
        assert files == {known.split(".")[1] for known in {*TAKEN, *LEFT_OUT} if known.startswith(kind)}


def _observed(monkeypatch, module, group, case, models):
    """Return every variable that is read in a case, and what the Dense holds at its end; count the models put in."""
    seen, chosen = [], []
    read, stop = Var.get, AbstractProcess.stop
    select = module.DenseRunConfig.select

    def pick(self, process, found):
        model = select(self, process, found)
        if type(process) is Dense:
            chosen.append(models.get(model, model))
        return models.get(model, model)

    def keep(self, *args, **kwargs):
        value = read(self, *args, **kwargs)
        seen.append((self.name, np.array(value)))
        return value

    def last(self):
        assert type(self) is Dense, "every case of Lava's stops its Dense"
        self.a_buff.get()
        self.weights.get()
        stop(self)

    gc.collect()  # what other tests have left would be stopped by `last`, too
    with monkeypatch.context() as patch:
        patch.setattr(module.DenseRunConfig, "select", pick)
        patch.setattr(Var, "get", keep)
        patch.setattr(AbstractProcess, "stop", last)
        _run(module, group, case)
    return seen, chosen


@pytest.mark.parametrize(("group", "case"), _cases("dense.test_models"))
def test_a_dense_synapse_passes_lavas_own_case_and_holds_the_same(group, case, monkeypatch):
    module = _module("dense.test_models")
    stock, models = _observed(monkeypatch, module, group, case, {})
    assert len(models) == 1
    assert models[0] in FAST
    fast, faster = _observed(monkeypatch, module, group, case, FAST)
    assert faster == [FAST[models[0]]]
    assert [name for name, _ in fast] == [name for name, _ in stock]
    assert {"a_buff", "weights"} <= {name for name, _ in fast}
    for (_, ours), (_, theirs) in zip(fast, stock, strict=True):
        assert ours.dtype == theirs.dtype
        assert np.array_equal(ours, theirs)


def _convolved(model, process, spikes):
    made = started(process, model)
    step(made, s_in=spikes)
    return step(made, s_in=np.zeros_like(spikes))["a_out"]


@pytest.mark.parametrize(("group", "case"), _cases("conv.test_utils"))
def test_a_convolution_passes_lavas_own_case_and_delivers_the_same(group, case, monkeypatch):
    module = _module("conv.test_utils")
    stock, loudest = module.utils.conv_scipy, []

    def convolve(image, weight, kernel, stride, padding, dilation, groups):
        process = Conv(
            weight=weight,
            input_shape=image.shape,
            stride=tuple(stride),
            padding=tuple(padding),
            dilation=tuple(dilation),
            groups=int(groups),
            num_message_bits=8,
        )
        # Their images are fractions; of integers the sums are exact in any order, and have to be the same.
        spikes = np.floor(image * 256).astype(np.int32) - 128
        with monkeypatch.context() as patch:  # Lava's own models convolve through the function that stands in here
            patch.setattr(module.utils, "conv_scipy", stock)
            expected = _convolved(PyConvModelFixed, process, spikes)
            theirs = _convolved(PyConvModelFloat, process, image)
        for model in (FastConvFixed, FastConvFloat):
            found = _convolved(model, process, spikes)
            assert found.dtype == (np.float64 if model is FastConvFloat else np.int32)
            assert np.array_equal(found, expected), model
        loudest.append(np.abs(expected).max())
        ours = _convolved(FastConvFloat, process, image)
        assert np.abs(ours - theirs).max() <= 1e-12 * np.abs(theirs).max()
        return ours

    monkeypatch.setattr(module.utils, "conv_scipy", convolve)
    _run(module, group, case)
    assert len(loudest) == CONVOLUTIONS
    assert min(loudest) > 0
