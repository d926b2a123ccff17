"""Tables of energy constants: those that are shipped, and what a file of one's own may say."""

import pytest

from lava_casc.energy import EVENTS, read_energy, shipped_energy_tables
from lava_casc.errors import HardwareConfigError

GOOD = 'name = "x"\nabout = "y"\n[synop]\nvalue = 2.0\nunit = "pJ"\nsource = "z"\n'


@pytest.mark.parametrize("name", ["cmos45-float32", "cmos45-int8", "loihi1"])
def test_every_constant_that_is_shipped_has_a_unit_and_a_source(name):
    table = read_energy(name)
    assert set(shipped_energy_tables()) == {"cmos45-float32", "cmos45-int8", "loihi1"}
    assert len(table.constants) >= 4
    assert all(
        constant.unit == "pJ" and constant.value > 0 and constant.source for constant in table.constants.values()
    )


def test_energy_is_number_times_constant():
    table = read_energy("cmos45-float32")
    assert table.energy_pj({"mac": 10.0}) == pytest.approx(46)
    assert table.energy_pj({"synop": 10.0, "input_synop": 2.0, "update": 1e9, "message": 5.0}) == pytest.approx(9 + 9.2)
    loihi = read_energy("loihi1")
    assert loihi.energy_pj({"synop": 2.0, "message": 1.0, "update": 1.0}) == pytest.approx(2 * 23.6 + 1.7 + 81)
    assert loihi.energy_pj({"mac": 10.0}) is None
    assert set(loihi.constants) < set(EVENTS)


def test_a_file_of_ones_own_is_read(tmp_path):
    (tmp_path / "x.toml").write_text(GOOD)
    assert read_energy(tmp_path / "x.toml").energy_pj({"synop": 3.0}) == 6.0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('unit = "pJ"', 'unit = "nJ"', "synop.unit: Input should be 'pJ'"),
        ('unit = "pJ"\n', "", "synop.unit: Field required"),
        ('source = "z"', 'source = ""', "synop.source: String should have at least 1 character"),
        ("value = 2.0", "value = -2.0", "synop.value: Input should be greater than or equal to 0"),
        ("value = 2.0", "value = inf", "synop.value: Input should be a finite number"),
        ("value = 2.0", "valu = 2.0", r"synop.valu: Extra inputs are not permitted. Did you mean value"),
        ("[synop]", "[synops]", "synops: Extra inputs are not permitted. Did you mean synop"),
        ("[synop]", "[banana]", "banana: Extra inputs are not permitted. Known: name, about, mac"),
        ("value = 2.0", "value = = 2", "not a readable TOML file"),
    ],
)
def test_wrong_keys_units_and_values_are_named(tmp_path, old, new, message):
    path = tmp_path / "x.toml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(HardwareConfigError, match=message) as raised:
        read_energy(path)
    assert str(raised.value).startswith(f"{path}: ")


def test_a_missing_table_is_refused_and_what_there_is_is_named():
    with pytest.raises(
        HardwareConfigError, match=r"no such table of energy constants.*cmos45-float32, cmos45-int8, loihi1"
    ):
        read_energy("loihi9")
