# SPDX-License-Identifier: BSD-3-Clause
"""Command lines that make no sense: status 2, one line that says what to do, and no VM."""
import os

import pytest
import vmm

pytestmark = pytest.mark.no_kvm
RUN = [vmm.CROSVM, "run"]
KERNEL = vmm.guest("machine")
LOTS = "9" * 400


@pytest.mark.parametrize("arguments, says", [
    (["-m", "0", KERNEL], "--mem"),
    (["-m", "15", KERNEL], "--mem"),
    (["-m", "-1", KERNEL], "--mem"),
    (["-m", "1e9", KERNEL], "--mem"),
    (["-m", "", KERNEL], "--mem"),
    (["-m", "M", KERNEL], "--mem"),
    (["-m", "1.5G", KERNEL], "--mem"),
    (["-m", "1GB", KERNEL], "--mem"),
    (["-m", " 128", KERNEL], "--mem"),
    (["-m", "0x80", KERNEL], "--mem"),
    (["-m", "18446744073709551616", KERNEL], "--mem"),
    (["-m", "18446744073709551615T", KERNEL], "--mem"),
    (["-m", "17592186044416T", KERNEL], "--mem"),
    (["-m", LOTS, KERNEL], "--mem"),
    (["-c", "0", KERNEL], "--cpus"),
    (["-c", "-1", KERNEL], "--cpus"),
    (["-c", "100000", KERNEL], "--cpus"),
    (["-c", "two", KERNEL], "--cpus"),
    (["-c", "2x", KERNEL], "--cpus"),
    (["-c", "4294967297", KERNEL], "--cpus"),
    (["-c", LOTS, KERNEL], "--cpus"),
    (["-c", "1", "-c", "2", KERNEL], "--cpus"),
    (["--mem", "64", "-m64", KERNEL], "--mem"),
    ([KERNEL, KERNEL], "two kernels"),
    ([], "no kernel"),
    (["--"], "no kernel"),
    (["-m"], "--mem"),
    ([KERNEL, "--cpus"], "--cpus"),
    (["--initrd"], "--initrd"),
    (["--nonsense", KERNEL], "--nonsense"),
    (["--nonsense=1", KERNEL], "--nonsense"),
    (["-Z", KERNEL], "-Z"),
    (["--cpu", "2", KERNEL], "did you mean '--cpus'"),
    (["--memm=64", KERNEL], "did you mean '--mem'"),
    (["--" + LOTS, KERNEL], "unknown option"),
    (["---", KERNEL], "unknown option"),
    (["--serial", "teletype", KERNEL], "--serial"),
    (["--serial", "file=", KERNEL], "--serial"),
    (["--serial", "unix", KERNEL], "--serial"),
    (["--serial", "", KERNEL], "--serial"),
    (["--serial", "null=x", KERNEL], "--serial"),
    (["-m", "65T", KERNEL], "--mem: '65T' is not a size from 16 to 67108864 MiB"),
    (["-m", "0G", KERNEL], "--mem: '0G' is not a size"),
    *(([option, prefix + path, KERNEL], f"{option}: the path of a socket has 1 to 107 characters")
      for option, prefix in (("--socket", ""), ("--serial", "unix="), ("--vhost-user", "type=rng,socket="))
      for path in ("", "x" * 108) if path or option == "--socket"),
    (["--jail", "strict", KERNEL], "--jail belongs to --multiprocess (-u)"),
    (["--jail", "best-effort", KERNEL], "--jail belongs to --multiprocess (-u)"),
    (["--seccomp-policy-dir", "/tmp", KERNEL], "--seccomp-policy-dir belongs to --multiprocess (-u)"),
    (["-d", "", KERNEL], "--disk: no path; pass that of an image"),
    (["-b", "", KERNEL], "--block: no path; say path=FILE"),
    (["-b", "a.img,queues=0", KERNEL], "--block: queues: '0' is not a number from 1 to 16"),
    (["-b", "a.img,block-size=4k", KERNEL], "--block: block-size: '4k' is not a number from 512 to 4096"),
    (["-b", "com,ma.img", KERNEL], "unknown word 'ma.img'; the manual lists them, and a path with a comma in it needs --disk"),
    (["-b", "a.img,path=b.img", KERNEL], "--block: 'path' is given twice"),
    (["--net", "user,mtu=1", KERNEL], "--net: mtu: '1' is not a number"),
    (["--net", "tap-fd=x", KERNEL], "--net: tap-fd: 'x' is not a number"),
    (["--net", "user,mac=x", KERNEL], "--net: mac: 'x' is not a MAC address"),
    (["--net", "host-ip=x,netmask=y", KERNEL], "--net: host-ip: 'x' is not an IPv4 address"),
    (["--host_ip", "10.0.0.1", "--netmask", "x", "--mac", "y", KERNEL], "--netmask: 'x' is not a netmask"),
    (["--balloon", "size=x", KERNEL], "--balloon: size: 'x' is not a number"),
    (["--balloon", "size=1,size=2", KERNEL], "--balloon: 'size' is given twice"),
    (["--balloon", "size=1", "--balloon", "size=2", KERNEL], "--balloon: 'size' is given twice"),
    (["--wl", "p,name=x,name=y", KERNEL], "--wl: 'name' is given twice"),
    (["--cid", "4294967296", KERNEL], "--cid: context id '4294967296' is not a number from 3 to 4294967294"),
    (["--vsock", "socket=v", KERNEL], "--vsock: no context id; say cid=N, 3 or more"),
    (["--vsock", "cid=4,socket=v", "--vsock", "cid=5,socket=w", KERNEL], "--vsock: 'cid' is given twice"),
    (["--log-level", "loud", KERNEL], "--log-level"),
])
def test_refused(arguments, says):
    done = vmm.run(RUN + arguments)
    assert done.returncode == vmm.USAGE, done.stderr
    assert done.stdout == ""
    assert done.stderr.startswith("crosvm: ")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments, says", [
    (["rng", "foo"], "device rng: it takes no SPEC ('foo')"),
    (["rng", ""], "device rng: it takes no SPEC"),
    (["rng", "foo=1"], "device rng: it takes no SPEC"),
    (["block", "a.img", "b.img"], "'b.img' is one argument too many"),
    (["block"], "device block: no path; say path=FILE"),
    (["block", "a.img,queues=0"], "device block: queues: '0' is not a number"),
    (["vsock", "socket=v"], "device vsock: no context id"),
    (["rng", "--socket-path", ""], "--socket-path is given twice"),
    (["toaster"], "device 'toaster' is not known"),
])
def test_device_refused(tmp_path, arguments, says):
    done = vmm.run([vmm.CROSVM, "device", "--socket-path", tmp_path / "sock", *arguments])
    assert (done.returncode, done.stdout) == (vmm.USAGE, "")
    assert done.stderr.startswith("crosvm: ") and says in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("path", ["", "x" * 108])
