"""Hardware configurations: those that are shipped, and what a file of one's own may say."""

import re

import pytest
from pydantic import ValidationError

from lava_casc.energy import shipped_energy_tables
from lava_casc.errors import HardwareConfigError
from lava_casc.hardware import DEFAULT, Quantity, read_hardware, shipped_configs

SHIPPED = ("lava_cpu", "loihi2_kapoho_point", "loihi2_oheo_gulch", "template")


@pytest.mark.parametrize("name", SHIPPED)
def test_what_is_shipped_says_of_every_number_where_it_is_from(name):
    assert tuple(shipped_configs()) == SHIPPED
    found = read_hardware(name)
    assert found.name == name
    assert (found.state_bits, found.weight_bits, found.weight_exponent_max, found.message_bits) == (24, 8, 7, 24)
    sections = [found.registers, *(s for s in (found.core, found.chip) if s is not None)]
    quantities = [value for section in sections for _, value in section if isinstance(value, Quantity)]
    assert len(quantities) == (6 if name == "lava_cpu" else 12)
    assert all(len(quantity.source) > 4 or name == "template" for quantity in quantities)
    unknown = [quantity for quantity in quantities if not quantity.is_known]
    assert len(unknown) == (0 if name == "lava_cpu" else 3)
    assert all("not public" in quantity.source for quantity in unknown)
    assert found.energy in (None, *shipped_energy_tables())


def test_the_boards_differ_in_their_chips():
    one, eight = read_hardware(), read_hardware("loihi2_kapoho_point")
    assert one.name == DEFAULT == "loihi2_oheo_gulch"
    assert (one.chip.chips.number, eight.chip.chips.number) == (1, 8)
    assert one.core == eight.core
    assert one.inrc.partitions[0] == "oheogulch"
    assert eight.inrc.generations == ["N3C1"]


def _write(tmp_path, old="", new=""):
    text = shipped_configs()["template"].read_text()
    assert old in text
    path = tmp_path / "chip.toml"
    path.write_text(text.replace(old, new, 1) if old else text)
    return path


def test_a_file_of_ones_own_is_read(tmp_path):
    assert read_hardware(_write(tmp_path)).name == "template"
    path = _write(tmp_path, "state_bits = { value = 24", "state_bits = { value = 20")
    assert read_hardware(path).state_bits == 20
    bare = re.sub(r"\n\[core\].*", "", path.read_text(), flags=re.DOTALL)
    path.write_text(bare)
    assert read_hardware(path).core is read_hardware(path).inrc is None


def test_registers_can_be_others():
    wide = read_hardware().with_registers(state_bits=30, message_bits=16)
    assert (wide.state_bits, wide.message_bits, wide.weight_bits, wide.name) == (30, 16, 8, DEFAULT)
    assert read_hardware().with_registers(name="x").name == "x"
    assert read_hardware().state_bits == 24


STATE = "state_bits = { value = 24, unit"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("state_bits =", "state_bit =", "registers.state_bit: Extra inputs are not permitted. Did you mean state_bits"),
        ("\n[core]", "\n[cores]", "cores: Extra inputs are not permitted. Did you mean core"),
        ("bias_bits =", "bias_bits = 3 #", "registers.bias_bits: Input should be a valid dictionary"),
        ("\naxons_in =", "\naxon_in =", "core.axon_in: Extra inputs are not permitted. Did you mean axons_in"),
        (STATE, 'state_bits = { value = "24", unit', "registers.state_bits.value"),
        (STATE, "state_bits = { value = 24.0, unit", "registers.state_bits.value"),
        (STATE, "state_bits = { value = true, unit", "registers.state_bits.value"),
        (STATE, "state_bits = { valu = 24, unit", "registers.state_bits.valu: Extra .* Did you mean value"),
        (STATE, "state_bits = { value = 24, units", "registers.state_bits.units: Extra .* Did you mean unit"),
        (STATE, "state_bits = { value = 24, sauce = '', unit", "state_bits.sauce: Extra .* Did you mean source"),
        (STATE, "state_bits = { value = 1, unit", "state_bits: 1 is not within 2 .. 32"),
        (STATE, "state_bits = { value = 33, unit", "state_bits: 33 is not within 2 .. 32"),
        (STATE, "state_bits = { value = 24, assumed = 4, unit", "a known one has nothing assumed"),
        (STATE, 'state_bits = { value = "unknown", unit', "an unknown value needs what is assumed"),
        ('unit = "byte"', 'unit = "bit"', "synaptic_memory: the unit is 'bit', and must be 'byte'"),
        ('source = "yours" }', 'source = "" }', "chip.chips.source: String should have at least 1 character"),
        ("neurons = { value = 8192", "neurons = { value = 0", "neurons: 0 is not within 1"),
        ('"N3B3"', '"N3B4"', "inrc.generations.0: Input should be 'N3B3' or 'N3C1'"),
        ('partitions = ["oheogulch"]', "partitions = []", "inrc.partitions: List should have at least 1 item"),
        ('name = "template"', 'name = ""', "name: String should have at least 1 character"),
        ('name = "template"', "name = 5", "name: Input should be a valid string"),
        ("\n[registers]", "\n[registers", "not a readable TOML file .*Start from one in hw_configs"),
    ],
)
def test_wrong_keys_units_and_values_are_named(tmp_path, old, new, message):
    path = _write(tmp_path, old, new)
    with pytest.raises(HardwareConfigError, match=message) as raised:
        read_hardware(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


def test_cores_without_chips_are_refused(tmp_path):
    path = _write(tmp_path)
    path.write_text(re.sub(r"\n\[chip\].*?\n\[inrc\]", "\n[inrc]", path.read_text(), flags=re.DOTALL))
    with pytest.raises(HardwareConfigError, match="core and chip belong together"):
        read_hardware(path)


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "chip.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(HardwareConfigError, match="chip.toml: not a readable TOML file"):
        read_hardware(tmp_path / "chip.toml")


@pytest.mark.parametrize("source", ["x.toml", "", "nothing"])
def test_a_missing_file_is_refused_and_what_there_is_is_named(source):
    with pytest.raises(HardwareConfigError, match=r"no such hardware configuration. .* one of: .*loihi2_oheo_gulch"):
        read_hardware(source)


def test_a_name_that_is_nearly_right_is_guessed():
    with pytest.raises(HardwareConfigError, match="no such hardware configuration. Did you mean loihi2_oheo_gulch"):
        read_hardware("loihi2_oheogulch")


def test_a_folder_is_no_configuration(tmp_path):
    with pytest.raises(HardwareConfigError, match="no such hardware configuration"):
        read_hardware(tmp_path)


def test_limits_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        read_hardware().registers.state_bits.value = 32
