"""What a GPU check says of its numbers."""

import pytest

pytest.importorskip("torch")

from lvdm_tools.bench.table import host_share, judge, page, verdict

GPU = {
    "name": "NVIDIA H100",
    "capability": "9.0",
    "total": 80 << 30,
    "free": 1,
    "driver": "CUDA 13",
}


@pytest.fixture
def found():
    return {
        "model": "sky",
        "precision": "fp16",
        "gpu": GPU,
        "machine": "Linux",
        "when": "2026-01-01",
        "packages": {"tensorrt": "11.4"},
        "peak_tflops": 700.0,
        "gflop": {"predict": 290.0, "decoder": 2850.0},
        "torch": {
            "torch eager fp32": {"predict": {"8": 60.0}, "decoder": {"1": 40.0}},
            "torch.compile fp16": {
                "predict": {"8": 12.0, "32": {"failed": "CUDA out of | memory"}},
                "decoder": {"1": 20.0},
            },
        },
        "backends": {
            "tensorrt": {
                "problem": None,
                "build_seconds": 200.0,
                "parity": {"predict": {"most": 0.004}},
                "predict": {
                    "2": {"ms": 4.0},
                    "8": {"ms": 8.0, "device_ms": 7.8, "copies_ms": 0.2},
                    "32": {"ms": 30.0, "device_ms": 29.0, "copies_ms": 0.9},
                },
                "decoder": {"1": {"ms": 14.0, "device_ms": 13.9}},
                "end_to_end": {
                    "frames_per_second": 12.5,
                    "outside_sessions": 0.02,
                    "seconds": 10.0,
                    "device_seconds": 9.68,
                },
            },
            "tensorrt-rtx": {"problem": "does not list compute capability 9.0"},
        },
        "targets": [],
    }


def test_the_targets_are_judged_on_what_was_measured(found):
    denoiser, decoder, host = judge(found)
    assert denoiser["met"] is True
    assert denoiser["got"] == "41.4% of peak, 1.50× the best PyTorch (worst of batch 8, 32)"
    assert (decoder["met"], decoder["got"]) == (True, "1.43× the best PyTorch")
    assert (host["met"], host["got"]) == (True, "3.2%")


def test_a_slow_denoiser_misses_its_target(found):
    found["backends"]["tensorrt"]["predict"] = {"8": {"ms": 11.0}}
    assert [target["met"] for target in judge(found)] == [False, True, True]


def test_the_worst_batch_decides(found):
    found["torch"]["torch.compile fp16"]["predict"]["32"] = 36.0
    found["backends"]["tensorrt"]["predict"]["32"]["ms"] = 35.0
    denoiser = judge(found)[0]
    assert denoiser["met"] is False
    assert denoiser["got"].startswith("37.9% of peak, 1.03× the best PyTorch")


def test_an_alternative_that_was_not_measured_is_not_a_no(found):
    found["torch"] = {}
    found["backends"]["tensorrt"]["predict"]["8"]["ms"] = 11.0
    denoiser = judge(found)[0]
    assert denoiser["met"] is None
    assert denoiser["got"] == "30.1% of peak, not measured (worst of batch 8, 32)"


def test_the_hosts_share_is_not_told_without_the_devices_time(found):
    del found["backends"]["tensorrt"]["end_to_end"]["device_seconds"]
    host = judge(found)[2]
    assert (host["met"], host["got"]) == (None, "not measured")


def test_what_was_never_measured_is_neither_met_nor_missed(found):
    found["backends"]["tensorrt"] = {"problem": None}
    assert [target["met"] for target in judge(found)] == [None, None, None]
    assert host_share({}) is None


def test_the_page_shows_numbers_failures_and_what_never_ran(found):
    found["targets"] = judge(found)
    text = page(found)
    assert text.startswith("# GPU check: `sky` fp16 on NVIDIA H100\n")
    assert "| tensorrt | works here | 200.0 s | predict 0.004 |" in text
    assert "| tensorrt-rtx | never run: does not list compute capability 9.0 |" in text
    assert "| tensorrt | 4.00 (21% of peak) | 8.00 (41% of peak) | 30.00 (44% of peak) |" in text
    assert "| torch.compile fp16 | never run | 12.00 | failed: CUDA out of / memory |" in text
    assert "| tensorrt-rtx | never run | never run | never run |" in text
    assert "| tensorrt | not measured | 0.200 (2.5%) | 0.900 (3.0%) |" in text
    assert "leaving latents on the device could save this much at most" in text
    assert "| tensorrt | 12.50 | 3.2% |" in text


def test_parity_outside_the_limits_stands_beside_its_numbers(found):
    found["backends"]["tensorrt"]["parity"] = {
        "predict": {"most": "nan", "problems": ["mean error nan, expected at most 0.005"]},
        "decoder": {"failed": "decoder: cannot be opened"},
    }
    text = page(found)
    assert "predict nan (OUTSIDE LIMITS: mean error nan, expected at most 0.005)" in text
    assert "decoder failed: decoder: cannot be opened" in text


RAN = {
    "parity": {"predict": {"most": 0.1}},
    "predict": {"8": {"ms": 1.0}, "32": {"failed": "out of memory"}},
    "decoder": {"1": {"ms": 1.0}},
    "end_to_end": {"frames_per_second": 10.0},
}
WRONG = {"decoder": {"most": 9.0, "problems": ["mean error 9"]}}


@pytest.mark.parametrize(
    ("entry", "state"),
    [
        (RAN, "works here"),
        ({"build_seconds": {"failed": "cannot compile"}}, "does not compile"),
        (RAN | {"parity": WRONG}, "not shown to agree with the CPU: decoder"),
        (
            RAN | {"parity": {"predict": {"failed": "x"}}},
            "not shown to agree with the CPU: predict",
        ),
        (RAN | {"predict": {"8": {"failed": "NaN"}}}, "fails at predict"),
        (RAN | {"decoder": {"1": {"failed": "NaN"}}}, "fails at decoder"),
        (RAN | {"end_to_end": {"failed": "NaN"}}, "fails at a whole video"),
        ({"parity": {"predict": {"most": 0.1}}}, "not measured to the end"),
        ({}, "not measured to the end"),
    ],
)
def test_a_backend_works_only_where_it_compiles_agrees_and_runs(found, entry, state):
    found["backends"] = {"tensorrt": {"problem": None, **entry}}
    assert f"| tensorrt | {state} |" in page(found)
    assert verdict(found) == (None if state == "works here" else f"tensorrt {state}")


def test_a_batch_that_did_not_run_leaves_its_target_open(found):
    found["backends"]["tensorrt"]["predict"]["32"] = {"failed": "out of memory"}
    target = judge(found)[0]
    assert target["met"] is None
    assert "(worst of batch 8; batch 32 did not run)" in target["got"]


def test_a_check_passes_with_one_working_backend_and_others_that_cannot_run(found):
    assert verdict(found) is None
    del found["backends"]["tensorrt"]
    assert verdict(found) == "no backend can run here"


def test_a_dry_run_never_looks_like_a_gpu(found):
    found |= {"gpu": None, "backends": {"cpu": {"problem": None}}, "targets": []}
    text = page(found)
    assert "on a CPU, as a dry run: no number here is a GPU's" in text
    assert "% of peak" not in text
    assert "| none | no TensorRT backend ran here |  | not measured |" in text
