"""``python -m oxidask.host``: serve the socket that is standard input, as the scheduler starts it."""

import os
import socket

from .serve import main

sock = socket.socket(fileno=os.dup(0))
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
main(sock)
