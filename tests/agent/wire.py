"""A wire between two network namespaces that delays and loses packets, for kernels that have no such queue.

wire.py NAMESPACE ADDRESS/PREFIX NAMESPACE ADDRESS/PREFIX LOSS_PERCENT JITTER_MS SEED

Makes an interface `wan` in each namespace and carries what is sent to one over to the other: of 100 packets it loses
LOSS_PERCENT, and each of the others arrives 0 to JITTER_MS later, in whatever order that gives. Says `up` once both
are there; ends when its input does.
"""

import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF = 0x400454CA
IFF_TUN = 0x0001
IFF_NO_PI = 0x1000
LIBC = ctypes.CDLL(None, use_errno=True)


def end(namespace, address):
    """The wire's end in a namespace: an open descriptor of its interface."""
    with open(f"/run/netns/{namespace}") as place:
        if LIBC.setns(place.fileno(), 0) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUNSETIFF, struct.pack("16sH", b"wan", IFF_TUN | IFF_NO_PI))
    subprocess.run(["ip", "addr", "add", address, "dev", "wan"], check=True)
    subprocess.run(["ip", "link", "set", "wan", "up"], check=True)
    return device


def main():
    left, left_address, right, right_address, loss, jitter_ms, seed = sys.argv[1:]
    chance = random.Random(int(seed))
    ends = [end(left, left_address), end(right, right_address)]
    print("up", flush=True)
    waiting = []
    count = 0
    while True:
        now = time.monotonic()
        while waiting and waiting[0][0] <= now:
            _, _, to, packet = heapq.heappop(waiting)
            try:
                os.write(to, packet)
            except BlockingIOError:
                pass
        timeout = max(0.0, waiting[0][0] - now) if waiting else None
        ready, _, _ = select.select([*ends, sys.stdin], [], [], timeout)
        if sys.stdin in ready and not sys.stdin.buffer.read1():
            return
        for device in set(ready) & set(ends):
            try:
                packet = os.read(device, 65536)
            except BlockingIOError:
                continue
            if chance.random() * 100 < float(loss):
                continue
            count += 1
            late = chance.random() * float(jitter_ms) / 1000
            to = ends[1] if device == ends[0] else ends[0]
            heapq.heappush(waiting, (time.monotonic() + late, count, to, packet))


main()
