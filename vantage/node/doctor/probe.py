"""Runs inside a container in place of an algorithm, and tries to get out of it.

Sent to ``python3 -c`` of any image, so it needs the standard library alone, of Python 3.9 or later, and nothing of
vantage. ``PROBE`` in the environment says what to expect (JSON). Each finding is one line on standard output: PREFIX,
then JSON with the protection's name, whether it held, what was tried and what was seen. Nothing is harmed by a box that
does not hold: files are opened and not written, what is made is removed, and numbers are bounded.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import resource
import signal
import socket
import stat
import sys
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

PREFIX = "vantage-probe "
MARGIN = 32
"""Processes tried beyond the limit."""
_NO_WAY_OUT = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EPERM, errno.EACCES}
)
_NO_VSOCK = _NO_WAY_OUT | {errno.ENODEV, errno.EINVAL, errno.ENOSYS}
_ORDINARY_DEVICES = frozenset(
    "/dev/" + name for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts/ptmx", "console")
)
_ENGINE_MOUNTS = frozenset(
    (
        *("/", "/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/console", "/etc/resolv.conf"),
        *(
            "/etc/hostname",
            "/etc/hosts",
            "/sbin/docker-init",
            "/usr/sbin/docker-init",
            "/dev/init",
            "/run/podman-init",
            "/run/.containerenv",
        ),
    )
)
_KERNEL_FILES = (
    "/proc/sysrq-trigger",
    "/proc/sys/kernel/core_pattern",
    "/proc/sys/vm/drop_caches",
    "/sys/kernel/uevent_helper",
    "/sys/power/state",
    "/sys/fs/cgroup/cgroup.procs",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
_MASKED_FILES = ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/kmsg", "/dev/kmsg", "/dev/mem")
_ENGINE_SOCKETS = (
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/podman/podman.sock",
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
)

Call = Callable[[], Any]
Result = tuple[bool, str, str]
"""Whether it held, what was tried, what was seen."""

want: dict[str, Any] = json.loads(os.environ.get("PROBE", "{}"))
found: tuple[list[str], list[str], list[str], list[str]] = ([], [], [], [])
"""What ``walk`` has found."""
libc = ctypes.CDLL(None, use_errno=True)


def refused(call: Call) -> OSError | None:
    """None when a call succeeds, else the error."""
    try:
        call()
    except OSError as problem:
        return problem
    return None


def opened_for(path: str, flags: int) -> None:
    """Open a file, and close it as it is."""
    os.close(os.open(path, flags, 0o600))


def name_of(problem: OSError) -> str:
    """E.g. EACCES."""
    return errno.errorcode.get(problem.errno or 0, type(problem).__name__)


def system(function: str, *arguments: Any) -> Call:
    """A call of the C library that raises OSError."""

    def call() -> None:
        if getattr(libc, function)(*arguments) == -1:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    return call


def in_child(call: Call) -> int | None:
    """None when a call succeeds in a process of its own, else the number of the error."""
    child = os.fork()
    if child == 0:
        problem = refused(call)
        os._exit(0 if problem is None else (problem.errno or 255))
    status = os.waitpid(child, 0)[1]
    return os.WEXITSTATUS(status) or None if os.WIFEXITED(status) else 255


def read(path: str) -> str:
    """The first megabyte of a file."""
    with open(path, "rb") as file:
        return file.read(1 << 20).decode(errors="replace")


def listed(found: Collection[str], none: str = "nothing") -> str:
    """For people."""
    return (", ".join(sorted(found)[:10]) + (", ..." if len(found) > 10 else "")) if found else none


def status(field: str) -> str:
    """A field of /proc/self/status."""
    lines = read("/proc/self/status").splitlines()
    return next(line.split(":", 1)[1].strip() for line in lines if line.startswith(field + ":"))


def mounts() -> list[tuple[str, str, set[str]]]:
    """(mount point, type, options) of all that is mounted; spaces in paths stay escaped."""
    found = []
    for line in read("/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        found.append((before.split()[4], after.split()[0], set(before.split()[5].split(","))))
    return found


def walk() -> tuple[list[str], list[str], list[str], list[str]]:
    """What lies around: sockets, device nodes, directories that can be written to, paths with the neighbour's mark."""
    sockets: list[str] = []
    devices: list[str] = []
    writable: list[str] = []
    marked: list[str] = []
    left = ["/"]
    while left:
        directory = left.pop()
        if os.access(directory, os.W_OK):
            writable.append(directory)
        try:
            entries = list(os.scandir(directory))
        except OSError:
            continue
        for entry in entries:
            if want["neighbour"] in entry.name:
                marked.append(entry.path)
            if entry.is_symlink() or entry.is_file(follow_symlinks=False):
                continue
            if entry.is_dir(follow_symlinks=False):
                if entry.path not in ("/proc", "/sys"):
                    left.append(entry.path)
                continue
            try:
                mode = entry.stat(follow_symlinks=False).st_mode
            except OSError:
                continue
            if stat.S_ISSOCK(mode):
                sockets.append(entry.path)
            elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
                devices.append(entry.path)
    return sockets, devices, writable, marked


