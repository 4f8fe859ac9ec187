"""An Admin pod of a new version waits until no Query pod of another version is left: consumers are upgraded first.

Usage: consumers_first.py ALL OWN SECONDS. ALL and OWN are names of headless services: all Query pods that are ready,
and those of this version. It waits no longer than SECONDS, and not at all when no Query pod is ready: an Admin module
without a Query module still takes uploads.
"""

import socket
import sys
import time


def addresses(name: str) -> set[str] | None:
    """Of the ready pods behind a headless service; None when the name service does not say."""
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)}
    except socket.gaierror as error:
        return None if error.errno == socket.EAI_AGAIN else set()


def wait(everyone: str, own: str, seconds: float) -> bool:
    """Whether all ready Query pods are of this version within `seconds`."""
    end = time.monotonic() + seconds
    said: object = None
    while True:
        ready, same = addresses(everyone), addresses(own)
        others = None if ready is None or same is None else ready - same
        if others is not None and not others:
            return True
        if time.monotonic() >= end:
            return False
        if others != said:
            said = others
            sys.stderr.write(f"Waiting for Query pods of another version: {', '.join(sorted(others or ['unknown']))}\n")
        time.sleep(1)


if __name__ == "__main__":
    if not wait(sys.argv[1], sys.argv[2], float(sys.argv[3])):
        sys.stderr.write("Query pods of another version are still there; going on without them.\n")
