"""grpc_calls.py serve PORT | call TARGET CA GO   (CA "" is no TLS)

gRPC of every kind. `call` prints a line for each kind; after the first message
of the last stream it prints "midway" and waits for the file GO. `serve` ends
gracefully at SIGTERM: GOAWAY, and calls that are open go on.
"""
import os
import signal
import sys
import threading
import time
from concurrent import futures

import grpc

LARGE = 4 << 20
OPTIONS = [("grpc.max_receive_message_length", 8 << 20), ("grpc.max_send_message_length", 8 << 20)]


def down(request, context):
    for number in range(int(request)):
        yield bytes([number & 0xFF]) * 65536


def slow(request, context):
    ended = threading.Event()
    context.add_callback(ended.set)
    ended.wait(60)
    return b""


def up(requests, context):
    return str(sum(len(part) for part in requests)).encode()


def both(requests, context):
    yield from requests


def serve(port):
    server = grpc.server(futures.ThreadPoolExecutor(8), options=OPTIONS)
    methods = {
        "Echo": grpc.unary_unary_rpc_method_handler(lambda request, context: request),
        "Slow": grpc.unary_unary_rpc_method_handler(slow),
        "Down": grpc.unary_stream_rpc_method_handler(down),
        "Up": grpc.stream_unary_rpc_method_handler(up),
        "Both": grpc.stream_stream_rpc_method_handler(both),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("odyn.Test", methods),))
    assert server.add_insecure_port(f"127.0.0.1:{port}")
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    server.start()
    print("ready", flush=True)
    stop.wait()
    ended = server.stop(30)
    print("stopping", flush=True)
    ended.wait()


def call(target, authority, go):
    if authority:
        with open(authority, "rb") as file:
            credentials = grpc.ssl_channel_credentials(file.read())
        options = OPTIONS + [("grpc.ssl_target_name_override", "shop.example")]
        channel = grpc.secure_channel(target, credentials, options)
    else:
        channel = grpc.insecure_channel(target, OPTIONS)
    large = os.urandom(LARGE)
    assert channel.unary_unary("/odyn.Test/Echo")(large, timeout=60) == large
    print("unary", flush=True)
    parts = list(channel.unary_stream("/odyn.Test/Down")(b"300", timeout=60))
    assert [part[0] for part in parts] == [number & 0xFF for number in range(300)]
    assert all(len(part) == 65536 for part in parts)
    print("down", flush=True)
    total = channel.stream_unary("/odyn.Test/Up")((large for _ in range(8)), timeout=60)
    assert int(total) == 8 * LARGE
    print("up", flush=True)
    try:
        channel.unary_unary("/odyn.Test/Slow")(b"", timeout=0.3)
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
    print("deadline", flush=True)

    def messages():
        yield b"first"
        while not os.path.exists(go):
            time.sleep(0.02)
        for number in range(100):
            yield str(number).encode()
        # The service closes the connection behind this call, and whatever comes to a closed socket
        # has its kernel throw away what is not sent yet: here as without anything in between.
        all_came.wait(60)

    all_came = threading.Event()
    answers = channel.stream_stream("/odyn.Test/Both")(messages(), timeout=60)
    # Only now the server has the call: what comes behind GOAWAY is not taken.
    assert next(answers) == b"first"
    print("midway", flush=True)
    for number in range(100):
        assert next(answers) == str(number).encode()
    all_came.set()
    assert list(answers) == []
    print("both", flush=True)


if sys.argv[1] == "serve":
    serve(int(sys.argv[2]))
else:
    call(sys.argv[2], sys.argv[3], sys.argv[4])
