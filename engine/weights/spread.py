"""Many small pieces of work side by side on single threads, then the large ones with all threads each."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from typing import TypeVar

import torch

Result = TypeVar("Result")


def spread(
    work: Callable[[int], Result],
    large: Sequence[bool],
    on_done: Callable[[int, int], object] | None = None,
) -> list[Result]:
    """Return `work(i)` for every i below `len(large)`, in order.

    `on_done` hears in this thread how many of how many are done. The first error stops everything.
    """
    results: dict[int, Result] = {}

    def keep(number: int, result: Result) -> None:
        results[number] = result
        if on_done is not None:
            on_done(len(results), len(large))

    with ThreadPoolExecutor(torch.get_num_threads(), "ft-audit-weights") as pool, _one_thread_each():
        futures = {pool.submit(work, number): number for number, is_large in enumerate(large) if not is_large}
        try:
            for future in as_completed(futures):
                keep(futures[future], future.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    for number, is_large in enumerate(large):
        if is_large:
            keep(number, work(number))
    return [results[number] for number in range(len(large))]


@contextmanager
def _one_thread_each() -> Iterator[None]:
    """Let every thread that starts inside the block run torch's operations by itself."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
