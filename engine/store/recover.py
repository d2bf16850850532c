"""Makes the entries of a run's segments again from the segments themselves, when its manifest is damaged."""

from ft_audit.engine.store.manifest import SegmentEntry
from ft_audit.engine.store.place import Place
from ft_audit.engine.store.seal import CHECKSUMS_NAME, checksum
from ft_audit.engine.store.sealed_tree import SealedTree
from ft_audit.engine.store.segment_tree import read_segment


def recover_segments(place: Place, run: str) -> list[SegmentEntry]:
    """Return an entry for every sealed segment of the run whose files all have their checksums.

    A segment's folder bears the run's id, which determines its bytes, and its own list of checksums vouches
    for the rest; one that is not whole is left out, and so computed again.
    """
    entries = []
    for name in place.folders(f"runs/{run}/segments"):
        folder = f"runs/{run}/segments/{name}"
        seal = place.read(f"{folder}/{CHECKSUMS_NAME}")
        if seal is None or not name.removesuffix(".zarr").isdigit():
            continue
        tree = SealedTree(place, folder, checksum(seal), f"segment {name}", "")
        if tree.damaged():
            continue
        data = read_segment(tree, saes=(), dense=())
        entries.append(
            SegmentEntry(
                name=name.removesuffix(".zarr"),
                num_prompts=data.num_prompts,
                num_tokens=data.num_tokens,
                checksum=tree.seal,
            )
        )
    return entries
