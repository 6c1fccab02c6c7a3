"""Faults of structure that this code once had, so that they do not come back."""

import re
from dataclasses import fields

from test_arrows import FILES, ROOT

from lvdm_engines.backends.backend import SessionOptions
from lvdm_rt.cli import generate
from lvdm_rt.decoding.autoencoder import Autoencoder


def sources():
    return {str(file.relative_to(ROOT)): file.read_text("utf-8") for file in FILES}


def test_every_option_of_a_session_can_be_given_on_the_command_line():
    flags = {option.name for option in generate.params}
    # which plan is taken is settled by how plans are built
    assert {field.name for field in fields(SessionOptions)} - {"plan"} <= flags


def test_the_autoencoder_hands_out_no_networks():
    assert not [name for name in vars(Autoencoder) if "session" in name]


def test_what_a_session_can_do_stands_in_its_type():
    asking = re.compile(r"(getattr|hasattr)\(\w*session")
    assert [name for name, text in sources().items() if asking.search(text)] == []


def test_files_of_bundles_and_checkpoints_are_hashed_in_one_place():
    homes = [name for name, text in sources().items() if "hashlib.file_digest" in text]
    assert homes == ["engines/lvdm_engines/bundle.py"]


def test_what_stderr_is_told_goes_through_one_place():
    homes = [name for name, text in sources().items() if "err=True" in text]
    assert homes == ["engines/lvdm_engines/command_line.py"]


def test_pictures_are_cropped_in_one_place():
    homes = [name for name, text in sources().items() if re.search(r"def \w*crop\w*\(", text)]
    assert [name for name in homes if "train/" not in name] == ["runtime/lvdm_rt/video/picture.py"]


def test_every_extra_package_has_a_use_that_is_told():
    told = (ROOT / "docs/backends.md").read_text("utf-8")
    assert "polygraphy inspect model" in told
