"""`lvdm-tools bench --quick` as a whole, on what this machine has; no times are expected of it."""

import json
import subprocess
import sys

import pytest

pytest.importorskip("torch")

from lvdm_engines.opening import backend_report

CPU_BACKENDS = {name for name in ("openvino", "cpu") if backend_report()[name] is None}


def failures(found, place=""):
    """Name every place of a report where something could not be measured."""
    if not isinstance(found, dict):
        return
    if "failed" in found:
        yield f"{place}: {found['failed']}"
    for name, entry in found.items():
        yield from failures(entry, f"{place}/{name}")


@pytest.mark.exhaustive
def test_the_quick_report_holds_every_section_for_every_backend(tmp_path):
    page, numbers = tmp_path / "page.md", tmp_path / "numbers.json"
    page.write_text("before\n<!-- bench -->\n<!-- /bench -->\nafter\n", "utf-8")
    command = [sys.executable, "-c", "from lvdm_tools.cli import main; main()", "bench", "--quick"]
    files = ["--json", str(numbers), "--markdown", str(page)]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(numbers.read_text("utf-8"))
    assert not [*failures(found)]
    assert found["machine"]["peaks_gflop_per_s"]["fp32"] > 0
    for graph in found["graphs"].values():
        assert graph["ways"].keys() == CPU_BACKENDS | {"torch eager"}
        for way in graph["ways"].values():
            assert way["gflop_per_s"] == pytest.approx(1000 * graph["gflop"] / way["ms"])
    equal, default = found["videos"]["equal"]["ways"], found["videos"]["default"]["ways"]
    assert equal.keys() == CPU_BACKENDS | {"torch eager"}
    assert default.keys() == CPU_BACKENDS
    for way in (*equal.values(), *default.values()):
        assert 0 < way["first_seconds"] <= way["seconds"]
    assert found["time"].keys() == CPU_BACKENDS
    for times in found["time"].values():
        assert sum(times["shares"].values()) == pytest.approx(1, abs=0.02)
    (growth,) = found["growth"].values()
    assert {kind for kind, sizes in growth.items() if len(sizes) > 1} >= {"frames", "batch"}
    written = page.read_text("utf-8")
    assert written.startswith("before\n<!-- bench -->")
    assert written.endswith("<!-- /bench -->\nafter\n")
    for heading in ("## Graphs", "## Videos", "## Where the wall time", "## Growth on"):
        assert heading in written
