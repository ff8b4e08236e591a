"""The service of src/grpc.rs with Python's grpcio, which is gRPC's C core: as an endpoint
(`grpc_peer.py serve`) and as a client that tries every kind of call (`grpc_peer.py call ADDRESS
HOST [CA]`, with a CA over TLS). Needs grpcio and nothing generated: messages are written and read
by hand.
"""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc

SERVICE = "tidegate.test.Peer"
DETAILS = b"\x00details\xff"
MESSAGE = "as asked: 100 % \u00e9"
OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
# A call that is not answered by then has failed, in seconds.
PATIENCE = 30


# --- message Piece { bytes data = 1; uint32 number = 2; } ---


def varint(number):
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def read_varint(message, at):
    number = shift = 0
    while True:
        byte = message[at]
        at += 1
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return number, at


def piece(data=b"", number=0):
    out = b""
    if data:
        out += b"\x0a" + varint(len(data)) + data
    if number:
        out += b"\x10" + varint(number)
    return out


def parse(message):
    data, number, at = b"", 0, 0
    while at < len(message):
        tag, value_at = message[at], at + 1
        value, at = read_varint(message, value_at)
        if tag == 0x0A:
            data, at = message[at : at + value], at + value
        elif tag == 0x10:
            number = value
        else:
            raise ValueError(f"a field of tag {tag:#x}")
    return data, number


# --- the endpoint ---


def asked(context):
    metadata = dict(context.invocation_metadata())
    if "x-fail" in metadata:
        fail(context, int(metadata["x-fail"]))
    echoed = [name for name in ("x-echo", "x-echo-bin") if name in metadata]
    context.send_initial_metadata([(name, metadata[name]) for name in echoed])
    if "x-hold" in metadata:
        gone = threading.Event()
        if context.add_callback(gone.set):
            gone.wait()
    context.set_trailing_metadata([("x-trailing", "after")])
    return metadata


def fail(context, code):
    codes = {status.value[0]: status for status in grpc.StatusCode}
    context.set_trailing_metadata([("grpc-status-details-bin", DETAILS)])
    context.abort(codes[code], MESSAGE)


def unary(message, context):
    asked(context)
    return message


def collect(messages, context):
    asked(context)
    pieces = [parse(message)[0] for message in messages]
    return piece(b"".join(pieces), len(pieces))


def count(message, context):
    metadata = asked(context)
    data, number = parse(message)
    for each in range(number):
        yield piece(data, each)
    if "x-late" in metadata:
        fail(context, int(metadata["x-late"]))


def chat(messages, context):
    asked(context)
    yield from messages


def serve():
    server = grpc.server(ThreadPoolExecutor(max_workers=32), options=OPTIONS)
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Collect": grpc.stream_unary_rpc_method_handler(collect),
        "Count": grpc.unary_stream_rpc_method_handler(count),
        "Chat": grpc.stream_stream_rpc_method_handler(chat),
    }
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(f"listening 127.0.0.1:{port}", flush=True)
    # The end of standard input is the end of whoever started this.
    sys.stdin.read()
    server.stop(None)


# --- the client ---


class Calls:
    def __init__(self, channel):
        self.unary = channel.unary_unary(f"/{SERVICE}/Unary")
        self.collect = channel.stream_unary(f"/{SERVICE}/Collect")
        self.count = channel.unary_stream(f"/{SERVICE}/Count")
        self.chat = channel.stream_stream(f"/{SERVICE}/Chat")


def expect(got, wanted):
    if got != wanted:
        raise AssertionError(f"got {got!r} instead of {wanted!r}")