def interfaces() -> Result:
    found = os.listdir("/sys/class/net")
    return set(found) == {"lo"}, "list network interfaces", listed(found)


def connections() -> Result:
    reached = []
    for host, port in want["addresses"]:
        kind = socket.AF_INET6 if ":" in host else socket.AF_INET
        for way in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            with socket.socket(kind, way) as trial:
                trial.settimeout(1)
                problem = refused(partial(trial.connect, (host, port)))
            # Anything but "there is no way" means that a packet left, even when nobody answered.
            if problem is None or problem.errno not in _NO_WAY_OUT:
                reached.append(host + (" answers" if problem is None else " " + name_of(problem)))
                break
    tried = "connect to " + ", ".join(host for host, _port in want["addresses"])
    return not reached, tried, listed(reached, "there is no way to any of them")


def names() -> Result:
    try:
        socket.getaddrinfo("example.org", 443)
    except OSError as problem:
        return True, "resolve example.org", type(problem).__name__
    return False, "resolve example.org", "it has an address"


def hypervisor() -> Result:
    tried = "connect to the host of this virtual machine (AF_VSOCK)"
    try:
        trial = socket.socket(40, socket.SOCK_STREAM)
    except OSError as ended:
        return True, tried, name_of(ended)
    with trial:
        trial.settimeout(1)
        problem = refused(partial(trial.connect, (2, 1024)))
    held = problem is not None and problem.errno in _NO_VSOCK
    return held, tried, "it answers" if problem is None else name_of(problem)


def root_file_system() -> Result:
    options = next(options for point, _kind, options in mounts() if point == "/")
    open_ = [each for each in found[2] if each not in ("/tmp", "/dev/shm", "/dev/mqueue", *want["temporary"])]
    held = "ro" in options and not open_
    seen = (
        ("mounted read-only" if "ro" in options else "mounted writable")
        + "; writable directories: "
        + listed(open_, "none")
    )
    return held, "look for a place to write to outside of temporary files", seen


def kernel_files() -> Result:
    opened = [path for path in _KERNEL_FILES if refused(partial(opened_for, path, os.O_WRONLY)) is None]
    for path in _MASKED_FILES:
        try:
            with open(path, "rb", buffering=0) as file:
                os.set_blocking(file.fileno(), False)
                if file.read(16):
                    opened.append(path)
        except OSError:
            pass
    points = {point: options for point, _kind, options in mounts()}
    writable = [path for path in ("/sys", "/proc/sys", "/proc/irq", "/proc/bus") if "ro" not in points.get(path, ())]
    seen = f"opened: {listed(opened)}; mounted writable: {listed(writable)}"
    return not opened and not writable, "open the kernel's files in /proc, /sys and /dev", seen


