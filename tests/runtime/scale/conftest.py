"""Ways to run `batch` on lists that tests write."""

import json

import pytest


@pytest.fixture
def write_list(tmp_path):
    """Write list.jsonl: a line is text, or what its JSON says."""

    def write_list(*lines):
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (tmp_path / "list.jsonl").write_text("\n".join(texts))

    return write_list


@pytest.fixture
def batch(command, toy):
    """Run `batch` into the folder `out`: 12 frames, two in a call; returns stdout, stderr."""

    def batch(*flags, code=0, bundle=toy):
        words = ("batch", "-o", "out", "--bundle", bundle, "--frames", "12", "--format", "npz")
        got, out, err = command(*words, "--batch-size", "2", "--backend", "cpu", *flags)
        assert got == code, err
        return out, err

    return batch


@pytest.fixture
def records(tmp_path):
    """Return the lines of the record by the name of the video, or else by line."""

    def records():
        lines = (tmp_path / "out" / "batch.jsonl").read_text().splitlines()
        told = [json.loads(line) for line in lines]
        return {record.get("name", record.get("line")): record for record in told}

    return records


@pytest.fixture
def calls(monkeypatch):
    """Return how many videos were asked for in each call of a pipeline."""
    from lvdm_rt import Pipeline

    stream, calls = Pipeline.stream_videos, []

    def counted(self, options, **how):
        if isinstance(options, tuple):  # not of `generate`
            calls.append(len(options))
        return stream(self, options, **how)

    monkeypatch.setattr(Pipeline, "stream_videos", counted)
    return calls
