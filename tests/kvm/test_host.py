# SPDX-License-Identifier: BSD-3-Clause
"""Hosts that cannot run a VM: each refusal is one line that says why and what to do, and leaves nothing.

strace makes system calls fail; so the release binary itself is tested.
"""
import os
import shutil
import signal
import subprocess

import pytest
import vmm

needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to take /dev/kvm away")
CASE = ("machine", "poweroff")


def injected(*faults, trace, tmp_path, case=CASE):
    """Runs a case with faults; its messages and strace's log do not mix."""
    argv = ["strace", "-f", "-qq", "-o", str(tmp_path / "strace"), "-e", f"trace={trace}"]
    for fault in faults:
        argv += ["-e", f"inject={fault}"]
    return vmm.run([*argv, "--", *vmm.command(*case)])


def assert_refused(done, *says):
    assert done.returncode == vmm.HOST, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines and lines[0].startswith("crosvm: "), done.stderr
    for text in says:
        assert text in done.stderr
    assert len(lines) <= 2


@pytest.mark.no_kvm
@needs_root
@pytest.mark.parametrize("script, says", [
    ("mount -t tmpfs none /dev", "No such file"),
    ("mount --bind /dev/null /dev/kvm", "does not answer as KVM"),
])
def test_no_kvm(script, says):
    if not os.path.exists("/dev/kvm") and "bind" in script:
        pytest.skip("no /dev/kvm to cover")
    argv = ["unshare", "-m", "sh", "-c", script + ' && exec "$@"', "sh", *vmm.command(*CASE)]
    assert_refused(vmm.run(argv), "/dev/kvm", says)


@needs_root
def test_no_permission():
    def become_nobody():
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)

    if os.stat("/dev/kvm").st_mode & 0o006:
        pytest.skip("/dev/kvm is open to everybody here")
    kernel = vmm.guest("machine")
    if subprocess.run(["test", "-r", kernel], preexec_fn=become_nobody).returncode != 0:
        pytest.skip("nobody cannot read the checkout")
    assert_refused(vmm.run(vmm.command(*CASE), preexec_fn=become_nobody), "Permission denied", "usermod -aG kvm")


@needs_strace
@pytest.mark.parametrize("error, says", [("EACCES", "usermod -aG kvm"), ("ENODEV", "virtualization"),
                                         ("ENOENT", "virtualization"), ("EMFILE", "/dev/kvm")])
def test_kvm_cannot_be_opened(error, says, tmp_path):
    argv = ["strace", "-f", "-qq", "-o", str(tmp_path / "strace"), "-P", "/dev/kvm", "-e", "trace=openat,open",
            "-e", f"inject=openat,open:error={error}", "--", *vmm.command(*CASE)]
    assert_refused(vmm.run(argv), "cannot open /dev/kvm", says)


