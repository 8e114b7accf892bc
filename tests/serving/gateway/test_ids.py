"""Names of requests."""

import os

from serving.gateway.ids import DRAWN, HEX_CHARS, new_id


def test_ids_are_hex_and_never_the_same() -> None:
    ids = [new_id() for _ in range(3 * DRAWN)]
    assert len(set(ids)) == len(ids)
    assert all(len(one) == HEX_CHARS and int(one, 16) >= 0 for one in ids)


def test_ids_of_a_forked_process_are_not_its_parents() -> None:
    new_id()  # so that some are drawn
    reads, writes = os.pipe()
    child = os.fork()
    if not child:
        os.write(writes, new_id().encode())
        os._exit(0)
    os.waitpid(child, 0)
    its = os.read(reads, HEX_CHARS).decode()
    os.close(reads)
    os.close(writes)
    assert its not in {new_id() for _ in range(DRAWN)}
