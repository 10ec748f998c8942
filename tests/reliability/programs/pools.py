"""Logs from the workers of multiprocessing pools while the batcher of the parent runs. Prints what is due."""

import asyncio
import multiprocessing
import threading

from honeyhive_batcher import Batcher

batcher = Batcher.from_env(flush_interval=0.01)


async def log(name: str) -> None:
    async with batcher:
        batcher.push({"model_name": name})


def work(name: str) -> tuple[str, int]:
    before = batcher.statistics().delivered
    asyncio.run(log(name))
    return name, batcher.statistics().delivered - before


def main() -> None:
    loop = asyncio.new_event_loop()
    home = threading.Thread(target=loop.run_forever)
    home.start()
    asyncio.run_coroutine_threadsafe(batcher.start(), loop).result(30)
    for method in ("fork", "spawn"):
        batcher.push({"model_name": f"parent of {method}"})
        print(f"due parent of {method}")
        with multiprocessing.get_context(method).Pool(2) as pool:
            for name, delivered in pool.map(work, [f"{method} {number}" for number in range(6)]):
                print(f"due {name}")
                if delivered != 1:
                    print(f"wrong {name}: {delivered} delivered")
            pool.close()
            pool.join()
    asyncio.run_coroutine_threadsafe(batcher.aclose(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    home.join()
    loop.close()


if __name__ == "__main__":
    main()