def ioctls(tmp_path):
    """The ioctls of each thread before the first KVM_RUN, in order; strace's when= counts in each thread. What the main
    thread does once vCPU 0 is on its way is none: a sandbox kills who makes the call that strace puts in its place."""
    log = tmp_path / "ioctls"
    subprocess.run(["strace", "-f", "-qq", "-o", log, "-e", "trace=ioctl", "--", *vmm.command(*CASE)], check=True,
                   stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    threads = {}
    for line in log.read_text().splitlines():
        thread, call = line.split(maxsplit=1)
        if "KVM_RUN" in call:
            return list(threads.values())
        if call.startswith("ioctl(") and "KVM_REGISTER_COALESCED_MMIO" not in call:
            threads.setdefault(thread, []).append(call)
    raise AssertionError("the vCPU never ran")


@needs_strace
def test_kvm_lacks_a_capability(tmp_path):
    """0 from the first question for one means that it is not there."""
    number = next(i for i, call in enumerate(ioctls(tmp_path)[0], 1) if "KVM_CHECK_EXTENSION" in call)
    done = injected(f"ioctl:retval=0:when={number}", trace="ioctl", tmp_path=tmp_path)
    assert_refused(done, "lacks", "Linux")


@needs_strace
@pytest.mark.parametrize("call, error, options", [("mmap", "ENOMEM", ()), ("memfd_create", "ENOMEM", ["-u"]),
                                                  ("memfd_create", "EMFILE", ["-u"]), ("ftruncate", "ENOMEM", ["-u"]),
                                                  ("eventfd2", "EMFILE", ())])
def test_host_is_out_of_something(call, error, options, tmp_path):
    assert_refused(injected(f"{call}:error={error}:when=1", trace=call, tmp_path=tmp_path,
                            case=("machine", "poweroff", *options)))


@needs_strace
def test_host_is_out_of_descriptors_for_signals(tmp_path):
    """It is made when the guest runs already, in the sandbox, which takes strace's injection for a forbidden call."""
    done = injected("signalfd4:error=EMFILE", trace="signalfd4", tmp_path=tmp_path,
                    case=("hang", None, "--disable-sandbox"))
    assert done.returncode == vmm.HOST
    assert "cannot wait for signals" in done.stderr


@needs_strace
def test_host_cannot_start_threads(tmp_path):
    """A limit is named that one can raise; that fewer vCPUs would do is for who asked for more than one."""
    for options in ([], ["-c", "2"]):
        done = injected("clone,clone3:error=EAGAIN", trace="clone,clone3", tmp_path=tmp_path,
                        case=("machine", "poweroff", *options))
        assert_refused(done, "thread", "ulimit -u")
        assert ("--cpus" in done.stderr) == (options != [])


@needs_strace
@pytest.mark.skipif(vmm.SANITIZED, reason="a sanitizer build, which has no sandbox")
def test_host_is_out_of_descriptors_for_the_sandbox(tmp_path):
    done = injected("landlock_create_ruleset:error=EMFILE:when=2", trace="landlock_create_ruleset", tmp_path=tmp_path)
    if done.returncode == vmm.OK:
        pytest.skip("this host has no Landlock")
    assert done.returncode == vmm.HOST
    assert "Landlock" in done.stderr and "ulimit -n" in done.stderr and "--disable-sandbox" not in done.stderr


@needs_strace
@pytest.mark.parametrize("options", [(), ("-u",)])
def test_host_cannot_start_threads_while_the_guest_runs(options, tmp_path):
    """The second vCPU's, late: the first one's guest has started its disk by then, and waits for devices_start()."""
    disk = tmp_path / "disk.img"
    disk.write_bytes(bytes(1 << 20))
    done = injected("clone3:error=EAGAIN:delay_enter=500000:when=2", trace="clone3", tmp_path=tmp_path,
                    case=("load", "load", "--cpus", "2", "-b", f"path={disk}", *options))
    assert done.returncode == vmm.HOST
    assert done.stderr.startswith("crosvm: cannot start the thread of vCPU 1: ")


@needs_strace
@pytest.mark.parametrize("error", ["ENOMEM", "EINVAL"])
def test_any_ioctl_may_fail(error, tmp_path):
    """Every KVM ioctl before the first KVM_RUN in turn. A refusal or, for what can be done without, a VM."""
    threads = ioctls(tmp_path)
    assert len(threads) == 2  # the main thread's and vCPU 0's
    for number in range(1, max(map(len, threads)) + 1):
        done = injected(f"ioctl:error={error}:when={number}", trace="ioctl", tmp_path=tmp_path)
        if done.returncode == vmm.OK:
            continue
        assert_refused(done)


@needs_strace
@pytest.mark.parametrize("call", ["mmap", "openat", "read,pread64"])
def test_any_call_may_fail(call, tmp_path):
    """The k-th call for each k: an error of ours, never a signal or a hang. The C library's own may abort it."""
    for number in range(1, 200):
        log = tmp_path / "strace"
        done = injected(f"{call}:error=ENOMEM:when={number}", trace=call, tmp_path=tmp_path)
        assert done.returncode >= 0 and done.returncode not in (139, 134), f"call {number}: {done.stderr}"
        if "INJECTED" not in log.read_text():
            return


def test_too_little_memory_for_the_kernel():
    done = vmm.run([vmm.CROSVM, "run", "-m", "16", vmm.guest("machine")])
    assert done.returncode == vmm.IMAGE
    assert "--mem" in done.stderr or "memory" in done.stderr


def test_more_vcpus_than_kvm_has():
    done = vmm.run([vmm.CROSVM, "run", "-c", "4096", vmm.guest("machine")])
    if done.returncode == vmm.CRASH:
        pytest.skip("this KVM takes 4096 vCPUs")
    assert_refused(done, "--cpus 4096")


def test_address_space_limit():
    done = vmm.run(["prlimit", "--as=200000000", "--", vmm.CROSVM, "run", "-m", "1G", vmm.guest("machine")])
    assert_refused(done, "--mem")


@pytest.mark.skipif(vmm.SANITIZED, reason="a sanitizer build, which needs memory of its own")
def test_data_limit():
    """Each of its sizes until there is a VM: threads, devices; each says that it is memory. The guest's, with -u, does not count."""
    said = set()
    for kib in range(160, 4096, 16):
        done = vmm.run(["prlimit", f"--data={kib << 10}", "--", *vmm.command(*CASE, "-u")])
        if done.returncode == vmm.OK:
            break
        if done.returncode == -signal.SIGSEGV and not said:
            continue  # the kernel did not start the program
        assert_refused(done, "Cannot allocate memory", "'ulimit -d'")
        said.add(done.stderr)
    assert done.returncode == vmm.OK and done.stderr.startswith(vmm.POWERED_OFF)
    assert len(said) >= 2, said


def host_mib():
    """The host's memory and swap."""
    fields = dict(line.split(":") for line in open("/proc/meminfo", encoding="ascii"))
    return sum(int(fields[name].split()[0]) for name in ("MemTotal", "SwapTotal")) // 1024


def of_size(size, *options):
    """The command line of a guest with so much memory."""
    return [vmm.CROSVM, "run", "-m", size, *options, "-p", "test=poweroff", vmm.guest("machine")]


def test_guest_larger_than_its_host():
    """It runs, since it may never touch it all."""
    mib = host_mib() + 1024
    done = vmm.run(of_size(str(mib)))
    assert done.returncode == vmm.OK, done.stderr
    warning, end = done.stderr.splitlines()
    assert f"{mib} MiB is more than the host has, {host_mib()} MiB" in warning and warning.endswith("pass a smaller --mem")
    assert end == vmm.POWERED_OFF
    # Nothing is said of one that fits.
    assert vmm.run(of_size("1G")).stderr.startswith(vmm.POWERED_OFF)


@pytest.mark.parametrize("options", [[], ["-u"]])
def test_preallocated_guest_larger_than_its_host(options):
    """Refused before the first page: the kernel would kill this process, or another one."""
    mib = host_mib() + 1024
    done = vmm.run(of_size(str(mib), "--prealloc", *options))
    assert_refused(done, f"no memory for a guest of {mib} MiB", "pass a smaller --mem")
    assert done.stderr.count("\n") == 1


def test_guest_larger_than_kvm_takes():
    done = vmm.run(of_size("64T"))
    assert_refused(done, "KVM refused", "MiB of memory at 0x", "pass a smaller --mem")


@needs_strace
def test_preallocation_fails(tmp_path):
    done = injected("madvise:error=ENOMEM", trace="madvise", tmp_path=tmp_path, case=(*CASE, "--prealloc"))
    assert_refused(done, "no memory for a guest of 64 MiB", "pass a smaller --mem")
    assert done.stderr.count("\n") == 1


@needs_strace
def test_preallocation_by_an_older_kernel(tmp_path):
    """Before Linux 5.14 it cannot be asked for all pages at once."""
    done = injected("madvise:error=EINVAL:when=3", trace="madvise", tmp_path=tmp_path, case=(*CASE, "--prealloc"))
    assert done.returncode == vmm.OK, done.stderr


def test_few_descriptors():
    """Every limit ends in a message or a VM, never in a hang."""
    for limit in range(3, 20):
        done = vmm.run(["prlimit", f"--nofile={limit}", "--", *vmm.command(*CASE)])
        assert done.returncode in (vmm.OK, vmm.HOST, vmm.IMAGE), (limit, done.stderr)
        assert done.stderr.startswith("crosvm: ")
