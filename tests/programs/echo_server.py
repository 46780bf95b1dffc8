"""echo_server.py HOST PORT: a TCP echo for thousands of connections."""
import asyncio
import resource
import sys

_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def echo(reader, writer):
    try:
        while part := await reader.read(4096):
            writer.write(part)
            await writer.drain()
        writer.close()
    except ConnectionError:
        pass


async def main():
    server = await asyncio.start_server(echo, sys.argv[1], int(sys.argv[2]), backlog=4096)
    print("ready", flush=True)
    await server.serve_forever()


asyncio.run(main())
