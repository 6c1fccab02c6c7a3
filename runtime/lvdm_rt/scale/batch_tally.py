"""How far a batch is, over all its units; knows what a unit takes, nothing of how it is made."""

from collections.abc import Sequence

from lvdm_engines.manifest import Manifest
from lvdm_rt.long.plan import needed_condition, plan
from lvdm_rt.long.sampling import network_calls
from lvdm_rt.progress import Progress, ProgressCallback
from lvdm_rt.scale.batch_units import Unit


class Tally:
    """Adds up what units tell; see `Progress`. One call at a time, from whatever thread."""

    def __init__(
        self, units: Sequence[Unit], manifest: Manifest, report: ProgressCallback | None
    ) -> None:
        self._costs = {unit.key: _cost(unit, manifest) for unit in units}
        self._report = report
        steps, frames = (sum(column) for column in zip(*self._costs.values(), strict=True))
        self._done = Progress(0, steps, 0, frames)

    def within(self, unit: Unit) -> ProgressCallback | None:
        """Return who is told how far one unit is."""
        report = self._report
        if report is None:
            return None
        steps, frames = self._costs[unit.key]

        def tell(now: Progress) -> None:
            done = self._done
            report(
                Progress(
                    done.steps + now.steps,
                    done.total_steps - steps + now.total_steps,
                    done.frames + now.frames,
                    done.total_frames - frames + now.total_frames,
                )
            )

        return tell

    def finish(self, unit: Unit) -> None:
        """Count a unit that is made, or given up."""
        steps, frames = self._costs[unit.key]
        done = self._done
        self._done = done._replace(steps=done.steps + steps, frames=done.frames + frames)
        if self._report is not None:
            self._report(self._done)


def _cost(unit: Unit, manifest: Manifest) -> tuple[int, int]:
    """Return sampler steps and frames; of a continued video as if it were given all it can use."""
    call, model, settings = unit.call, manifest.model, unit.call.settings
    given = 0
    if call.condition is not None:
        given = needed_condition(model, settings.mode, settings.overlap)
    planned = plan(
        settings.frames,
        model,
        settings.mode,
        settings.overlap,
        given,
        refines=settings.refine > 0,
    )
    videos = len(unit.jobs)
    return videos * network_calls(settings, model, planned), videos * settings.frames
