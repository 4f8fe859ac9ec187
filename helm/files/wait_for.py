"""Returns when each HOST:PORT that is given takes connections: dev mode's own broker and database."""

import socket
import sys
import time

for address in sys.argv[1:]:
    host, _, port = address.rpartition(":")
    sys.stderr.write(f"Waiting for {address}\n")
    while True:
        try:
            socket.create_connection((host, int(port)), timeout=2).close()
            break
        except OSError:
            time.sleep(0.5)