def mounted() -> Result:
    strange = []
    for point, kind, options in mounts():
        # With user namespaces an engine mounts the ordinary devices, since it cannot make them.
        known = point in _ENGINE_MOUNTS | _ORDINARY_DEVICES or point.startswith(("/proc/", "/sys/"))
        known = known or point in want["mounts"]
        if not known or (point in want["mounts"] and point not in want["temporary"] and "ro" not in options):
            strange.append(f"{point} ({kind}{'' if 'ro' in options else ', writable'})")
    return not strange, "list what is mounted", listed(strange, "only what a run needs")


def mount_calls() -> Result:
    os.makedirs("/tmp/probe-mount", exist_ok=True)
    null = ctypes.c_char_p(None)
    calls = {
        "mount": system("mount", b"none", b"/tmp/probe-mount", b"tmpfs", 0, null),
        "remount /": system("mount", null, b"/", null, 32 | 4096, null),
        "umount": system("umount2", b"/proc/sys", 0),
        "chroot": system("chroot", b"/tmp"),
        "mknod": lambda: os.mknod("/tmp/probe-node", stat.S_IFCHR | 0o600, os.makedev(1, 3)),
    }
    done = [name for name, call in calls.items() if in_child(call) is None]
    os.rmdir("/tmp/probe-mount")
    refused(lambda: os.unlink("/tmp/probe-node"))
    return not done, "call " + ", ".join(calls), "all refused" if not done else "allowed: " + listed(done)


def programs() -> Result:
    ran = []
    for directory in ("/tmp", "/dev/shm"):
        path = directory + "/probe-program"
        with open(path, "w") as file:
            file.write("#!/bin/sh\n")
        os.chmod(path, 0o700)
        if in_child(partial(os.execv, path, [path])) is None:
            ran.append(directory)
        os.unlink(path)
    return not ran, "run a program from /tmp and /dev/shm", "it runs in " + listed(ran) if ran else "refused"


