"""A model that is ready to run: what its manifest says, and an open session for each graph."""

from collections.abc import Mapping
from dataclasses import dataclass

from lvdm_engines.errors import PlanError
from lvdm_engines.manifest import Manifest, ModelFacts
from lvdm_engines.session import Session


@dataclass(frozen=True)
class Model:
    """Manifest and sessions by graph name; the sessions belong to whoever opened them."""

    manifest: Manifest
    sessions: Mapping[str, Session]

    @property
    def facts(self) -> ModelFacts:
        """Sizes, strides and schedule."""
        return self.manifest.model

    def session(self, graph: str) -> Session:
        """Return the session of a graph. Raises PlanError if there is none."""
        if graph not in self.sessions:
            raise PlanError(
                f"{self.manifest.name} has no {graph} graph; export the bundle again with it"
            )
        return self.sessions[graph]

    @property
    def backend(self) -> str:
        """The backend of all graphs, or each graph with its own where they differ."""
        names = {graph: session.backend for graph, session in self.sessions.items()}
        different = dict.fromkeys(names.values())
        if len(different) == 1:
            return next(iter(different))
        return ", ".join(f"{graph} on {name}" for graph, name in names.items())
