"""Compiling a bundle for this machine, told line by line."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from lvdm_engines.backends.plan_facts import PlanOptions
from lvdm_engines.backends.trt.build import build_plans, refit_plans
from lvdm_engines.backends.trt.compile import Step
from lvdm_engines.bundle import Bundle


def compile_bundle(
    bundle: Bundle,
    backend: str,
    options: PlanOptions,
    report: Callable[[str], None],
    *,
    force: bool = False,
) -> Iterator[str]:
    """Compile every graph for a backend, and yield a line for each file.

    Raises BackendError, ExportError or BundleError as `build_plans` does.
    """
    for built in build_plans(bundle, backend, options, progress=_Phases(report), force=force):
        kept = "kept" if built.reused else f"compiled in {built.plan.facts.seconds:.0f} s"
        yield f"{', '.join(built.graphs)}: {built.plan.path} {kept}"


def refit_bundle(
    bundle: Bundle, former: Bundle, backend: str, options: PlanOptions
) -> Iterator[str]:
    """Make plans out of a former bundle's by new weights alone, and yield a line for each file.

    Raises BackendError or ExportError as `refit_plans` does.
    """
    for built in refit_plans(bundle, former, backend, options):
        seconds = built.plan.facts.seconds
        yield f"{', '.join(built.graphs)}: {built.plan.path} refitted in {seconds:.0f} s"


@dataclass
class _Phases:
    """Reports each outer phase of a build once; the builder tells thousands of steps."""

    report: Callable[[str], None]
    seen: set[tuple[str, str]] = field(default_factory=set)

    def __call__(self, file: str, step: Step) -> None:
        if step.inside is None and (file, step.phase) not in self.seen:
            self.seen.add((file, step.phase))
            self.report(f"{file}: {step.phase}")