def failure(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call did not fail")


def unary_calls_with_metadata(calls):
    metadata = [("x-echo", "text"), ("x-echo-bin", b"\x00\x01\xff")]
    answer, call = calls.unary.with_call(piece(b"hello", 7), metadata=metadata, timeout=PATIENCE)
    expect(parse(answer), (b"hello", 7))
    initial = dict(call.initial_metadata())
    expect((initial["x-echo"], initial["x-echo-bin"]), ("text", b"\x00\x01\xff"))


def empty_messages(calls):
    expect(calls.unary(b"", timeout=PATIENCE), b"")


def large_messages(calls):
    data = bytes(range(256)) * (4 << 12)
    expect(parse(calls.unary(piece(data), timeout=PATIENCE)) == (data, 0), True)


def client_streams(calls):
    pieces = (piece(b"%d," % number) for number in range(100))
    answer = parse(calls.collect(pieces, timeout=PATIENCE))
    expect(answer, (b"".join(b"%d," % number for number in range(100)), 100))


def server_streams(calls):
    numbers = [parse(each) for each in calls.count(piece(b"x", 100), timeout=PATIENCE)]
    expect(numbers, [(b"x", number) for number in range(100)])


def conversations(calls):
    """Each message is sent after the answer to the one before."""
    turn = threading.Semaphore(1)

    def messages():
        for number in range(50):
            turn.acquire()
            yield piece(b"%d" % number)

    answers = []
    for answer in calls.chat(messages(), timeout=PATIENCE):
        answers.append(parse(answer)[0])
        turn.release()
    expect(answers, [b"%d" % number for number in range(50)])


def errors_with_details(calls):
    for code in (grpc.StatusCode.NOT_FOUND, grpc.StatusCode.UNAUTHENTICATED):
        metadata = [("x-fail", str(code.value[0]))]
        error = failure(lambda: calls.unary(b"", metadata=metadata, timeout=PATIENCE))
        expect((error.code(), error.details()), (code, MESSAGE))
        expect(dict(error.trailing_metadata())["grpc-status-details-bin"], DETAILS)


def errors_after_messages(calls):
    answers = calls.count(piece(b"x", 3), metadata=[("x-late", "8")], timeout=PATIENCE)
    got = []
    error = failure(lambda: got.extend(answers))
    expect(len(got), 3)
    expect((error.code(), error.details()), (grpc.StatusCode.RESOURCE_EXHAUSTED, MESSAGE))


def deadlines(calls):
    error = failure(lambda: calls.unary(b"", metadata=[("x-hold", "")], timeout=0.2))
    # An endpoint of tonic may be first to notice, and says so in another word.
    if error.code() != grpc.StatusCode.CANCELLED:
        expect(error.code(), grpc.StatusCode.DEADLINE_EXCEEDED)


def cancellation(calls):
    call = calls.unary.future(b"", metadata=[("x-hold", "")], timeout=PATIENCE)
    call.cancel()
    expect(call.code(), grpc.StatusCode.CANCELLED)


def many_at_once(calls):
    running = [calls.unary.future(piece(b"", n), timeout=PATIENCE) for n in range(200)]
    expect([parse(call.result())[1] for call in running], list(range(200)))


CASES = [
    unary_calls_with_metadata,
    empty_messages,
    large_messages,
    client_streams,
    server_streams,
    conversations,
    errors_with_details,
    errors_after_messages,
    deadlines,
    cancellation,
    many_at_once,
]


def open_channel(address, host, authority):
    options = OPTIONS + [("grpc.default_authority", host), ("grpc.enable_http_proxy", 0)]
    if authority is None:
        return grpc.insecure_channel(address, options=options)
    with open(authority, "rb") as file:
        credentials = grpc.ssl_channel_credentials(file.read())
    # The name that the certificate must have.
    options.append(("grpc.ssl_target_name_override", host))
    return grpc.secure_channel(address, credentials, options=options)


def call(address, host, authority=None):
    failed = 0
    with open_channel(address, host, authority) as channel:
        for case in CASES:
            try:
                case(Calls(channel))
                print(f"ok {case.__name__}", flush=True)
            except Exception as error:
                failed += 1
                print(f"FAILED {case.__name__}: {error!r}", flush=True)
    return failed


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve()
    elif sys.argv[1:2] == ["call"]:
        sys.exit(call(*sys.argv[2:5]))
    else:
        sys.exit(__doc__)
