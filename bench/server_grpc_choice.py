"""What a gRPC server in Python could be made of: services that only answer, beside Redline's whole server and Triton.

    python bench/server_grpc_choice.py --triton-python PYTHON_WITH_PYTRITON

Each of the first four gives a ready answer to ModelInfer without looking at the request: grpcio with threads, grpc.aio on
asyncio's loop and on uvloop, and the h2 package on uvloop. Redline parses, batches and runs an identity engine. The client is
tritonclient.grpc.aio on the same machine.
"""

import argparse
import asyncio
import concurrent.futures
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import grpc
import server_contest as contest

from redline.base import cpu
from redline.server import proto

KINDS = ("grpcio, 8 threads", "grpc.aio", "grpc.aio, uvloop", "h2, uvloop")


def ready_answer():
    answer = proto.ModelInferResponse(model_name="identity", model_version="1")
    answer.outputs.add(name="OUTPUT0", datatype="FP32", shape=[1, 16])
    answer.raw_output_contents.append(bytes(64))
    return answer.SerializeToString()


class Handler(grpc.GenericRpcHandler):
    """Every method answers with the same bytes."""

    def __init__(self, method):
        self._method = grpc.unary_unary_rpc_method_handler(method)

    def service(self, details):
        return self._method


def serve_threads(port, answer):
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(8))
    server.add_generic_rpc_handlers((Handler(lambda request, context: answer),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    server.start()
    server.wait_for_termination()


async def serve_aio(port, answer):
    async def method(request, context):
        return answer

    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Handler(method),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


async def serve_h2(port, answer):
    import h2.config
    import h2.connection
    import h2.events

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport
            self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding=None))
            self.h2.initiate_connection()
            transport.write(self.h2.data_to_send())

        def data_received(self, data):
            for event in self.h2.receive_data(data):
                if isinstance(event, h2.events.DataReceived):
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.events.StreamEnded):
                    self.answer(event.stream_id)
            self.transport.write(self.h2.data_to_send())

        def answer(self, stream):
            self.h2.send_headers(stream, [(b":status", b"200"), (b"content-type", b"application/grpc")])
            self.h2.send_data(stream, b"\0" + len(answer).to_bytes(4, "big") + answer)
            self.h2.send_headers(stream, [(b"grpc-status", b"0")], end_stream=True)

    server = await asyncio.get_running_loop().create_server(Protocol, "127.0.0.1", port)
    await server.serve_forever()


def serve(kind, port):
    import uvloop

    answer = ready_answer()
    if kind == KINDS[0]:
        serve_threads(port, answer)
    elif kind == KINDS[1]:
        asyncio.run(serve_aio(port, answer))
    elif kind == KINDS[2]:
        uvloop.run(serve_aio(port, answer))
    else:
        uvloop.run(serve_h2(port, answer))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--triton-python", default="")
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--serve", nargs=2, metavar=("KIND", "PORT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve[0], int(options.serve[1]))
        return
    with tempfile.TemporaryDirectory() as scratch:
        peers = []
        try:
            for kind in KINDS:
                port = contest.free_port()
                peers.append(contest.Peer(kind, [sys.executable, __file__, "--serve", kind, str(port)], 0, port))
            peers.append(contest.redline(Path(scratch)))
            if options.triton_python:
                peers.append(contest.triton(Path(scratch), options.triton_python))
            for peer in peers[len(KINDS) :]:
                peer.wait_ready()
            time.sleep(3.0)
            rows = measure(peers, options)
        finally:
            for peer in peers:
                peer.stop()
    print(f"{cpu.model_name()}, {cpu.allowed_cores()} cores shared with the client, load before {os.getloadavg()[0]:.2f}")
    for row in rows:
        print(row)


def measure(peers, options):
    rows = []
    for concurrency in (1, 16, 64):
        found = {peer.name: [] for peer in peers}
        for block in range(options.blocks):
            for peer in peers:
                if block == 0:
                    asyncio.run(contest.grpc_load(peer, concurrency, 0.5))
                found[peer.name].append(asyncio.run(contest.grpc_load(peer, concurrency, options.seconds)))
        for name, runs in found.items():
            rate, p99 = (statistics.median(run[key] for run in runs) for key in ("rate", "p99_ms"))
            rows.append(f"{concurrency:>3} {name:<18} {rate:>7.0f} calls/s  p99 {p99:.2f} ms")
    return rows


if __name__ == "__main__":
    main()
