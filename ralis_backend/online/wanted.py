"""What people ask for, more of one class -> a wish, or why it cannot be one.

Asked on the command line, or in a connection's extra params.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ralis_backend.core.acquisition import STRATEGIES
from ralis_backend.core.policy.registry import MINER, check_strategy, find_strategy, looks_for_class
from ralis_backend.core.regions import grid, is_labelled
from ralis_backend.core.text import shortened
from ralis_backend.online.choosing import RankingConfig
from ralis_backend.online.labels import RegionLabel, covered, labelled_pixels, labels_by_image
from ralis_backend.online.store import Store, now
from ralis_backend.online.store.tables import Project, Wish

MOST_WANTED = 1_000_000
LEAST_SHARE = 0.001
"""Below it no region of a round would be mined for weeks."""
MAX_CHARACTERS = 500
MAX_STRATEGY_CHARACTERS = 64
EXAMPLE = '{"mine_class": "Bicyclist", "mine_share": 0.5}'
_TASK = re.compile(r"task:([0-9]{1,18})")


@dataclass(frozen=True)
class Wanted:
    """What is asked for.

    class_name: that is looked for.
    count: regions; None: until it is ended.
    share: of each round, from `LEAST_SHARE` to 1.
    strategy: that looks; None: the default miner.
    examples: `task:ID`, of the pool or of the regions project.
    like: a class that the sought one looks like.
    """

    class_name: str
    count: int | None = None
    share: float = 1.0
    strategy: str | None = None
    examples: Sequence[str] = ()
    like: str | None = None


def said_wish(extra_params: Mapping[str, Any], config: RankingConfig) -> dict[str, Any] | None:
    """What a connection's extra params ask for, as JSON; None: nothing.

    A `strategy` that looks for one class is the miner; any other is the ordinary strategy.

    Raises:
        ValueError: if it is malformed.
    """
    name, share = extra_params.get("mine_class"), extra_params.get("mine_share")
    strategy = extra_params.get("strategy") or None
    miner = strategy if strategy and looks_for_class(strategy, config.policies_dir) else None
    if name is None or name == "":
        if share is not None or miner is not None:
            what = "'mine_share'" if share is not None else f"strategy {miner!r}"
            raise ValueError(f"{what} needs a class to look for, 'mine_class'; example: {EXAMPLE}")
        return None
    if not isinstance(name, str) or len(name) > MAX_CHARACTERS:
        raise ValueError(
            f"'mine_class' must be the name of a class, at most {MAX_CHARACTERS} characters; "
            f"example: {EXAMPLE}"
        )
    if isinstance(share, bool) or not isinstance(share, int | float | None):
        raise ValueError(
            f"'mine_share' is of the type {type(share).__name__}, expected a number from "
            f"{LEAST_SHARE} to 1; example: {EXAMPLE}"
        )
    return {"class": name, "share": 1.0 if share is None else _share(share), "strategy": miner}


def said_strategy(extra_params: Mapping[str, Any], config: RankingConfig) -> str | None:
    """The ordinary strategy that a connection's extra params ask for; None: the setting's.

    Raises:
        ValueError: if the params are malformed, or there is no such strategy.
    """
    name = extra_params.get("strategy") or None
    if name is None:
        return None
    if not isinstance(name, str) or len(name) > MAX_STRATEGY_CHARACTERS or "\0" in name:
        raise ValueError(
            f"'strategy' must be a name of at most {MAX_STRATEGY_CHARACTERS} characters, for "
            'example {"strategy": "entropy"}'
        )
    check_strategy(name, config.policies_dir)
    wish = said_wish(extra_params, config)
    return None if wish and wish["strategy"] else name


def fitting_strategy(
    extra_params: Mapping[str, Any], class_names: Sequence[str], config: RankingConfig
) -> str:
    """Name of the ordinary strategy of a project with these classes, its own or the setting's.

    Raises:
        ValueError: if the params are malformed, or the strategy does not fit the project.
    """
    name = said_strategy(extra_params, config) or config.strategy
    return find_strategy(name, config.policies_dir, class_names, config.region_size).name


def wanted_of(said: Mapping[str, Any]) -> Wanted:
    """What a connection asks for, of what `said_wish` gives."""
    return Wanted(said["class"], share=said["share"], strategy=said["strategy"])


def make_wish(store: Store, project: Project, wanted: Wanted, config: RankingConfig) -> Wish:
    """A wish that can be begun.

    Raises:
        ValueError: if the class, the strategy, an example, a number cannot be used, saying why.
    """
    name = _known_class(project, wanted.class_name)
    if wanted.count is not None and not 1 <= wanted.count <= MOST_WANTED:
        raise ValueError(
            f"{wanted.count} regions cannot be found; expected 1 to {MOST_WANTED:,} of them"
        )
    like = None if wanted.like is None else _known_class(project, wanted.like)
    if like == name:
        raise ValueError(f"{name!r} looks like itself; name another class that it looks like")
    _check_miner(project, wanted.strategy, name, config)
    labels = store.labels.of(project.id)
    return Wish(
        project_id=project.id,
        class_name=name,
        strategy=wanted.strategy,
        count=wanted.count,
        share=_share(wanted.share),
        examples=[_example(store, project, text) for text in wanted.examples],
        like=like,
        begun_at=now(),
        since_label_id=store.labels.newest_id(project.id),
        pixels_before=class_pixels(project, labels, name),
    )


def check_known(store: Store, project: Project, wish: Wish) -> None:
    """Refuse a wish that nothing is known for, naming what would do.

    Raises:
        ValueError: if nothing shows what the class looks like.
    """
    labels = store.labels.of(project.id)
    if wish.like is not None and not class_pixels(project, labels, wish.like):
        raise ValueError(
            f"no region of {wish.like!r} is labelled either, so that nothing is known of what "
            f"{wish.class_name!r} is said to look like; name another class, or an example"
        )
    if not wish.pixels_before and not wish.examples and wish.like is None:
        raise ValueError(_nothing_known(project, wish))


def _nothing_known(project: Project, wish: Wish) -> str:
    name = wish.class_name
    return (
        f"no region of {name!r} is labelled, so that nobody knows what it looks like; paint it in "
        "one region, or name a task whose picture shows it, --example task:ID, or a class that "
        f"looks like it, --like CLASS ({', '.join(_sought(project, but=name)) or 'there is none'})"
    )


def remarks(store: Store, project: Project, wish: Wish, config: RankingConfig) -> Iterator[str]:
    """What whoever asked should know; it goes on all the same.

    Raises:
        ValueError: if every region of the pool is labelled.
    """
    labels = store.labels.of(project.id)
    num_open, is_all = num_open_regions(store, project, labels, config.region_size)
    if is_all and not num_open:
        raise ValueError(
            f"every region of project {project.tool_id} is labelled: there is nothing to look "
            "through; add images"
        )
    if is_all and wish.count is not None and num_open < wish.count:
        yield (
            f"the pool has {num_open} regions that are not labelled, fewer than the {wish.count} "
            "asked for; all of them are looked through"
        )
    if wish.pixels_before and not wish.examples:
        index = project.class_names.index(wish.class_name)
        shown_in = {it.image_id for it in labels if sum(it.pixels[index : index + 1])}
        if len(shown_in) == 1:
            yield (
                f"{wish.class_name!r} is labelled in one image alone; what is found first will "
                "look like that one"
            )


def rests_because(project: Project, wish: Wish) -> str | None:
    """Why a wish cannot be followed now; None if it can."""
    if wish.class_name in _sought(project):
        return None
    why = (
        "is what unpainted pixels are"
        if wish.class_name == project.background_name
        else "is no label of the project any more"
    )
    return (
        f"{wish.class_name!r} {why}; the wish rests until it is a label again: `ralis mine "
        f"--project {project.tool_id} --class NAME` looks for another class, --stop ends it"
    )


def class_pixels(project: Project, labels: Sequence[RegionLabel], name: str) -> int:
    """Labelled pixels of a class."""
    if name not in project.class_names:
        return 0
    pixels = labelled_pixels(labels, len(project.classes)).sum(axis=0)
    return int(pixels[project.class_names.index(name)])


def num_open_regions(
    store: Store, project: Project, labels: Sequence[RegionLabel], region_size: tuple[int, int]
) -> tuple[int, bool]:
    """How many regions are not labelled, and whether that is all there is to count."""
    by_image = labels_by_image(labels)
    images = [image for image in store.images.of(project.id) if image.error is None]
    count = 0
    for image in images:
        if image.size is not None:
            regions = grid(image.size, region_size)
            done = covered(image.size, by_image[image.id]) if image.id in by_image else None
            count += len(regions)
            count -= 0 if done is None else sum(is_labelled(done, region) for region in regions)
    return count, bool(images) and all(image.size is not None for image in images)


def _sought(project: Project, but: str | None = None) -> list[str]:
    """Names of the classes that can be looked for."""
    active = (entry["name"] for entry in project.classes if entry["is_active"])
    return [name for name in active if name not in (project.background_name, but)]


def _known_class(project: Project, name: str) -> str:
    """A class of the project that can be looked for; one in other capitals alone is that one."""
    names = _sought(project)
    alike = [each for each in names if each.casefold() == name.strip().casefold()]
    if name in names:
        return name
    if len(alike) == 1:
        return alike[0]
    known = ", ".join(names) or "none"
    if name == project.background_name:
        raise ValueError(
            f"{name!r} is what unpainted pixels are, and nobody has to look for it; the classes "
            f"are: {known}"
        )
    raise ValueError(f"project {project.tool_id} has no class {name!r}; its classes are: {known}")


def _check_miner(project: Project, name: str | None, target: str, config: RankingConfig) -> None:
    """Refuse a strategy that does not look for one class, or does not fit the project."""
    if name is None:
        return
    if len(name) > MAX_STRATEGY_CHARACTERS:
        raise ValueError(
            f"the name of a strategy has at most {MAX_STRATEGY_CHARACTERS} characters, this one "
            f"{len(name)}"
        )
    if ":" in name:
        raise ValueError(f"strategy {name!r} names a class as well; give {name.split(':')[0]!r}")
    if not looks_for_class(name, config.policies_dir):
        miners = [each for each in STRATEGIES if STRATEGIES[each].needs.has_target_class]
        raise ValueError(
            f"strategy {name!r} looks for no class; expected one of {', '.join(miners)}, or a "
            f"policy that was trained for it (default: {MINER})"
        )
    find_strategy(f"{name}:{target}", config.policies_dir, project.class_names, config.region_size)


def _share(value: float) -> float:
    if not LEAST_SHARE <= value <= 1:  # not so of NaN either
        raise ValueError(
            f"{shortened(str(value), 40)} is no share of a round; expected a number from "
            f"{LEAST_SHARE} to 1, for example 0.5 for every second region"
        )
    return float(value)


def _example(store: Store, project: Project, text: str) -> dict[str, Any]:
    """Where an example lies: an image of the pool, or the one region of a region's task."""
    found = _TASK.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is no example; expected task:ID, for example task:17")
    task_id = int(found[1])
    image = store.images.of_tasks(project.id, [task_id]).get(task_id)
    if image is not None:
        return {"task": task_id, "image": image.id, "region": None}
    crop = store.queue.find(project.id, task_id)
    if crop is None or crop.state == "deleted":
        numbers = [str(it) for it in (project.tool_id, project.regions_tool_id) if it is not None]
        raise ValueError(
            f"task {task_id} is not known here; expected one of project {' or '.join(numbers)} "
            "that the worker has read"
        )
    return {
        "task": task_id,
        "image": crop.image_id,
        "region": [crop.row, crop.col, crop.height, crop.width],
    }
