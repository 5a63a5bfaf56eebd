#!/usr/bin/env python
"""Two "hosts" on one machine: runs an MPI program on two network namespaces that are joined by a slow link, over real TCP.

    sudo scripts/two_hosts.py --rate 1gbit -- -m chaos train large --cluster async

Needs Linux, root, iproute2 (ip, tc) and the MPICH wheel (its launcher accepts any remote-execution agent). The link has the
given rate in both directions; latency it cannot emulate (CHAOS_CLUSTER_DELAY adds seconds to every exchange). For
scripts/bench_cluster.py and the tests too.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

AGENT = """#!/bin/bash
# Stands in for ssh: drops its options, finds the host's namespace, runs the command there.
while [[ $1 == -* ]]; do shift; done
case $1 in
    {0}) space={2} ;;
    {1}) space={3} ;;
    *) echo "no such host: $1" >&2; exit 1 ;;
esac
shift
exec ip netns exec "$space" bash -c "$*"
"""


class TwoHosts:
    """Context manager: the hosts exist inside it.

    Parameters
    ----------
    rate : str
        Of the link, as tc spells it; None: as fast as it goes.
    """

    DEVICE = "link0"

    def __init__(self, rate="1gbit"):
        self.rate = rate
        self.spaces = [f"chaos{os.getpid()}{end}" for end in "ab"]
        self.addresses = ["10.99.13.1", "10.99.13.2"]

    @staticmethod
    def launcher():
        """Path of MPICH's launcher, None where there is none."""
        inside = Path(sys.prefix, "bin", "mpiexec.hydra")
        return str(inside) if inside.exists() else shutil.which("mpiexec.hydra")

    @classmethod
    def missing(cls):
        """Why there can be no two hosts here, None where there can."""
        if not sys.platform.startswith("linux") or os.geteuid():
            return "network namespaces need Linux and root"
        for tool in ("ip", "tc"):
            if not shutil.which(tool):
                return f"{tool} is not installed (iproute2)"
        if not cls.launcher():
            return "mpiexec.hydra is not installed (pip install mpich)"
        try:
            with cls():
                return None
        except RuntimeError as error:
            return str(error)

    def __enter__(self):
        a, b = self.spaces
        try:
            for space in self.spaces:
                self._ip("netns", "add", space)
            self._ip("link", "add", self.DEVICE, "netns", a, "type", "veth", "peer", "name", self.DEVICE, "netns", b)
            for space, address in zip(self.spaces, self.addresses, strict=True):
                self._ip("-n", space, "addr", "add", f"{address}/24", "dev", self.DEVICE)
                for device in ("lo", self.DEVICE):
                    self._ip("-n", space, "link", "set", device, "up")
                if self.rate:
                    self._run(
                        "ip",
                        "netns",
                        "exec",
                        space,
                        "tc",
                        "qdisc",
                        "add",
                        "dev",
                        self.DEVICE,
                        "root",
                        "tbf",
                        "rate",
                        self.rate,
                        "burst",
                        "64kb",
                        "latency",
                        "50ms",
                    )
            self._wait_for_carrier()
            self.folder = tempfile.TemporaryDirectory(prefix="two-hosts-")
            self.agent = Path(self.folder.name, "agent.sh")
            self.agent.write_text(AGENT.format(*self.addresses, *self.spaces))
            self.agent.chmod(0o755)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *exception):
        self.folder.cleanup()
        self._remove()

    def _wait_for_carrier(self):
        end = time.monotonic() + 10
        for space in self.spaces:
            while "state UP" not in self._ip("-n", space, "link", "show", self.DEVICE):
                if time.monotonic() > end:
                    raise RuntimeError("the link between the namespaces does not come up")
                time.sleep(0.05)

    def _remove(self):
        for space in self.spaces:
            subprocess.run(["ip", "netns", "del", space], capture_output=True)

    def _ip(self, *words):
        return self._run("ip", *words)

    @staticmethod
    def _run(*words):
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip()}")
        return done.stdout

    def command(self, program, per_host=1):
        """The words that start `program` on both hosts."""
        return [
            "ip",
            "netns",
            "exec",
            self.spaces[0],
            self.launcher(),
            "-launcher",
            "rsh",
            "-launcher-exec",
            str(self.agent),
            "-hosts",
            ",".join(self.addresses),
            "-ppn",
            str(per_host),
            "-n",
            str(2 * per_host),
            "-iface",
            self.DEVICE,
            *program,
        ]

    def environment(self, environ=os.environ):
        """For `command`: MPICH's library, and nothing but TCP over the link."""
        library = Path(sys.prefix, "lib", "libmpi.so.12")
        return {
            **environ,
            "UCX_TLS": "tcp,self",
            "UCX_NET_DEVICES": self.DEVICE,
            **({"MPI4PY_LIBMPI": str(library)} if library.exists() else {}),
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", default="1gbit", help="of the link, as tc spells it (default: 1gbit)")
    parser.add_argument("--per-host", type=int, default=1, metavar="N", help="ranks on each host (default: 1)")
    parser.add_argument("program", nargs=argparse.REMAINDER, help="after --: what python is to run on every rank")
    args = parser.parse_args()
    program = args.program[1:] if args.program[:1] == ["--"] else args.program
    if not program:
        parser.error("what is to be run? two_hosts.py -- -m chaos train small")
    if why := TwoHosts.missing():
        sys.exit(f"two_hosts: {why}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the namespaces would stay
    with TwoHosts(args.rate) as hosts:
        words = hosts.command([sys.executable, *program], args.per_host)
        return subprocess.run(words, env=hosts.environment()).returncode


if __name__ == "__main__":
    sys.exit(main())
