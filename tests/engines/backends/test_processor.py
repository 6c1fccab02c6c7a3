import pytest

from lvdm_engines.backends import processor as module


@pytest.fixture
def cpuinfo(tmp_path, monkeypatch):
    """Pretend that Linux says this of the processor."""

    def pretend(text):
        (tmp_path / "cpuinfo").write_text(text)
        monkeypatch.setattr(module, "_CPUINFO", tmp_path / "cpuinfo")
        module.processor.cache_clear()

    yield pretend
    module.processor.cache_clear()


@pytest.mark.parametrize(
    ("flags", "bf16"), [("avx2 avx512f", False), ("avx512_bf16", True), ("amx_bf16 fma", True)]
)
def test_instructions_tell_whether_bf16_is_quick(cpuinfo, flags, bf16):
    cpuinfo(f"processor\t: 0\nmodel name\t: AMD EPYC\nflags\t\t: fpu {flags}\n\nflags\t: none\n")
    assert module.processor() == ("AMD EPYC", frozenset({"fpu", *flags.split()}))
    assert module.multiplies_bf16() is bf16


def test_where_the_system_says_nothing_the_processor_still_has_a_name(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_CPUINFO", tmp_path / "none")
    module.processor.cache_clear()
    name, instructions = module.processor()
    assert name
    assert instructions == frozenset()
    module.processor.cache_clear()