def test_device_without_a_place(path):
    done = vmm.run([vmm.CROSVM, "device", "rng", "--socket-path", path])
    assert (done.returncode, done.stdout) == (vmm.USAGE, "")
    assert "--socket-path: the path of a socket has 1 to 107 characters" in done.stderr


@pytest.mark.parametrize("program", ["test", "demo"])
def test_programs_of_the_repository_say_what_they_do(program):
    done = vmm.run([vmm.ROOT / program, "--help"], timeout=10)
    assert (done.returncode, done.stderr) == (vmm.OK, "")
    assert done.stdout.startswith(f"usage: ./{program}")


@pytest.mark.parametrize("arguments, says", [
    (["balloon", "vm.sock", "10"], "balloon: 'vm.sock' is not a number"),
    (["disk", "resize", "x", "1G", "vm.sock"], "disk resize: 'x' is not a number"),
])
def test_verb_refused(arguments, says):
    done = vmm.run([vmm.CROSVM, *arguments])
    assert (done.returncode, done.stdout) == (vmm.USAGE, "")
    assert done.stderr.startswith(f"crosvm: {says}") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", [["runn"], ["--nonsense"], [""], ["help", "nonsense"], ["help", ""]])
def test_unknown_command(arguments):
    done = vmm.run([vmm.CROSVM, *arguments])
    assert (done.returncode, done.stdout) == (vmm.USAGE, "")
    assert "crosvm help" in done.stderr and done.stderr.count("\n") == 1


def test_no_arguments():
    done = vmm.run([vmm.CROSVM])
    assert (done.returncode, done.stdout) == (vmm.USAGE, "")
    assert done.stderr.startswith("usage: crosvm")


@pytest.mark.parametrize("arguments, says", [
    (["--help"], "usage: crosvm"),
    (["-h"], "usage: crosvm"),
    (["help"], "usage: crosvm"),
    (["help", "run"], "usage: crosvm run"),
    (["run", "--help"], "usage: crosvm run"),
    (["run", "-h"], "usage: crosvm run"),
    (["run", "-m", "64", "--help", "-c", "0"], "usage: crosvm run"),
    (["help", "help"], "crosvm help"),
    (["help", "version"], "usage: crosvm version"),
    (["help", "stop"], "usage: crosvm stop"),
    (["status", "--help"], "usage: crosvm status"),
    (["--version"], "crosvm "),
    (["-V"], "crosvm "),
    (["version"], "crosvm "),
])
def test_help(arguments, says):
    done = vmm.run([vmm.CROSVM, *arguments])
    assert (done.returncode, done.stderr) == (vmm.OK, "")
    assert done.stdout.startswith(says)


