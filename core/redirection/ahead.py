"""Work on what comes next while this is worked on."""

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def ahead(items: Iterator[Item], most: int = 4) -> Generator[Item, None, None]:
    """The same items, made in a thread, at most so many before they are wanted. What making one raises is raised.

    Close it where not all are wanted: it then waits for those that are being made.
    """

    def some() -> list[Item]:
        return [item for item in [next(items, None)] if item is not None]

    with ThreadPoolExecutor(1) as pool:
        made = deque(pool.submit(some) for _ in range(most))
        while one := made.popleft().result():
            made.append(pool.submit(some))
            yield one[0]
