"""A gRPC service and its client, in one file and without generated code: messages are plain text.

    python3 greeter.py serve                   serves on 127.0.0.1:$PORT
    python3 greeter.py call NAME [ADDRESS]     calls it, through the gateway
"""

import os
import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

METHOD = "Hello"
SERVICE = "example.Greeter"
HOST = "greeter.default.example.com"


def hello(name, context):
    return f"Hello {name.decode()}! (process {os.getpid()})".encode()


def serve():
    server = grpc.server(ThreadPoolExecutor(max_workers=10))
    handlers = {METHOD: grpc.unary_unary_rpc_method_handler(hello)}
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    server.add_insecure_port(f"127.0.0.1:{os.environ['PORT']}")
    server.start()
    server.wait_for_termination()


def call(name, address="127.0.0.1:8080"):
    # The gateway finds the route by the name that is called, whatever the address is.
    options = [("grpc.default_authority", HOST), ("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(address, options=options) as channel:
        try:
            print(channel.unary_unary(f"/{SERVICE}/{METHOD}")(name.encode(), timeout=30).decode())
        except grpc.RpcError as error:
            reason = dict(error.trailing_metadata() or ()).get("tidegate-reason", "")
            sys.exit(f"{error.code().name} {reason}: {error.details()}")


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    elif sys.argv[1:2] == ["call"] and len(sys.argv) in (3, 4):
        call(*sys.argv[2:])
    else:
        sys.exit(__doc__)
