"""What is asked of a cluster, and what is said where it cannot be had."""

import socket
import sys
from types import SimpleNamespace
from unittest.mock import Mock

import click
import pytest

from lvdm_engines.backends.backend import SessionOptions
from lvdm_engines.bundle import load_bundle
from lvdm_engines.errors import ClusterError, OptionsError
from lvdm_rt.cli import run
from lvdm_rt.scale import cluster
from lvdm_rt.scale.cluster import ClusterOptions, _share, connect
from lvdm_rt.scale.crew import Share
from lvdm_rt.scale.flags import cluster_of
from lvdm_rt.scale.remote import fitted, place_of

SMALL, LARGE, GPUS = {"CPU": 4.0}, {"CPU": 16.0}, {"CPU": 8.0, "GPU": 2.0}


def machines(*resources):
    nodes = [{"Alive": True, "Resources": found} for found in resources]
    gone = {"Alive": False, "Resources": {"CPU": 512.0, "GPU": 8.0}}
    return SimpleNamespace(nodes=lambda: [*nodes, gone])


@pytest.mark.parametrize(
    ("found", "asked", "share"),
    [
        ([LARGE], {}, Share(4, 4, 0)),
        ([SMALL, LARGE], {}, Share(5, 4, 0)),
        ([{"CPU": 2.0}], {}, Share(1, 2, 0)),
        ([LARGE], {"workers": 16}, Share(16, 1, 0)),
        ([LARGE], {"cpus": 16}, Share(1, 16, 0)),
        ([LARGE, LARGE], {"cpus": 5}, Share(6, 5, 0)),
        ([GPUS, {}, SMALL], {}, Share(2, 0, 1)),
        ([GPUS, GPUS], {"workers": 3}, Share(3, 0, 1)),
        ([GPUS], {"cpus": 2}, Share(4, 2, 0)),
    ],
)
def test_a_worker_has_a_gpu_or_some_cores_of_a_machine(found, asked, share):
    assert _share(machines(*found), ClusterOptions(**asked)) == share


def test_more_cores_than_any_machine_has_are_refused():
    with pytest.raises(ClusterError, match=r"got 17 CPU cores .* more than 16; ask for fewer"):
        _share(machines(SMALL, LARGE), ClusterOptions(cpus=17))


def test_workers_that_have_no_room_yet_are_told_of(caplog):
    assert _share(machines(SMALL), ClusterOptions(workers=9, cpus=2)) == Share(9, 2, 0)
    assert caplog.messages == ["the cluster has room for 2 of 9 workers now"]


@pytest.mark.parametrize("asked", [{"workers": 0}, {"cpus": -1}, {"workers": 1.5}])
def test_numbers_that_mean_nothing_are_refused(asked):
    with pytest.raises(OptionsError, match="expected 1 or more"):
        ClusterOptions(**asked)


def test_a_missing_ray_is_one_line(monkeypatch, capsys, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    out = str(tmp_path / "sky.npz")
    assert run(["generate", "-o", out, "--ray"]) == 1
    assert capsys.readouterr().err == "lvdm-rt: ray is not installed; pip install 'lvdm-rt[ray]'\n"


def enter(address):
    pytest.importorskip("ray")
    with connect(ClusterOptions(address=address), lambda _: list):
        pass


@pytest.mark.parametrize("address", ["jobs.jsonl", "ray://host:10001", ":6379", "host:port"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(ClusterError, match="expected HOST:PORT of a cluster"):
        enter(address)


def test_an_address_where_nothing_answers_is_told_at_once():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(ClusterError, match=f"{address}: nothing answers .* leave the address out"):
        enter(address)


@pytest.mark.parametrize(
    ("err", "line"),
    [
        (ConnectionError("Failed to connect"), "no cluster can be used: Failed to connect"),
        (RuntimeError("Version mismatch:\n  Ray: 2.59"), "used: Version mismatch: Ray: 2.59"),
    ],
)
def test_what_ray_says_of_a_cluster_is_one_line(monkeypatch, err, line):
    def init(**_):
        raise err

    ended = []
    fake = SimpleNamespace(
        is_initialized=lambda: False, init=init, shutdown=lambda: ended.append(True)
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    with pytest.raises(ClusterError, match=line):
        enter(None)
    assert ended


def flags(**typed):
    return {"ray": None, "workers": None, "cpus_per_worker": None, **typed}


def test_flags_mean_a_cluster_only_where_they_name_one():
    assert cluster_of(flags()) is None
    assert cluster_of(flags(ray="local", workers=3)) == ClusterOptions(workers=3)
    there = cluster_of(flags(ray="10.0.0.1:6379", cpus_per_worker=2))
    assert there == ClusterOptions(address="10.0.0.1:6379", cpus=2)


@pytest.mark.parametrize("name", ["workers", "cpus_per_worker"])
def test_flags_of_workers_belong_to_ray(name):
    with pytest.raises(click.UsageError, match="belongs to --ray, which was not given"):
        cluster_of(flags(**{name: 2}))


def test_a_preview_is_of_this_process_alone():
    with pytest.raises(click.UsageError, match="leave out --ray"):
        cluster_of(flags(ray="local", preview="sky.png"))


def test_workers_find_a_bundle_by_its_name_or_its_whole_path(tmp_path, monkeypatch):
    bundle = load_bundle("sky-tiny")
    assert place_of(bundle) == "sky-tiny"
    (tmp_path / "mine").symlink_to(bundle.path)
    monkeypatch.chdir(tmp_path)
    assert place_of(load_bundle("mine")) == str(bundle.path)


def test_a_worker_uses_what_it_has_of_its_machine():
    assert fitted(None, Share(4, 3, 0)).threads == 3
    assert fitted(SessionOptions(threads=2), Share(4, 3, 0)).threads == 2
    assert fitted(SessionOptions(device=5), Share(4, 0, 1)) == SessionOptions(device=0)


def test_more_workers_than_this_machine_can_hold_are_refused_before_ray_starts():
    ray = Mock()
    with pytest.raises(ClusterError, match=r"got 999 workers of 2 cores on this machine"):
        cluster._join(ray, ClusterOptions(workers=999, cpus=2))
    ray.init.assert_not_called()


def test_whatever_ray_raises_while_it_starts_is_one_line():
    ray = Mock(init=Mock(side_effect=Exception("The current node timed out\nduring startup")))
    with pytest.raises(ClusterError, match=r"no cluster can be used: The current node timed out"):
        cluster._join(ray, ClusterOptions(workers=1))
