# SPDX-License-Identifier: Apache-2.0
"""What the init container istio-validation does: listen where the sidecar will, dial an address that nobody
serves, and expect to get that connection with its original destination.

  validation.py 4|6     exit code 0: redirection works
"""
import json
import socket
import struct
import sys
import threading

PROBE_PORT = 15002
SO_ORIGINAL_DST = 80
FAMILIES = {
    "4": (socket.AF_INET, socket.SOL_IP, "127.0.0.1", "127.0.0.6"),
    "6": (socket.AF_INET6, socket.IPPROTO_IPV6, "::1", "::6"),
}


def serve(listener, level, found):
    accepted, _ = listener.accept()
    with accepted:
        answer = accepted.getsockopt(level, SO_ORIGINAL_DST, 28)
        original = struct.unpack_from("!H", answer, 2)[0]
        found.append({"listener": listener.getsockname()[1], "original": original})


def main(family, level, loopback, dialled):
    found = []
    threads = []
    for port in (15001, 15006):
        listener = socket.create_server((loopback, port), family=family, reuse_port=True)
        threads.append(threading.Thread(target=serve, args=(listener, level, found), daemon=True))
        threads[-1].start()
    with socket.socket(family) as client:
        client.settimeout(5)
        client.bind((loopback, 0))
        client.connect((dialled, PROBE_PORT))
        client.recv(1)
    print(json.dumps(found))
    return 0 if [one["original"] for one in found] == [PROBE_PORT] else 1


sys.exit(main(*FAMILIES[sys.argv[1]]))