def test_help_names_every_option():
    text = vmm.run(RUN + ["--help"]).stdout
    for option in ("-c, --cpus", "-m, --mem", "-i, --initrd", "-p, --params", "--serial", "--log-level", "-h, --help"):
        assert option in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_help_into_a_full_disk():
    """What cannot be written is an error, not a success."""
    with open("/dev/full", "wb") as full:
        assert vmm.run([vmm.CROSVM, "--help"], stdout=full).returncode != vmm.OK


@pytest.mark.parametrize("arguments", [["help"], ["version"], ["run", "--help"]])
def test_help_into_a_closed_stdout(arguments):
    done = vmm.run([vmm.CROSVM, *arguments], stdout=None, preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (vmm.HOST, "crosvm: cannot write to stdout: Bad file descriptor\n")


@pytest.mark.parametrize("character", ["\n", "\x1b", "\x7f", "\t", "\x01"])
def test_control_characters_in_parameters(character):
    done = vmm.run(RUN + ["-p", f"a{character}b", KERNEL])
    assert done.returncode in (vmm.USAGE, vmm.IMAGE)
    assert "--params" in done.stderr and done.stderr.count("\n") == 1
    assert character == "\n" or character not in done.stderr


@pytest.mark.parametrize("length", [2048, 4096, 65536, 130000])
def test_parameters_that_no_kernel_takes(length):
    done = vmm.run(RUN + ["-p", "x" * length, KERNEL])
    assert done.returncode in (vmm.USAGE, vmm.IMAGE)
    assert "--params" in done.stderr and done.stderr.count("\n") == 1


def test_terminal_escapes_in_names_are_not_echoed():
    done = vmm.run(RUN + ["/no\x1b[2Jwhere"])
    assert done.returncode == vmm.IMAGE
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize("option", [None, "--initrd", "--disk", "--rwdisk"])
def test_advice_for_a_file(tmp_path, option):
    """Why it cannot be opened and what to do, however long its name is."""
    words = [KERNEL, option] if option else []
    for path, says in ((tmp_path / "gone", "No such file or directory; check the path"),
                       ("x" * 5000, "File name too long; check the path")):
        done = vmm.run([*RUN, *words, path])
        assert done.returncode == (vmm.HOST if option and "disk" in option else vmm.IMAGE)
        assert done.stderr.endswith(says + "\n") and done.stderr.count("\n") == 1, done.stderr


@pytest.mark.parametrize("size, says", [(0, "has 0 bytes, less than one block of 512; make it larger"), (None, "pass a raw image")])
def test_advice_for_a_disk(tmp_path, size, says):
    disk = tmp_path / "disk"
    if size is None:
        os.mkfifo(disk)
    else:
        disk.write_bytes(bytes(size))
    done = vmm.run([*RUN, "-d", disk, KERNEL])
    assert done.returncode == vmm.HOST
    assert says in done.stderr and done.stderr.count("\n") == 1


def complete(*words):
    """What doc/crosvm.bash offers for the last of the words, as bash calls it."""
    script = ("source \"$0\"; COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); _crosvm \"$1\"; "
              "printf '%s\\n' \"${COMPREPLY[@]}\"")
    done = vmm.run(["bash", "-c", script, vmm.ROOT / "doc/crosvm.bash", vmm.CROSVM, *words])
    assert done.stderr == ""
    return sorted(done.stdout.split())


@pytest.mark.parametrize("words, offered", [
    (["st"], {"stop", "status"}),
    (["s"], {"stop", "status", "suspend"}),
    (["help", "ve"], {"version"}),
    (["run", "--roo"], {"--root"}),
    (["run", "--so"], {"--socket"}),
    (["status", "-"], {"--json", "--help"}),
    (["disk", ""], {"resize"}),
    (["stop", str(vmm.ROOT / "doc/control-p")], {str(vmm.ROOT / "doc/control-protocol.md")}),
])
def test_completion(words, offered):
    assert set(complete(*words)) == offered


def test_completion_knows_all():
    """Each command and each option that the help has, once, and nothing else."""
    listed = vmm.run([vmm.CROSVM, "help"]).stdout.split("commands:\n")[1].split("\n\n")[0]
    commands = sorted(line.split()[0] for line in listed.splitlines())
    assert {"run", "balloon_stats", "version"} <= set(commands)
    assert complete("") == complete("help", "") == commands
    for command in commands:
        lines = vmm.run([vmm.CROSVM, "help", command]).stdout.splitlines()
        words = [word for line in lines if line.lstrip().startswith("-") for word in line.split()[:2]]
        options = sorted({word.split("=")[0].rstrip(",") for word in words if word.startswith("--")})
        assert complete(command, "-") == options, command
