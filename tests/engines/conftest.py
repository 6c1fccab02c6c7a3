import pytest
import toy


@pytest.fixture
def make_bundle(tmp_path):
    """Write a bundle whose predict and interpolate graphs are one file."""
    return lambda folder="bundle", **options: toy.write_bundle(tmp_path / folder, **options)


@pytest.fixture
def source(make_bundle):
    return make_bundle().graph("predict")


@pytest.fixture
def native(source):
    """ONNX Runtime's own session of `source`, on the processor."""
    ort = pytest.importorskip("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    path = str(source.folder / source.facts.file)
    return ort.InferenceSession(path, options, ["CPUExecutionProvider"])


@pytest.fixture
def feeds():
    return toy.feeds()
