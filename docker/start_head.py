"""Start Ray's head at its address on a neighbour's network, whatever other networks it is on.

python docker/start_head.py NEIGHBOUR [WORD ...]; the words go to `ray start --head`.

Ray itself takes the address of the default route. That is the network by which ports are published,
and workers, which are not on it, could never reach the head there.
"""

import os
import socket
import sys
import time

_PATIENCE_S = 120.0
_ANY_PORT = 9  # nothing is sent: the kernel only chooses the way


def address_towards(neighbour: str) -> str:
    """Return this machine's address from which a neighbour is reached; OSError if it isn't."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((neighbour, _ANY_PORT))
        return probe.getsockname()[0]


def find_address(neighbour: str) -> str:
    """Return the same, once the neighbour's name is known: it may be starting."""
    deadline = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return address_towards(neighbour)
        except OSError as error:
            if time.monotonic() > deadline:
                sys.exit(f"no way to {neighbour}, whose network the head should be on: {error}")
            time.sleep(1.0)


def main() -> None:
    """Become Ray's head."""
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    address = find_address(sys.argv[1])
    print(f"the head's address is {address}", flush=True)
    command = ["ray", "start", "--head", f"--node-ip-address={address}", *sys.argv[2:]]
    os.execvp(command[0], command)  # noqa: S606 - signals must reach Ray


if __name__ == "__main__":
    main()
