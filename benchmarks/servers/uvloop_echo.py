"""The limit for anything written in Python: a bare uvloop protocol that answers whatever arrives.

It parses nothing; each arrival of bytes is taken for one small request.
"""

import asyncio
import sys

import uvloop

BODY = (
    b'{"model_name":"tiny","model_version":"1","id":"q0000000","outputs":[{"name":"probabilities","datatype":"FP32",'
    b'"shape":[1,3],"data":[0.123456789,0.234567891,0.641975320]}]}'
)
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.transport.write(ANSWER)


async def main():
    server = await asyncio.get_running_loop().create_server(Echo, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    await server.serve_forever()


uvloop.install()
asyncio.run(main())
