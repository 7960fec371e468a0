# SPDX-License-Identifier: Apache-2.0
"""Python's own HTTP server, as python3 -m http.server starts it, with connections
that persist, without the wait for an acknowledgement between header and file, and
without a log."""

from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer


class Handler(SimpleHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args):
        pass


ThreadingHTTPServer(("127.0.0.1", 8003), partial(Handler, directory="/dev/shm/www")).serve_forever()
