"""A real SLURM of this machine alone: controller, one node in two partitions and munge, started and ended by tests.

Everything lies in a folder of its own; nothing of the system's configuration is read or written, and all daemons listen
on loopback. The settings that matter: no cgroups, no accounting, memory not consumed, quick scheduling.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pytest

PARTITIONS = ("oheogulch", "kapohopoint")
NODE = "ncl-test-01"
SBIN = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])
CONF = """\
ClusterName=local
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={home}/munge.socket
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
MpiDefault=none
SwitchType=switch/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/none
MinJobAge=3600
MaxJobCount={most}
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_min_interval=0,bf_interval=1
KillWait=2
ReturnToService=2
PropagateResourceLimits=NONE
StateSaveLocation={home}/state
SlurmdSpoolDir={home}/spool
SlurmctldPidFile={home}/slurmctld.pid
SlurmdPidFile={home}/slurmd.pid
SlurmctldLogFile={home}/slurmctld.log
SlurmdLogFile={home}/slurmd.log
SlurmdParameters=config_overrides
NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={node_port} CPUs=2 RealMemory=4096 State=UNKNOWN
PartitionName=oheogulch Nodes={node} Default=NO MaxTime=INFINITE DefaultTime=60 State=UP
PartitionName=kapohopoint Nodes={node} Default=NO MaxTime=INFINITE DefaultTime=60 State=UP
"""


def _missing():
    programs = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "sinfo", "scancel")
    absent = [name for name in programs if shutil.which(name, path=SBIN) is None]
    if absent:
        return f"no {absent[0]} here: apt-get install slurmctld slurmd slurm-client munge"
    try:
        address = socket.gethostbyname(socket.gethostname())
    except OSError:
        address = "nothing"
    # Elsewhere the daemons would listen on all interfaces.
    return None if address == "127.0.0.1" else f"{socket.gethostname()} is {address}, not 127.0.0.1, in /etc/hosts"


def _free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def slurm(most: int = 1000):
    """Yield the environment in which SLURM's commands find this cluster; `most` jobs fit into its queue."""
    # Not in pytest's own folder, which is closed to others: munge wants a socket that all may reach.
    with tempfile.TemporaryDirectory(prefix="slurm-") as home:
        yield from _slurm(Path(home), most)


def _slurm(home: Path, most: int):
    reason = _missing()
    if reason is not None:
        if os.environ.get("CI"):
            pytest.fail(f"{reason} (.ci/packages sees to it)")
        pytest.skip(reason)
    for name in ("state", "spool"):
        (home / name).mkdir(parents=True)
    key = home / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o600)
    home.chmod(0o755)
    user = subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()
    host = socket.gethostname().split(".")[0]
    ports = {"port": _free_port(), "node_port": _free_port()}
    conf = home / "slurm.conf"
    conf.write_text(CONF.format(host=host, user=user, home=home, node=NODE, most=most, **ports))
    (home / "cgroup.conf").write_text("")
    environment = {**os.environ, "PATH": SBIN, "SLURM_CONF": str(conf)}
    munge = ["munged", "--foreground", f"--key-file={key}", f"--socket={home}/munge.socket", "--num-threads=2"]
    munge += [f"--pid-file={home}/munged.pid", f"--seed-file={home}/munged.seed", f"--log-file={home}/munged.log"]
    daemons: list[subprocess.Popen] = []

    def start(*command):
        log = (home / f"{command[0]}.out").open("ab")
        options = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "start_new_session": True}
        daemons.append(subprocess.Popen(command, env=environment, cwd=home, **options))
        log.close()

    def answers(*command, good):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)
        return done.returncode == 0 and good(done.stdout)

    def wait(*command, good=lambda printed: True):
        end = time.monotonic() + 40
        while not answers(*command, good=good):
            logs = "\n".join(path.read_text(errors="replace")[-500:] for path in home.glob("*.out"))
            assert all(daemon.poll() is None for daemon in daemons), logs
            assert time.monotonic() < end, logs
            time.sleep(0.1)

    try:
        start(*munge)
        wait("munge", "-n", "-S", str(home / "munge.socket"))
        start("slurmctld", "-D", "-i", "-f", str(conf))
        start("slurmd", "-D", "-N", NODE, "-f", str(conf))
        wait("sinfo", "-h", "-N", "-o", "%T", good=lambda printed: set(printed.split()) == {"idle"})
        yield environment
    finally:
        if len(daemons) == 3:
            subprocess.run(["scancel", f"--user={user}"], env=environment, timeout=20, check=False, capture_output=True)
            with contextlib.suppress(AssertionError, subprocess.TimeoutExpired):
                wait("squeue", "-h", good=lambda printed: not printed.strip())
        for daemon in reversed(daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
