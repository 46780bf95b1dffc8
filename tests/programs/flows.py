"""flows.py HOST PORT COUNT: that many connections, all open at once; then
each sends its number and must have it echoed."""
import asyncio
import resource
import socket
import sys

host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
_, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def main():
    family, _, _, _, address = socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM)[0]
    dialling = asyncio.Semaphore(200)
    everyone = asyncio.Event()
    opened = 0

    async def flow(number):
        nonlocal opened
        async with dialling:
            reader, writer = await asyncio.open_connection(*address[:2], family=family)
            # One round trip now: the whole way is open, not only the first hop.
            writer.write(b"hello\n")
            assert await reader.readline() == b"hello\n", number
        opened += 1
        if opened == count:
            everyone.set()
        await everyone.wait()
        line = f"{number}\n".encode()
        writer.write(line)
        assert await reader.readline() == line, number
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(flow(number) for number in range(count)))
    print("flows", count)


asyncio.run(main())
