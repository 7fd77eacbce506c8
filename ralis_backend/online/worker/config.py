"""How the worker treats every project."""

from __future__ import annotations

from dataclasses import dataclass, field

from ralis_backend.core.learning.config import FinetuneConfig
from ralis_backend.core.learning.course import ContinuingConfig
from ralis_backend.core.learning.registry import PAINT
from ralis_backend.online.choosing import RankingConfig
from ralis_backend.online.pictures import PictureSettings
from ralis_backend.simulation.mining import MiningRules
from ralis_backend.simulation.verdict import ReplayRules


@dataclass(frozen=True)
class WorkerConfig:
    """How the worker treats every project.

    mode: `crops` or `in-place`.
    background_label: what unpainted pixels are in projects that choose nothing themselves.
    suggestions_per_image: regions on a whole image (in-place mode).
    improve_s: the version in use is trained on for so long after a project's newest label, while
        nothing else is due; 0: not at all.
    continuing: how it is trained on.
    learner: what segmenters learn from, see `besides_paint`.
    promotion_tolerance: a version may be this much worse in validation mIoU and still be used.
    trust_rounds: whoever ranks is tested again after so many rounds of new labels, a trained policy
        whether it is good enough, a formula whether it loses to chance; 0: nobody is.
    replay: the rules of that test.
    mining: the same of a trained miner's.
    random_share: of the regions handed out (crops mode), drawn uniformly to measure on.
    sync_s: everything is read from the tool at least this often.
    poll_s: pause between two looks at what is due.
    lease_s: another worker takes over a project when it has seen no sign of life for so long.
    stall_s: a step that makes no progress for so long is ended, with its worker.
    kept_versions: the newest versions whose weights are kept besides those that are needed.
    kept_events_days: webhooks of projects that are not known here are kept for so long.
    pictures: what is said of all projects' pictures.
    """

    mode: str = "crops"
    ranking: RankingConfig = field(default_factory=RankingConfig)
    finetune: FinetuneConfig = field(default_factory=FinetuneConfig)
    improve_s: float = 1800.0
    continuing: ContinuingConfig = field(default_factory=ContinuingConfig)
    background_label: str | None = None
    suggestions_per_image: int = 3
    learner: str = PAINT
    promotion_tolerance: float = 0.01
    trust_rounds: int = 4
    replay: ReplayRules = field(default_factory=ReplayRules)
    mining: MiningRules = field(default_factory=MiningRules)
    random_share: float = 0.1
    sync_s: float = 300.0
    poll_s: float = 1.0
    lease_s: float = 60.0
    stall_s: float = 1800.0
    kept_versions: int = 10
    kept_events_days: float = 7.0
    pictures: PictureSettings = field(default_factory=PictureSettings)

    @property
    def trust_period(self) -> int:
        """Labelled regions from one test of a policy to the next."""
        return self.trust_rounds * self.ranking.regions_per_round
