"""TensorRT and TensorRT-RTX: whether they can run here."""

import importlib.util

from lvdm_engines.backends.driver import driver_problem
from lvdm_engines.backends.registry import Backend, SessionOptions
from lvdm_engines.bundle import GraphSource
from lvdm_engines.errors import BackendError
from lvdm_engines.session import Session


def _backend(name: str, module: str, extra: str) -> Backend:
    def unusable() -> str | None:
        for package, needed in ((module.replace("_", "-"), module), ("cuda-core", "cuda")):
            if importlib.util.find_spec(needed) is None:
                return f"{package} is not installed; pip install 'lvdm-rt[{extra}]'"
        return driver_problem()

    def lacking(source: GraphSource) -> str | None:
        return (
            f"no plan of {source.name!r} in {source.engines}; "
            f"lvdm-export build-engines --backend {name} makes one"
        )

    def open_plan(source: GraphSource, _: SessionOptions) -> Session:
        raise BackendError(f"{name}: {lacking(source)}")

    return Backend(unusable, lacking, open_plan)


TENSORRT = _backend("tensorrt", "tensorrt", "tensorrt")
TENSORRT_RTX = _backend("tensorrt-rtx", "tensorrt_rtx", "rtx")
