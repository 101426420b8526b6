"""A WebSocket server and its client (python3-websockets).

    websocket_echo.py server       prints its port
    websocket_echo.py client URL [FILE]   talks to it; prints "ok", or what went wrong. FILE: the certificate to trust
"""

import asyncio
import ssl
import sys

import websockets

BIG = bytes(range(256)) * 4096


async def echo(socket):
    async for message in socket:
        if message == "close":
            return await socket.close(4001, "as you like")
        await socket.send(message)


async def serve():
    async with websockets.serve(echo, "127.0.0.1", 0, max_size=None, subprotocols=["chat"]) as server:
        print(server.sockets[0].getsockname()[1], flush=True)
        await asyncio.Future()


def check(is_so, what):
    if not is_so:
        raise SystemExit(f"wrong: {what}")


async def talk(url, trusted):
    tls = ssl.create_default_context(cafile=trusted) if trusted else None
    host = "a.example" if trusted else None
    options = {"ssl": tls, "server_hostname": host} if trusted else {}
    async with websockets.connect(url, max_size=None, subprotocols=["chat"], **options) as socket:
        check(socket.subprotocol == "chat", "subprotocol")
        for number in range(100):
            await socket.send(str(number))
            check(await socket.recv() == str(number), "text in turns")
        await socket.send(BIG)
        check(await socket.recv() == BIG, "a large message")
        await asyncio.wait_for(await socket.ping(), 10)
        await socket.send("close")
        try:
            await socket.recv()
            check(False, "the server's close")
        except websockets.ConnectionClosedError as closed:
            check((closed.rcvd.code, closed.rcvd.reason) == (4001, "as you like"), closed)
    print("ok")


if __name__ == "__main__":
    if sys.argv[1] == "server":
        asyncio.run(serve())
    else:
        asyncio.run(asyncio.wait_for(talk(sys.argv[2], sys.argv[3] if len(sys.argv) > 3 else None), 20))
