"""A server of grpc.health.v1.Health (python3-grpcio), whose messages are written by hand. Prints its port.

    health_of_grpc.py server        `up` is SERVING until a line comes in, which says what it is then; `sick` is NOT_SERVING
"""

import sys
import threading
from concurrent import futures

import grpc

STATUS = {b"": 1, b"up": 1, b"sick": 2}


def check(request, context):
    service = request[2:] if request else b""
    if service not in STATUS:
        context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
    return bytes([0x08, STATUS[service]])


HANDLERS = {"Check": grpc.unary_unary_rpc_method_handler(check)}
server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("grpc.health.v1.Health", HANDLERS),))
print(server.add_insecure_port("127.0.0.1:0"), flush=True)
server.start()
for line in sys.stdin:
    STATUS[b"up"] = int(line)
server.stop(0)
