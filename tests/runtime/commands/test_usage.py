import sys

import pytest
from toy_files import names, python

from lvdm_rt.cli import generate


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["-o", "a.mp4", "--sampler", "dpmpp_2m", "--eta", "1"], "--eta belongs to ddim"),
        (["-o", "a.mp4", "--sampler", "ddpm", "--eta", "0"], "--eta belongs to ddim"),
        (["-o", "a.mp4", "--fade", "8"], "--fade belongs to --condition"),
        (["-o", "-", "--json"], "--json prints on standard output"),
        (["-o", "-", "--resume"], "keeps nothing to --resume"),
        (["-o", "-", "--videos", "2"], "takes one video"),
        (["-o", "sky.avi"], "suffix '.avi' is not one of"),
        (["-o", ""], "it names no file"),
        (["-o", "a.mp4", "--condition", ""], "--condition got an empty name"),
        (["-o", "a.mp4", "--bundle", ""], "--bundle got an empty name"),
        (["-o", "a.mp4", "--frames", "0"], "--frames"),
        (["-o", "a.mp4", "--frames", "many"], "--frames"),
        (["-o", "a.mp4", "--seed", "-1"], "--seed"),
        (["-o", "a.mp4", "--seed", str(2**64)], "--seed"),
        (["-o", "a.mp4", "--videos", "0"], "--videos"),
        (["-o", "a.mp4", "--steps", "0"], "--steps"),
        (["-o", "a.mp4", "--batch-size", "0"], "--batch-size"),
        (["-o", "a.mp4", "--batch-size", "5000"], "--batch-size"),
        (["-o", "a.mp4", "--first-video", "18446744073708551616"], "--first-video"),
        (["-o", "a.mp4", "--ray", "--workers", "2000"], "--workers"),
        (["-o", "a.mp4", "--frames", "10000001"], "--frames"),
        (["-o", "a.mp4", "--guidance", "-2"], "--guidance"),
        (["-o", "a.mp4", "--text-guidance", "nan"], "--text-guidance"),
        (["-o", "a.mp4", "--eta", "2"], "--eta"),
        (["-o", "a.mp4", "--fps", "0"], "--fps"),
        (["-o", "a.mp4", "--fps", "inf"], "--fps"),
        (["-o", "a.mp4", "--guidance-interval", "9:3"], "--guidance-interval"),
        (["-o", "a.mp4", "--noise-level", "-2"], "--noise-level"),
        (["-o", "a.mp4", "--mode", "long"], "--mode"),
        (["-o", "a.mp4", "--sampler", "euler"], "--sampler"),
        (["-o", "a.mp4", "--backend", "abacus"], "--backend"),
        ([], "-o"),
        (["-o", "a.mp4", "--colour"], "--colour"),
    ],
)
def test_flags_that_cannot_be_meant_are_usage_errors(command, tmp_path, flags, message):
    code, out, err = command("generate", *flags)
    assert (code, out) == (2, "")
    assert message in err
    assert names(tmp_path) == []


def test_every_flag_is_in_the_help(command):
    code, out, err = command("generate", "--help")
    assert (code, err) == (0, "")
    flags = [max(option.opts, key=len) for option in generate.params]
    assert len(flags) > 20
    assert [flag for flag in flags if flag not in out] == []


def test_the_version_is_told(command):
    assert "0.1.0" in command("--version")[1]


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from lvdm_rt.cli import run; status = run(['generate', '--help']);"
        "heavy = {'numpy', 'av', 'onnxruntime', 'msgspec', 'tqdm', 'torch'} & set(sys.modules);"
        "sys.exit(f'imported {heavy}' if heavy else status)"
    )
    child = python(code)
    assert (child.returncode, child.stderr) == (0, "")


def test_a_video_to_a_closed_stdout_is_refused(command, monkeypatch):
    monkeypatch.setattr(sys, "stdout", None)
    code, _, err = command("generate", "-o", "-")
    assert (code, "needs standard output, which is closed" in err) == (2, True)