def capabilities() -> Result:
    sets = {name: status(name) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    kept = [f"{name} {value}" for name, value in sets.items() if int(value, 16)]
    return not kept, "read the sets of capabilities", listed(kept, "all empty")


def user() -> Result:
    ids = [os.getuid(), os.getgid(), *os.getgroups()]
    problem = in_child(lambda: os.setuid(0))
    held = 0 not in ids and os.getuid() >= 1000 and problem is not None
    seen = f"user {ids[0]}, groups {sorted(set(ids[1:]))}, setuid(0) {'allowed' if problem is None else 'refused'}"
    return held, "become root", seen


def privileges() -> Result:
    value = status("NoNewPrivs")
    return value == "1", "read NoNewPrivs: whether setuid programs give privileges", "no" if value == "1" else "yes"


def filtered() -> Result:
    calls = {
        "unshare a user namespace": system("unshare", 0x10000000),
        "keyctl": system("syscall", 250, 0, -1, 0)
        if os.uname().machine == "x86_64"
        else system("syscall", 219, 0, -1, 0),
    }
    done = [name for name, call in calls.items() if in_child(call) is None]
    mode = status("Seccomp")
    seen = ("a filter of system calls" if mode == "2" else "no filter of system calls") + "; allowed: " + listed(done)
    return mode == "2" and not done, "call " + ", ".join(calls), seen


def namespaces() -> Result:
    common = [kind for kind, value in want["namespaces"].items() if os.readlink("/proc/self/ns/" + kind) == value]
    return (
        not common,
        "compare namespaces with the node's",
        "has the node's: " + listed(common) if common else "all its own",
    )


def processes() -> Result:
    waiting, wake = os.pipe()
    children: list[int] = []
    problem: OSError | None = None
    try:
        while problem is None and len(children) < want["pids"] + MARGIN:
            try:
                child = os.fork()
            except OSError as ended:
                problem = ended
                break
            if child == 0:
                os.close(wake)
                os.read(waiting, 1)
                os._exit(0)
            children.append(child)
    finally:
        os.close(wake)
        os.close(waiting)
        for child in children:
            os.waitpid(child, 0)
    seen = f"{len(children)} were made, then {'no end' if problem is None else name_of(problem)}"
    return problem is not None, "start processes without end", seen


def memory() -> Result:
    child = os.fork()
    if child == 0:
        kept = []
        for _ in range(want["memory"] * 5 // 4 // (1 << 22)):
            block = mmap.mmap(-1, 1 << 22)
            for page in range(0, 1 << 22, mmap.PAGESIZE):
                block[page] = 1
            kept.append(block)
        os._exit(0)
    ended = os.waitpid(child, 0)[1]
    held = os.WIFSIGNALED(ended) and os.WTERMSIG(ended) == signal.SIGKILL
    return held, f"use {want['memory'] * 5 // 4 >> 20} MiB of memory", "ended by the kernel" if held else "it was given"


def cgroup(*paths: str) -> str:
    """The first of these files of the run's control group that there is."""
    for path in paths:
        try:
            return read("/sys/fs/cgroup/" + path).strip()
        except OSError:
            pass
    return ""


def swap() -> Result:
    swaps = read("/proc/swaps").strip().splitlines()[1:]
    # The first file limits swap alone, the second memory and swap together.
    alone, together = cgroup("memory.swap.max"), cgroup("memory/memory.memsw.limit_in_bytes")
    held = alone == "0" or (together.isdigit() and int(together) <= want["memory"])
    unknown = not alone and not together
    seen = f"limit {alone or together or 'unknown'}, the machine has {'swap' if swaps else 'none'}"
    return held or (unknown and not swaps), "read the limit of swap", seen


def fill(path: str, limit: int) -> tuple[int, str]:
    """How many bytes fit into a new file, at most a megabyte more than the limit."""
    size = 0
    block = bytes(1 << 20)
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        while size <= limit:
            size += os.write(descriptor, block)
    except OSError as problem:
        return size, name_of(problem)
    finally:
        os.close(descriptor)
        os.unlink(path)
    return size, ""


def filled(directory: str, limit: int) -> Result:
    """Whether a directory takes more than it should."""
    size, problem = fill(directory + "/probe-fill", limit)
    seen = f"{size >> 20} MiB, then {problem or 'no end'}"
    return bool(problem), f"write more than {limit >> 20} MiB to {directory}", seen


def scratch() -> Result:
    return filled("/tmp", want["scratch"])


def shared_memory() -> Result:
    return filled("/dev/shm", want["shm"])


def processors() -> Result:
    now, period = cgroup("cpu/cpu.cfs_quota_us"), cgroup("cpu/cpu.cfs_period_us")
    if not now:
        now, _, period = cgroup("cpu.max").partition(" ")
    share = int(now) / int(period) if now.lstrip("-").isdigit() and int(now) > 0 else None
    held = share is not None and share <= want["cpus"] * 1.01
    return held, "read the limit of processor time", f"{share:g} processors" if share else "none"


def open_files() -> Result:
    files, core = resource.getrlimit(resource.RLIMIT_NOFILE)[1], resource.getrlimit(resource.RLIMIT_CORE)[1]
    held = 0 < files <= want["open_files"] and core == 0
    return held, "read the limits of open files and core dumps", f"{files} files, core dumps of {core} bytes"


def other_runs() -> Result:
    visible = []
    for each in filter(str.isdigit, os.listdir("/proc")):
        try:
            line = read(f"/proc/{each}/cmdline")
        except OSError:
            continue
        if want["neighbour"] in line:
            visible.append("process " + each)
    if want["neighbour"] in read("/proc/net/unix"):
        visible.append("socket")
    visible += found[3]
    return not visible, "look for processes, sockets and files of another run", listed(visible)


def engine() -> Result:
    sockets = [each for each in found[0] if each != want["socket"]]
    sockets += [each for each in _ENGINE_SOCKETS if each not in sockets and os.path.exists(each)]
    return not sockets, "look for the engine's socket, or any other", listed(sockets, "none but the run's own")


def environment() -> Result:
    present = {each.partition("=")[0] for each in read("/proc/self/environ").split("\0") if each}
    strange = present - set(want["environment"])
    return not strange, "read the environment", listed(strange, "only what image and node say")


def devices() -> Result:
    strange = [each for each in found[1] if each not in _ORDINARY_DEVICES and not each.startswith("/dev/pts/")]
    return not strange, "look for devices", listed(strange, "only the ordinary ones")


def hostname() -> Result:
    words = set(read("/etc/resolv.conf").split()) | set(read("/etc/hosts").split())
    told = sorted(words & set(want["host_words"]))
    held = socket.gethostname() == want["hostname"] and not told
    seen = (
        ("its own name" if socket.gethostname() == want["hostname"] else "a name of the host")
        + "; told: "
        + listed(told)
    )
    return held, "read host name, resolvers and hosts", seen


def data() -> Result:
    path = want["data"]
    readable = refused(partial(opened_for, path, os.O_RDONLY)) is None
    calls: dict[str, Call] = {
        "write": partial(opened_for, path, os.O_WRONLY),
        "remove": partial(os.unlink, path),
        "change its mode": partial(os.chmod, path, 0o666),
    }
    writable = [name for name, call in calls.items() if refused(call) is None]
    seen = ("readable" if readable else "not readable") + "; allowed: " + listed(writable)
    return readable and not writable, "write to a dataset, remove it, change its mode", seen


def door() -> Result:
    place = os.path.dirname(want["socket"])
    made = refused(partial(opened_for, place + "/probe", os.O_CREAT | os.O_WRONLY)) is None
    beside = set(os.listdir(place)) - {os.path.basename(want["socket"])}
    with socket.socket(socket.AF_UNIX) as trial:
        there = refused(lambda: trial.connect(want["socket"])) is None
    seen = (
        ("reached" if there else "not reached")
        + ("; files can be made there" if made else "")
        + "; beside it: "
        + listed(beside)
    )
    return there and not made and not beside, "reach the node's socket, and change its directory", seen


CHECKS: dict[str, Callable[[], Result]] = {
    "network.interfaces": interfaces,
    "network.connect": connections,
    "network.names": names,
    "network.hypervisor": hypervisor,
    "files.root": root_file_system,
    "files.kernel": kernel_files,
    "files.mounts": mounted,
    "files.programs": programs,
    "files.data": data,
    "files.door": door,
    "privileges.user": user,
    "privileges.capabilities": capabilities,
    "privileges.new": privileges,
    "privileges.mount": mount_calls,
    "privileges.system-calls": filtered,
    "isolation.namespaces": namespaces,
    "isolation.other-runs": other_runs,
    "isolation.engine": engine,
    "isolation.devices": devices,
    "isolation.environment": environment,
    "isolation.host-name": hostname,
    "limits.processes": processes,
    "limits.memory": memory,
    "limits.swap": swap,
    "limits.scratch": scratch,
    "limits.shared-memory": shared_memory,
    "limits.processors": processors,
    "limits.open-files": open_files,
}


if __name__ == "__main__":
    found = walk()
    for check, attempt in CHECKS.items():
        try:
            held, tried, seen = attempt()
        except Exception as problem:  # noqa: BLE001  # what could not be tried was not held
            held, tried, seen = False, "the attempt itself failed", f"{type(problem).__name__}: {problem}"
        print(PREFIX + json.dumps({"check": check, "held": held, "tried": tried, "seen": seen[:500]}), flush=True)
    sys.exit(0)
