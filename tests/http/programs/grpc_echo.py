"""A gRPC service and its client (python3-grpcio), with bytes for messages.

    grpc_echo.py server          prints its port
    grpc_echo.py client PORT     makes all kinds of calls; prints "ok", or what went wrong
    grpc_echo.py call PORT       makes one call that fails; prints code and details
"""

import queue
import sys
from concurrent import futures

import grpc

BIG = bytes(range(256)) * 4096


def fail(request, context):
    context.set_trailing_metadata((("x-why", "because"),))
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not like that: ü")


def echo_each(requests, context):
    for request in requests:
        yield b"<" + request + b">"


HANDLERS = {
    "Unary": grpc.unary_unary_rpc_method_handler(lambda request, context: request[::-1]),
    "Down": grpc.unary_stream_rpc_method_handler(lambda request, context: (b"%d" % n for n in range(int(request)))),
    "Up": grpc.stream_unary_rpc_method_handler(lambda requests, context: b"%d" % sum(len(r) for r in requests)),
    "Both": grpc.stream_stream_rpc_method_handler(echo_each),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
}


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", HANDLERS),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    server.wait_for_termination()


def check(is_so, what):
    if not is_so:
        raise SystemExit(f"wrong: {what}")


def call_all(port):
    options = [("grpc.enable_http_proxy", 0), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=options) as channel:
        unary = channel.unary_unary("/test.Echo/Unary")
        check(unary(b"abc", timeout=10) == b"cba", "unary")
        check(unary(BIG, timeout=10) == BIG[::-1], "unary with a large message")
        down = list(channel.unary_stream("/test.Echo/Down")(b"1000", timeout=10))
        check(down == [b"%d" % n for n in range(1000)], "stream from the server")
        up = channel.stream_unary("/test.Echo/Up")(iter([b"x" * 1000] * 1000), timeout=10)
        check(up == b"1000000", "stream to the server")
        sent = queue.Queue()
        both = channel.stream_stream("/test.Echo/Both")(iter(sent.get, None), timeout=10)
        for number in range(50):
            sent.put(b"%d" % number)
            check(next(both) == b"<%d>" % number, "both streams in turns")
        sent.put(None)
        check(list(both) == [], "the end of both streams")
        try:
            channel.unary_unary("/test.Echo/Fail")(b"", timeout=10)
            check(False, "an error of the server's")
        except grpc.RpcError as error:
            check(error.code() == grpc.StatusCode.FAILED_PRECONDITION, error.code())
            check(error.details() == "not like that: ü", error.details())
            check(("x-why", "because") in [(k, v) for k, v in error.trailing_metadata()], "trailers of an error")
        try:
            channel.unary_unary("/test.Echo/Nowhere")(b"", timeout=10)
            check(False, "a method that is not there")
        except grpc.RpcError as error:
            check(error.code() == grpc.StatusCode.UNIMPLEMENTED, error.code())
        endless = channel.unary_stream("/test.Echo/Down")(b"1000000000", timeout=10)
        check(next(endless) == b"0", "a stream that is cancelled")
        endless.cancel()
        check(unary(b"end", timeout=10) == b"dne", "a call behind a stream that was cancelled")
    print("ok")


def call_one(port):
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            print(channel.unary_unary("/test.Echo/Unary")(b"abc", timeout=10))
        except grpc.RpcError as error:
            print(error.code().name, error.details())


if __name__ == "__main__":
    if sys.argv[1] == "server":
        serve()
    else:
        {"client": call_all, "call": call_one}[sys.argv[1]](sys.argv[2])
