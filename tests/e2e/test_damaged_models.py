"""Damaged files are refused with an error that names the file, the offset or the field. `tests/bench/report.py models i`
runs every kind of damage; here is a sample of each format."""

import daemon
import damaged_models
import pytest

EVERY = 23  # a prime, so that the sample meets each group


@pytest.mark.parametrize("form", damaged_models.KINDS)
def test_damage_is_refused_by_name(form, tmp_path):
    sound = damaged_models.run(daemon.binary(), tmp_path / "sound",
                               damaged_models.write(damaged_models.SOUND[form], tmp_path / "in"))
    assert sound[0] == 0, sound[1]
    for number, damage in enumerate(damaged_models.KINDS[form]()):
        if number % EVERY != 0:
            continue
        path = damaged_models.write(damage, tmp_path / str(number))
        code, error, _ = damaged_models.run(daemon.binary(), tmp_path / "zoo", path)
        assert damaged_models.problem(damage, code, error) == "", damage.name
