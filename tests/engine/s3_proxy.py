"""A proxy before an S3 server that fails on demand, as a script: python s3_proxy.py PORT UPSTREAM_PORT.

A PUT of `/_mode/NAME` sets what it does from then on: `ok`, `down` answers 503, `deny` 403, `cut` hangs up,
`flaky` answers 503 to every second request, `slow` waits before each.
"""

import http.client
import itertools
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SLOW_SECONDS = 0.1


class Proxy(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mode = "ok"
    upstream = 0
    count = itertools.count()

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.startswith("/_mode/"):
            Proxy.mode = self.path.removeprefix("/_mode/")
            return self.answer(200, {}, b"")
        if self.mode == "cut":
            self.close_connection = True
            return self.connection.close()
        if self.mode == "down" or (self.mode == "flaky" and next(self.count) % 2):
            return self.answer(503, {}, b"<Error><Code>SlowDown</Code></Error>")
        if self.mode == "deny":
            return self.answer(403, {}, b"<Error><Code>AccessDenied</Code></Error>")
        if self.mode == "slow":
            time.sleep(SLOW_SECONDS)
        server = http.client.HTTPConnection("127.0.0.1", self.upstream)
        server.request(self.command, self.path, body, dict(self.headers))
        found = server.getresponse()
        self.answer(found.status, dict(found.headers), found.read())
        return server.close()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                self.send_header(name, value)
        length = headers.get("Content-Length", "0") if self.command == "HEAD" else len(body)
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    Proxy.upstream = int(sys.argv[2])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Proxy).serve_forever()
