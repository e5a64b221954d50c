"""Comparisons hold libraries to an instruction set that the processor has, or say that it hasn't."""

from __future__ import annotations

import re

import pytest
from llvmlite import binding

from dist_relu.bench.instruction_sets import available, environment_for
from tests.cli.test_cli import call


@pytest.fixture
def without_avx512(monkeypatch: pytest.MonkeyPatch) -> None:
    features = binding.get_host_cpu_features()
    has = {**features, **{name: False for name in features if name.startswith("avx512")}, "avx2": True, "fma": True}
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: binding.FeatureMap(has))


@pytest.mark.usefixtures("without_avx512")
def test_what_a_processor_lacks_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(capsys, "bench", "products", "--isa", "avx512")
    assert code == 2
    assert re.search(r"This processor \(.+\) has no AVX-512\. Measure with native, or on a machine that has it\.", err)
    assert available() == ["avx2"]


def test_libraries_of_native_processes_choose_themselves() -> None:
    assert environment_for("native") == {}


def test_with_avx2_nothing_beyond_it_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    features = dict.fromkeys(["avx2", "fma", "avx512f", "avx512vl", "amx-tile", "bmi2"], True)
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: binding.FeatureMap(features))
    variables = environment_for("avx2")
    assert variables["NUMBA_CPU_FEATURES"] == "-amx-tile,+avx2,-avx512f,-avx512vl,+bmi2,+fma"
    assert variables["ATEN_CPU_CAPABILITY"] == "avx2"
    assert variables["ONEDNN_MAX_CPU_ISA"] == "AVX2"


def test_flags_of_the_users_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XLA_FLAGS", "--xla_dump_to=/tmp")
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: binding.FeatureMap(avx2=True, fma=True))
    assert environment_for("avx2")["XLA_FLAGS"] == "--xla_dump_to=/tmp --xla_cpu_max_isa=AVX2"
