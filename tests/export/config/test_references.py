"""OmegaConf's `${a.b}` in the authors' files: followed within the file, and nowhere else."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from lvdm_engines.errors import ConfigError
from lvdm_export.config.yaml_config import Description, parse_config

PATH = Path("sky.yaml")


@pytest.fixture
def raw(official: Any) -> Any:
    return yaml.safe_load(official.config.read_text())


def read(raw: Any, **changes: object) -> Description:
    raw["model"]["params"] |= changes
    return parse_config(raw, PATH)


def test_values_lists_and_mappings_may_be_elsewhere_in_the_file(raw: Any) -> None:
    plain = read(raw)
    params = raw["model"]["params"]
    raw["sizes"] = {"side": 4, "mult": ["${sizes.one}"], "one": 1, "chain": "${sizes.side}"}
    raw["shared"] = {"unet": params["unet_config"]}
    params["unet_config"]["params"] |= {
        "channel_mult": "${sizes.mult}",
        "attention_resolutions": ["${model.params.n_prevs.0}"],
        "context_dim": None,
    }
    params["n_prevs"] = [1]
    found = read(raw, image_size="${sizes.chain}", unet_config="${shared.unet}")
    assert found.denoiser is not None
    assert plain.denoiser is not None
    assert found.denoiser.config["attention_resolutions"] == (1,)
    assert found.denoiser.config["channel_mult"] == plain.denoiser.config["channel_mult"]
    assert found.denoiser.latent_size == plain.denoiser.latent_size


def test_values_may_be_told_from_where_they_stand(raw: Any) -> None:
    plain = read(raw).denoiser
    params = raw["model"]["params"]
    unet = params["unet_config"]["params"]
    raw["shared"] = {"unet": {"params": dict(unet)}, "sizes": [2, 2], "inner": {"length": 5}}
    raw["shared"]["aside"] = "${.inner}"
    raw["shared"]["unet"]["params"] |= {
        "out_channels": "${...sizes[1]}",  # beside unet, in the place that is referred to
        "in_channels": 3,
        "attention_resolutions": ["${..out_channels}"],  # of the list itself, then beside it
        "temporal_length": "${ ...aside.length }",  # through another reference, into a mapping
    }
    found = read(raw, channels="${.image_size}", image_size=2, unet_config="${shared.unet}")
    assert found.denoiser is not None
    assert plain is not None
    assert found.denoiser.config == plain.config


@pytest.mark.parametrize("value", ["${ckpt_path}", "${oc.env:HOME}", "run-${now:%Y}"])
def test_what_only_training_reads_may_lead_anywhere(raw: Any, value: str) -> None:
    assert read(raw, ckpt_path=value).denoiser is not None


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("${oc.env:HOME}", r"channels is '\$\{oc\.env:HOME\}'; only a reference.*no environment"),
        ("${eval:'1+1'}", "no function and no environment"),
        ("${now:%Y}", "no function and no environment"),
        ("${.image}", r"refers to '\.image', which is not in the file"),
        ("${.channels}", "channels refers to itself"),
        (
            "${....model.params.image_size}",
            r"refers to '\.\.\.\.model.*above the whole file",
        ),
        ("${model.params.channels.x}", "channels refers to itself"),
        ("${model.${which}}", "only a reference to a whole value"),
        ("1${data.params.batch_size}", "only a reference to a whole value"),
        ("${", "only a reference to a whole value"),
        ("${data.params.size}", "channels refers to 'data.params.size', which is not in the file"),
        ("${data.params.batch_size.0}", "which is not in the file"),
        ("${model.params.n_prevs.7}", "which is not in the file"),
        ("${model.params.channels}", "channels refers to itself"),
        ("${data.params}", "expected a whole number"),
    ],
)
def test_what_cannot_be_followed_is_named_in_one_line(raw: Any, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        read(raw, channels=value)
    assert "\n" not in str(caught.value)


def test_a_long_chain_and_a_ring_end(raw: Any) -> None:
    raw["x"] = {str(n): f"${{x.{n + 1}}}" for n in range(40)} | {"a": "${x.b}", "b": "${x.a}"}
    for start in ("${x.0}", "${x.a}"):
        with pytest.raises(ConfigError, match="channels refers to itself"):
            read(raw, channels=start)
