"""What a process may use, read from files as Linux shows them, in a made tree."""

import os
import platform

import pytest

from keras_matting import cgroups, machine

GIB = 2**30
V2 = ("0::{path}\n", "31 24 0:27 {top} /sys/fs/cgroup ro,nosuid shared:9 - cgroup2 cgroup rw,nsdelegate\n")
V1 = (
    "5:cpu,cpuacct:{path}\n4:memory:{path}\n1:name=systemd:/\n",
    "33 31 0:30 {top} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
    "35 31 0:32 {top} /sys/fs/cgroup/memory rw shared:3 - cgroup cgroup rw,memory\n",
)
OTHER_MOUNTS = "22 27 0:21 / /proc rw,relatime - proc proc rw\n27 1 254:0 / / rw - ext4 /dev/vda rw\n"


@pytest.fixture
def system(tmp_path):
    """Write the files of a system: one version's groups, the process's path, and what is mounted of the hierarchy."""

    def write(version, path, top="/", files=()):
        groups, mounts = version
        (tmp_path / "proc" / "self").mkdir(parents=True)
        (tmp_path / "proc" / "self" / "cgroup").write_text(groups.format(path=path))
        (tmp_path / "proc" / "self" / "mountinfo").write_text(OTHER_MOUNTS + mounts.format(top=top))
        for name, text in dict(files).items():
            file = tmp_path / "sys/fs/cgroup" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")
        return tmp_path

    return write


@pytest.mark.parametrize(
    ("path", "files", "quota", "limit"),
    [
        ("/", {"cpu.max": "150000 100000", "memory.max": 3 * GIB}, 1.5, 3 * GIB),  # a container's own namespace
        ("/a/b", {"a/b/cpu.max": "max 100000", "a/b/memory.max": "max"}, None, None),
        ("/a/b", {"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000"}, 0.5, None),
        ("/a/b", {"a/b/memory.max": 2 * GIB, "a/memory.max": GIB, "memory.max": "max"}, None, GIB),
        ("/a/b", {"a/b/memory.max": 2 * GIB, "a/b/memory.high": GIB}, None, GIB),
        ("/a", {"b/cpu.max": "50000 100000", "b/memory.max": GIB}, None, None),  # somebody else's
        ("/../x", {"cpu.max": "50000 100000"}, 0.5, None),  # a process from outside the namespace
    ],
)
def test_version_2_takes_the_least_of_a_group_and_those_above(system, path, files, quota, limit):
    root = system(V2, path, files=files)
    assert cgroups.cpu_quota(root) == quota
    assert cgroups.memory_limit(root) == limit


@pytest.mark.parametrize(
    ("path", "top", "folder"), [("/", "/", "."), ("/docker/1f", "/docker/1f", "."), ("/kube/pod/1f", "/", "kube/pod")]
)
def test_version_1_takes_the_least_of_a_group_and_those_above(system, path, top, folder):
    cpu, memory = f"cpu,cpuacct/{folder}", f"memory/{folder}"
    files = {
        f"{cpu}/cpu.cfs_quota_us": 250000,
        f"{cpu}/cpu.cfs_period_us": 100000,
        f"{memory}/memory.limit_in_bytes": 3 * GIB,
    }
    root = system(V1, path, top, files)
    assert cgroups.cpu_quota(root) == 2.5
    assert cgroups.memory_limit(root) == 3 * GIB


def test_version_1_without_limits_has_none(system):
    files = {
        "cpu,cpuacct/cpu.cfs_quota_us": -1,
        "cpu,cpuacct/cpu.cfs_period_us": 100000,
        "memory/memory.limit_in_bytes": 9223372036854771712,
    }
    root = system(V1, "/", files=files)
    assert cgroups.cpu_quota(root) is None
    assert cgroups.memory_limit(root) is None


def test_a_mount_with_a_blank_in_its_path_is_found(system):
    mounts = V2[1].replace("/sys/fs/cgroup", "/sys/fs/cgroup/my\\040groups")
    root = system((V2[0], mounts), "/", files={"my groups/cpu.max": "200000 100000"})
    assert cgroups.cpu_quota(root) == 2


def test_where_nothing_is_known_there_is_no_limit(tmp_path):
    assert cgroups.cpu_quota(tmp_path) is None
    assert cgroups.memory_limit(tmp_path) is None
    assert cgroups.usable_memory(tmp_path) == cgroups.physical_memory()


def test_usable_memory_is_the_group_s_where_that_is_less(system):
    assert cgroups.usable_memory(system(V2, "/", files={"memory.max": 2**20})) == 2**20


@pytest.mark.parametrize(("quota", "cores"), [("150000", 2), ("100000", 1), ("1000", 1), ("6400000", 8), ("max", 8)])
def test_cores_follow_the_quota_rounded_up_and_what_the_process_may_run_on(system, monkeypatch, quota, cores):
    name = "process_cpu_count" if hasattr(os, "process_cpu_count") else "sched_getaffinity"
    monkeypatch.setattr(os, name, lambda *_: 8 if name == "process_cpu_count" else set(range(8)))
    root = system(V2, "/", files={"cpu.max": f"{quota} 100000"})
    assert machine.usable_cores(root) == cores


@pytest.mark.skipif(platform.system() != "Linux", reason="control groups are Linux's")
def test_this_machine_s_own_files_are_read():
    assert machine.usable_cores() >= 1
    assert cgroups.usable_memory() > 2**20
