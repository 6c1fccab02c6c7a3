"""What a GPU check says of its numbers."""

import pytest

pytest.importorskip("torch")

from lvdm_tools.bench.gpu_page import host_share, judge, page, verdict

GPU = {"name": "NVIDIA H100", "capability": "9.0", "total": 80 << 30, "free": 1, "driver": "13"}
FAILED = {"failed": "CUDA out of | memory"}
RAN = {
    "parity": {"predict": {"most": 0.1}},
    "predict": {"8": {"ms": 1.0}, "32": FAILED},
    "decoder": {"1": {"ms": 1.0}},
    "end_to_end": {"frames_per_second": 10.0},
}


@pytest.fixture
def tensorrt():
    return {
        "problem": None,
        "build_seconds": 200.0,
        "parity": {"predict": {"most": 0.004}},
        "predict": {
            "2": {"ms": 4.0},
            "8": {"ms": 8.0, "device_ms": 7.8, "copies_ms": 0.2},
            "32": {"ms": 30.0, "device_ms": 29.0, "copies_ms": 0.9},
        },
        "decoder": {"1": {"ms": 14.0, "device_ms": 13.9}},
        "end_to_end": {"frames_per_second": 12.5, "seconds": 10.0, "device_seconds": 9.68},
    }


@pytest.fixture
def found(tensorrt):
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
            "torch.compile fp16": {"predict": {"8": 12.0, "32": FAILED}, "decoder": {"1": 20.0}},
        },
        "backends": {"tensorrt": tensorrt, "tensorrt-rtx": {"problem": "no such GPU"}},
        "targets": [],
    }


def test_the_targets_are_judged_on_what_was_measured(found):
    assert [(target["got"], target["met"]) for target in judge(found)] == [
        ("41.4% of peak, 1.50× the best PyTorch (worst of batch 8, 32)", True),
        ("1.43× the best PyTorch", True),
        ("3.2%", True),
    ]


@pytest.mark.parametrize(
    ("predict", "torch", "got", "met"),
    [
        ({"8": {"ms": 11.0}}, {"8": 12.0}, "30.1% of peak, 1.09× the best PyTorch", False),
        ({"8": {"ms": 8.0}, "32": {"ms": 35.0}}, {"8": 12.0, "32": 36.0}, "37.9% of peak", False),
        ({"8": {"ms": 11.0}}, {}, "30.1% of peak, not measured (worst of batch 8)", None),
        ({"8": {"ms": 8.0}, "32": FAILED}, {"8": 12.0}, "batch 8; batch 32 did not run)", None),
        ({}, {}, "not measured of peak, not measured (worst of batch none)", None),
    ],
    ids=["slow", "the worst batch", "an alternative that was not measured", "not run", "nothing"],
)
def test_a_denoiser_misses_its_target_only_where_both_ways_to_it_were_measured(
    found, tensorrt, predict, torch, got, met
):
    tensorrt["predict"], found["torch"] = predict, {"torch": {"predict": torch}}
    target = judge(found)[0]
    assert target["met"] is met
    assert got in target["got"]


def test_what_was_never_measured_is_neither_met_nor_missed(found, tensorrt):
    del tensorrt["end_to_end"]["device_seconds"], tensorrt["decoder"]
    assert [(t["got"], t["met"]) for t in judge(found)[1:]] == [("not measured", None)] * 2
    assert host_share({}) is None


def test_the_page_shows_numbers_failures_and_what_never_ran(found, tensorrt):
    found["targets"] = judge(found)
    tensorrt["parity"] |= {"decoder": {"failed": "it cannot be opened"}}
    tensorrt["parity"] |= {"encoder": {"most": "nan", "problems": ["mean error nan"]}}
    text = page(found)
    assert text.startswith("# GPU check: `sky` fp16 on NVIDIA H100\n")
    assert (
        "| 200.0 s | predict 0.004, decoder failed: it cannot be opened, "
        "encoder nan (OUTSIDE LIMITS: mean error nan) |" in text
    )
    assert "| tensorrt-rtx | never run: no such GPU |" in text
    assert "| tensorrt | 4.00 (21% of peak) | 8.00 (41% of peak) | 30.00 (44% of peak) |" in text
    assert "| torch.compile fp16 | never run | 12.00 | failed: CUDA out of / memory |" in text
    assert "| tensorrt-rtx | never run | never run | never run |" in text
    assert "| tensorrt | not measured | 0.200 (2.5%) | 0.900 (3.0%) |" in text
    assert "| tensorrt | 12.50 | 3.2% |" in text


@pytest.mark.parametrize(
    ("entry", "state"),
    [
        (RAN, "works here"),
        ({"build_seconds": FAILED}, "does not compile"),
        (
            RAN | {"parity": {"decoder": {"most": 9.0, "problems": ["mean error 9"]}}},
            "not shown to agree with the CPU: decoder",
        ),
        (RAN | {"parity": {"predict": FAILED}}, "not shown to agree with the CPU: predict"),
        (RAN | {"predict": {"8": FAILED}}, "fails at predict"),
        (RAN | {"decoder": {"1": FAILED}}, "fails at decoder"),
        (RAN | {"end_to_end": FAILED}, "fails at a whole video"),
        ({"parity": {"predict": {"most": 0.1}}}, "not measured to the end"),
        ({}, "not measured to the end"),
    ],
)
def test_a_backend_works_only_where_it_compiles_agrees_and_runs(found, entry, state):
    found["backends"] = {"tensorrt": {"problem": None, **entry}}
    assert f"| tensorrt | {state} |" in page(found)
    assert verdict(found) == (None if state == "works here" else f"tensorrt {state}")


def test_a_check_passes_with_one_working_backend_and_others_that_cannot_run(found):
    assert verdict(found) is None
    del found["backends"]["tensorrt"]
    assert verdict(found) == "no backend can run here"


def test_a_dry_run_never_looks_like_a_gpu(found):
    found |= {"gpu": None, "backends": {"cpu": {"problem": None}}}
    text = page(found)
    assert "on a CPU, as a dry run: no number here is a GPU's" in text
    assert "% of peak" not in text
    assert "| none | no TensorRT backend ran here |  | not measured |" in text
