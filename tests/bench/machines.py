"""One process of all cores against several of one core each, in turns: `python tests/bench/machines.py`.

With `--network 1gbit` (Linux, as root, with iproute2) each process is in a network of its own, joined by a
cable of that rate: what several computers would be, but for their cores and for the length of the cable.
Prints tokens a second, medians over the updates, and the share of an update that was not spent computing.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

UPDATES, LEFT_OUT, ROUNDS = 60, 5, 3
NAMESPACES, ADDRESSES = ("farense-a", "farense-b"), ("10.77.0.1", "10.77.0.2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", metavar="TAXA", help="a rate that tc knows, as 1gbit or 10gbit")
    parser.add_argument("--reduce-dtype", default="float32", help="in which the gradients are sent")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if not args.network or args.inside:
        addresses = ADDRESSES if args.network else ("127.0.0.1", "127.0.0.1")
        compare(addresses, bool(args.network), args.reduce_dtype)
        return
    clear = [["ip", "netns", "del", name] for name in NAMESPACES]
    try:
        for command in cable(args.network):
            subprocess.run(command, check=True)
        inside = ["ip", "netns", "exec", NAMESPACES[0], sys.executable, *sys.argv, "--inside"]
        subprocess.run(inside, check=True)
    finally:
        for command in clear:
            subprocess.run(command, stderr=subprocess.DEVNULL)


def cable(rate: str) -> list[list[str]]:
    """Two networks, and a cable between them."""
    first, second = NAMESPACES
    commands = [f"ip netns add {name}" for name in NAMESPACES]
    commands += [f"ip -n {first} link add va type veth peer name vb netns {second}"]
    for name, end, address in zip(NAMESPACES, ("va", "vb"), ADDRESSES, strict=True):
        commands += [
            f"ip -n {name} addr add {address}/24 dev {end}",
            f"ip -n {name} link set {end} up",
            f"ip -n {name} link set lo up",
            f"tc -n {name} qdisc add dev {end} root tbf rate {rate} burst 256k latency 50ms",
        ]
    return [command.split() for command in commands]


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
