"""Hardware configurations: what is shipped can be read, what is wrong is refused in one line."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from lava_casc.errors import HardwareConfigError
from lava_casc.hardware import Hardware, read_hardware, shipped_configs

RIGHT = {"name": '"chip"', "state_bits": "24", "weight_bits": "8", "weight_exponent_max": "7", "message_bits": "24"}


def _write(folder, **changes):
    path = folder / "chip.toml"
    path.write_text(
        "\n".join(f"{key} = {value}" for key, value in (RIGHT | changes).items() if value), encoding="utf-8"
    )
    return path


def test_every_shipped_configuration_can_be_read_by_name_and_by_path():
    shipped = shipped_configs()
    assert "loihi2" in shipped
    for name, path in shipped.items():
        assert read_hardware(name) == read_hardware(path) == read_hardware(str(path))


def test_the_default_is_loihi2():
    assert read_hardware() == Hardware(
        name="loihi2", state_bits=24, weight_bits=8, weight_exponent_max=7, message_bits=24
    )


def test_every_number_of_a_shipped_configuration_has_a_source():
    for path in shipped_configs().values():
        blocks = path.read_text(encoding="utf-8").split("\n\n")
        assert all("public" in block or "Source:" in block for block in blocks)


def test_a_file_of_ones_own_is_read(tmp_path):
    assert read_hardware(_write(tmp_path)).name == "chip"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state_bits": None}, "state_bits: Field required. Known keys: name, state_bits, weight_bits"),
        ({"state_bit": "24"}, "state_bit: Extra inputs are not permitted"),
        ({"state_bits": '"24"'}, "state_bits: Input should be a valid integer"),
        ({"state_bits": "24.0"}, "state_bits: Input should be a valid integer"),
        ({"state_bits": "true"}, "state_bits: Input should be a valid integer"),
        ({"state_bits": "1"}, "state_bits: Input should be greater than or equal to 2"),
        ({"state_bits": "33"}, "state_bits: Input should be less than or equal to 32"),
        ({"weight_bits": "1"}, "weight_bits: Input should be greater than or equal to 2"),
        ({"weight_bits": "17"}, "weight_bits: Input should be less than or equal to 16"),
        ({"weight_exponent_max": "-1"}, "weight_exponent_max: Input should be greater than or equal to 0"),
        ({"weight_exponent_max": "25"}, "weight_exponent_max: Input should be less than or equal to 24"),
        ({"message_bits": "1"}, "message_bits: Input should be greater than or equal to 2"),
        ({"message_bits": "33"}, "message_bits: Input should be less than or equal to 32"),
        ({"name": '""'}, "name: String should have at least 1 character"),
        ({"name": "5"}, "name: Input should be a valid string"),
        ({"state_bits": "= 24"}, "not a readable TOML file .*Start from one in hw_configs"),
    ],
)
def test_wrong_keys_types_and_values_are_named(tmp_path, changes, message):
    path = _write(tmp_path, **changes)
    with pytest.raises(HardwareConfigError, match=message) as raised:
        read_hardware(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("key", ["state_bits", "weight_bits", "message_bits"])
def test_the_least_number_of_bits_is_two(tmp_path, key):
    assert getattr(read_hardware(_write(tmp_path, **{key: "2"})), key) == 2


def test_a_file_that_is_no_text_is_refused(tmp_path):
    (tmp_path / "chip.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(HardwareConfigError, match="chip.toml: not a readable TOML file"):
        read_hardware(tmp_path / "chip.toml")


@pytest.mark.parametrize("source", ["loihi3", "missing.toml", ""])
def test_a_missing_file_is_refused_and_what_there_is_is_named(source):
    with pytest.raises(HardwareConfigError, match=r"no such hardware configuration. .* one of: .*loihi2"):
        read_hardware(source)


def test_a_folder_is_no_configuration(tmp_path):
    with pytest.raises(HardwareConfigError, match="no such hardware configuration"):
        read_hardware(tmp_path)


def test_limits_do_not_change():
    with pytest.raises(ValidationError, match="frozen"):
        read_hardware().state_bits = 32
