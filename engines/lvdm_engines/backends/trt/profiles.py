"""Which shapes a compiled graph must take: optimisation profiles from a manifest and ranges."""

import math
from collections.abc import Iterable, Iterator, Mapping

from lvdm_engines.backends.plan_facts import PlanOptions, Profile, Range
from lvdm_engines.contract import graph_tensors
from lvdm_engines.errors import BundleError, quoted
from lvdm_engines.manifest import GraphFacts, Manifest, TensorSpec

BATCH = "b"  # the name of the batch dimension in the contract
_WIDE = 8  # kernels chosen for one size serve sizes within about this factor
_PIXELS = ("encoder", "decoder")


def profiles_for(
    manifest: Manifest, names: Iterable[str], options: PlanOptions
) -> tuple[Profile, ...]:
    """Return the profiles of one graph file that serves the graphs `names`.

    Every clip length gets profiles of its own, since its size never varies, and so does every
    part of a wide batch range. A graph without free dimensions gets none.
    """
    found: list[Profile] = []
    for name in names:
        batches = options.pixel_batch if name in _PIXELS else options.batch
        for sizes in _free_sizes(name, manifest):
            fixed = {dim: Range(n, n, n) for dim, n in sizes.items() if n is not None}
            for batch in split(batches) if None in sizes.values() else [None]:
                free = {dim: batch for dim, n in sizes.items() if n is None and batch is not None}
                profile = {**free, **fixed}
                if profile and profile not in found:
                    found.append(profile)
    return tuple(found)


def graph_files(manifest: Manifest) -> list[tuple[str, ...]]:
    """Return the names of the graphs that are one file with the same tensors, together."""
    groups: dict[str, list[str]] = {}
    for name, facts in manifest.graphs.items():
        twin = next((first for first in groups if manifest.graphs[first] == facts), name)
        groups.setdefault(twin, []).append(name)
    return [tuple(names) for names in groups.values()]


def split(batch: Range) -> list[Range]:
    """Cut a wide range in three: below the optimum, around it, and above; a narrow one stays."""
    if batch.max <= batch.min * _WIDE:
        return [batch]
    low, high = max(batch.min, batch.opt // 2), min(batch.max, 2 * batch.opt)
    parts = []
    if low > batch.min:
        parts.append(Range(batch.min, max(batch.min, math.isqrt(batch.min * low)), low))
        low += 1
    parts.append(Range(low, batch.opt, high))
    if high < batch.max:
        parts.append(Range(high + 1, batch.max, batch.max))
    return parts


def shape_at(spec: TensorSpec, profile: Profile, which: str) -> tuple[int, ...]:
    """Return the shape of a tensor at the `min`, `opt` or `max` of a profile."""
    return tuple(n if isinstance(n, int) else getattr(profile[n], which) for n in spec.shape)


def fits(profile: Profile, sizes: Mapping[str, int]) -> bool:
    """Tell whether free dimensions of these sizes may run under a profile."""
    return all(sizes[dim] in allowed for dim, allowed in profile.items() if dim in sizes)


def choose(profiles: tuple[Profile, ...], sizes: Mapping[str, int]) -> int | None:
    """Return the index of the profile whose optimum is nearest to these sizes, or None."""
    fitting = [i for i, profile in enumerate(profiles) if fits(profile, sizes)]

    def distance(index: int) -> float:
        profile = profiles[index]
        return sum(abs(math.log(sizes[d] / r.opt)) for d, r in profile.items() if d in sizes)

    return min(fitting, key=distance, default=None)


def _free_sizes(name: str, manifest: Manifest) -> Iterator[dict[str, int | None]]:
    """Yield for each length of clip the size of each free dimension; None is the batch."""
    lengths: set[int] | set[None] = manifest.model.clips(name) or {None}
    for clip in lengths:
        yield _sizes_at(name, manifest.graphs[name], manifest, clip)


def _sizes_at(
    name: str, facts: GraphFacts, manifest: Manifest, clip: int | None
) -> dict[str, int | None]:
    required, optional, _ = graph_tensors(name, manifest.model, clip)
    expected = {spec.name: spec.shape for spec in (*required, *optional)}
    sizes: dict[str, int | None] = {}
    for spec in facts.inputs:
        for dim, want in zip(spec.shape, expected[spec.name], strict=True):
            if isinstance(dim, int):
                continue
            size = want if isinstance(want, int) else None
            if sizes.setdefault(dim, size) != size:
                raise BundleError(
                    f"graph {name!r}: the free dimension {quoted(dim)} of {spec.name} would have "
                    "to be of two sizes; export the bundle again"
                )
    return sizes
