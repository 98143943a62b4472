"""One process of all cores against several of one core each, in turns: `python tests/bench/machines.py`.

With `--gigabits 1` (Linux, as root, with iproute2) each process is in a network of its own, joined by a cable
of that rate and a delay of a millisecond: what several computers would be, but for their cores, a little of
which the cable takes too.
Prints tokens a second, medians over the updates, and the share of an update that was not spent computing.
"""

import argparse
import fcntl
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import suppress
from pathlib import Path
from queue import Queue
from statistics import median

UPDATES, LEFT_OUT, ROUNDS = 60, 5, 3
DELAY, MTU = 1e-3, 60_000  # few and large packets, since Python carries them
SET_INTERFACE, TUN_WITHOUT_HEADER = 0x400454CA, 0x1001  # of linux/if_tun.h
NAMESPACES, ADDRESSES = ("farense-a", "farense-b"), ("10.77.0.1", "10.77.0.2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabits", type=float, metavar="N", help="a second, of the cable between the two")
    parser.add_argument("--reduce-dtype", default="float32", help="in which the gradients are sent")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.gigabits or args.inside:
        addresses = ADDRESSES if args.gigabits else ("127.0.0.1", "127.0.0.1")
        compare(addresses, bool(args.gigabits), args.reduce_dtype)
        return
    try:
        lay_cable(args.gigabits * 1e9)
        inside = ["ip", "netns", "exec", NAMESPACES[0], sys.executable, *sys.argv, "--inside"]
        subprocess.run(inside, check=True)
    finally:
        for name in NAMESPACES:
            subprocess.run(["ip", "netns", "del", name], stderr=subprocess.DEVNULL)


def lay_cable(bits_per_s: float) -> None:
    """Two networks, and a cable between them, carried by threads of this process: not every kernel can delay
    packets by itself."""
    ends = []
    for name, address in zip(NAMESPACES, ADDRESSES, strict=True):
        tun = os.open("/dev/net/tun", os.O_RDWR)
        fcntl.ioctl(tun, SET_INTERFACE, struct.pack("16sH22x", name.encode(), TUN_WITHOUT_HEADER))
        for command in (
            f"ip netns add {name}",
            f"ip link set {name} netns {name}",
            f"ip -n {name} addr add {address}/24 dev {name}",
            f"ip -n {name} link set {name} mtu {MTU} up",
            f"ip -n {name} link set lo up",
        ):
            subprocess.run(command.split(), check=True)
        ends.append(tun)
    for source, target in (ends, reversed(ends)):
        on_the_way = Queue[tuple[float, bytes]]()
        for carry in (send, deliver):
            end = source if carry is send else target
            threading.Thread(target=carry, args=[end, on_the_way, bits_per_s], daemon=True).start()


def send(source: int, on_the_way: Queue[tuple[float, bytes]], bits_per_s: float) -> None:
    """Say of each packet when it arrives: they leave one after the other, at the rate of the cable."""
    free = 0.0
    with suppress(OSError):  # the network is gone
        while packet := os.read(source, MTU):
            free = max(free, time.monotonic()) + 8 * len(packet) / bits_per_s
            on_the_way.put((free + DELAY, packet))


def deliver(target: int, on_the_way: Queue[tuple[float, bytes]], _: float) -> None:
    """Hand over each packet when its time has come."""
    while True:
        arrival, packet = on_the_way.get()
        time.sleep(max(0.0, arrival - time.monotonic()))
        os.write(target, packet)


def compare(addresses: tuple[str, str], apart: bool, dtype: str) -> None:
    home = Path(tempfile.mkdtemp(prefix="farense-machines-"))
    os.environ["FARENSE_HOME"] = str(home)
    shutil.copytree(Path(__file__).parents[2] / "data", home / "data")
    ssh = home / "bin" / "ssh"
    ssh.parent.mkdir()
    there = f"ip netns exec {NAMESPACES[1]} " if apart else ""
    ssh.write_text(f'#!/bin/sh\nshift 3\ncd\nexec {there}taskset -c 1 sh -c "exec $*"\n')
    ssh.chmod(0o755)
    os.environ["PATH"] = f"{ssh.parent}:{os.environ['PATH']}"
    hosts = [{"ssh": name, "ips": [ip]} for name, ip in zip(("um", "outro"), addresses, strict=True)]
    (home / "hosts.json").write_text(json.dumps(hosts))

    import farense_qlora as fq
    from farense_qlora.training.events import Stepped, of

    once = dict.fromkeys(("max_steps", "eval_every", "save_every"), UPDATES)
    config = fq.Config.of("mini", **once, probes=0, reduce_dtype=dtype)
    cores, speeds, waiting = os.sched_getaffinity(0), {1: [], 2: []}, []
    try:
        for number in range(ROUNDS):
            for count in speeds:
                if count == 2:
                    os.sched_setaffinity(0, {0})
                file = home / "hosts.json" if count == 2 else ""
                run = fq.start(config, f"{count}-{number}", hosts=file).wait()
                os.sched_setaffinity(0, cores)
                steps = of(run.events(), Stepped)[LEFT_OUT:]
                speeds[count].append(median(step.tokens / step.seconds for step in steps))
                if count == 2:
                    computing = [step.tokens / 2 / min(step.host_speeds) / step.seconds for step in steps]
                    waiting.append(1 - median(computing))
        one, two = median(speeds[1]), median(speeds[2])
        print(f"um processo de {len(cores)} núcleos: {one:.0f} tokens/s {[round(s) for s in speeds[1]]}")
        print(f"dois processos de um núcleo: {two:.0f} tokens/s {[round(s) for s in speeds[2]]}")
        last = f"checkpoints/step-{UPDATES:06d}/adapters.safetensors"
        alone, together = (
            (home / "checkpoints_qlora" / f"{count}-0" / last).read_bytes() for count in speeds
        )
        print(
            f"o adaptador, após {UPDATES} atualizações: {'os mesmos' if alone == together else 'outros'} bits"
        )
        print(f"razão: {two / one:.2f}; fora do cálculo: {100 * median(waiting):.0f} % de uma atualização")
    finally:
        shutil.rmtree(home)


if __name__ == "__main__":
    main()
