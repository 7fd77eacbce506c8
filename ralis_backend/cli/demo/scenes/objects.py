"""What stands and moves in the street: trees, cars, people, bicycles, poles and signs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np

from ralis_backend.cli.demo.scenes.camera import Camera
from ralis_backend.cli.demo.scenes.canvas import Canvas, Noise
from ralis_backend.cli.demo.scenes.street import Light, Street

PAINTS = np.array(
    [[206, 208, 210], [34, 36, 40], [120, 124, 130], [150, 24, 30], [28, 58, 116], [236, 236, 232],
     [74, 88, 78], [176, 150, 96], [54, 60, 70], [206, 120, 30]], np.float32,
)  # fmt: skip
CLOTHES = np.array(
    [[42, 46, 60], [30, 32, 36], [140, 36, 44], [56, 92, 146], [196, 190, 176], [86, 104, 66],
     [214, 160, 52], [120, 84, 120], [88, 70, 54], [230, 230, 228]], np.float32,
)  # fmt: skip
SKINS = np.array([[232, 190, 160], [205, 152, 116], [140, 94, 66], [92, 62, 46]], np.float32)


@dataclass(frozen=True)
class Scenery:
    """What every object is painted with: canvas, camera, light, noise and the class indices."""

    canvas: Canvas
    camera: Camera
    light: Light
    noise: Noise
    classes: dict[str, int]

    def color(self, color: np.ndarray, depth_m: float, shade: float = 1.0) -> np.ndarray:
        """(3,) as seen at a depth."""
        seen: np.ndarray = np.clip(self.light.faded(color * shade, np.array(depth_m)), 0, 255)
        return seen

    def pixel(self, x_m: float, y_m: float, z_m: float) -> np.ndarray:
        """(column, row) of a world point."""
        found: np.ndarray = self.camera.project(np.array([[x_m, y_m, z_m]]))[0]
        return found

    def ground_shadow(self, x_m: float, z_m: float, half_x: float, half_z: float) -> None:
        """A soft dark patch on the ground under, and in sunlight beside, an object."""
        angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        if z_m - half_z < 1.0:
            return
        ring = np.stack(
            [x_m + half_x * np.cos(angle), np.full(20, 0.02), z_m + half_z * np.sin(angle)], 1
        )
        softness = 0.06 * self.camera.scale(z_m)
        strength = 0.3 + 0.5 * self.light.shadow
        self.canvas.darken(self.camera.project(ring), strength, softness)


Drawing = tuple[float, Callable[[Scenery], None]]


def populate(street: Street, rng: np.random.Generator) -> list[Drawing]:
    """The objects of a street with their depths, farthest first."""
    drawings: list[Drawing] = []
    for side in street.sides:
        drawings += _row_of_trees(street, side.sign, rng)
        drawings += _parked_cars(street, side.sign, rng)
        drawings += _street_furniture(street, side.sign, rng)
        drawings += _walkers(street, side.sign, rng)
    drawings += _traffic(street, rng)
    return sorted(drawings, key=lambda drawing: -drawing[0])


def _row_of_trees(street: Street, sign: int, rng: np.random.Generator) -> list[Drawing]:
    side = street.sides[0 if sign < 0 else 1]
    in_garden = side.wall_m - side.pavement_m > 2 and rng.random() < 0.7
    if not in_garden and rng.random() < 0.45:
        return []
    x_m = side.kerb_m + 0.7 if not in_garden else side.pavement_m + rng.uniform(1.2, 2.2)
    depth = rng.uniform(7, 16)
    drawings: list[Drawing] = []
    while depth < 0.8 * street.end_m:
        place = (sign * x_m + street.shift_m + rng.normal(0, 0.2), depth)
        drawings.append((depth, _tree(place, rng)))
        depth += rng.uniform(7, 20)
    if in_garden:
        for near in rng.uniform(5, 40, rng.integers(0, 5)):
            place = (sign * (side.pavement_m + 0.9) + street.shift_m, float(near))
            drawings.append((float(near), _bush(place, rng)))
    return drawings


def _parked_cars(street: Street, sign: int, rng: np.random.Generator) -> list[Drawing]:
    if rng.random() < 0.3:
        return []
    x_m = sign * (street.sides[0].kerb_m - 1.05) + street.shift_m
    depth, drawings = rng.uniform(4, 16), []
    while depth < 0.7 * street.end_m:
        if rng.random() < 0.62:
            drawings.append((depth, _car((x_m + rng.normal(0, 0.07), depth), sign > 0, rng)))
        depth += rng.uniform(5.6, 7.5)
    return drawings


def _traffic(street: Street, rng: np.random.Generator) -> list[Drawing]:
    drawings: list[Drawing] = []
    lane = street.sides[0].kerb_m * 0.42
    for sign in (-1, 1):
        if rng.random() < 0.45:
            depth = float(rng.uniform(9, 60))
            drawings.append((depth, _car((sign * lane + street.shift_m, depth), sign > 0, rng)))
    if rng.random() < 0.3:
        depth = float(rng.uniform(6, 28))
        x_m = rng.choice([-1, 1]) * rng.uniform(0.3, 0.75) * street.sides[0].kerb_m
        drawings.append((depth, _cyclist((x_m + street.shift_m, depth), rng)))
    if street.crossing_m and rng.random() < 0.6:
        for _ in range(rng.integers(1, 3)):
            depth = street.crossing_m + float(rng.uniform(-1.2, 1.2))
            x_m = rng.uniform(-0.9, 0.9) * street.sides[0].kerb_m + street.shift_m
            drawings.append((depth, _pedestrian((x_m, depth), rng)))
    return drawings


def _street_furniture(street: Street, sign: int, rng: np.random.Generator) -> list[Drawing]:
    x_m = sign * (street.sides[0].kerb_m + 0.4) + street.shift_m
    drawings: list[Drawing] = []
    depth = rng.uniform(6, 26)
    while depth < street.end_m:
        drawings.append((depth, _lamp_post((x_m, depth), sign, rng)))
        depth += rng.uniform(17, 26)
    for near in rng.uniform(5, 34, rng.poisson(0.9)):
        drawings.append((float(near), _sign((x_m + sign * 0.25, float(near)), rng)))
    if street.crossing_m and rng.random() < 0.5:
        near = street.crossing_m + 2
        drawings.append((near, _traffic_light((x_m, near), rng)))
    if rng.random() < 0.2:
        near = float(rng.uniform(6, 24))
        drawings.append((near, _parked_bicycle((x_m + sign * 0.5, near), rng)))
    return drawings


def _walkers(street: Street, sign: int, rng: np.random.Generator) -> list[Drawing]:
    side = street.sides[0 if sign < 0 else 1]
    drawings: list[Drawing] = []
    for _ in range(rng.poisson(rng.choice([0.6, 2.2]))):
        depth = float(rng.uniform(5, 42))
        for _ in range(1 + (rng.random() < 0.3)):
            x_m = sign * rng.uniform(side.kerb_m + 0.4, side.pavement_m - 0.2) + street.shift_m
            drawings.append((depth, _pedestrian((x_m, depth), rng)))
            depth += 0.3
    return drawings


Place = tuple[float, float]
"""x and depth in metres."""


def _tree(place: Place, rng: np.random.Generator) -> Callable[[Scenery], None]:
    trunk, radius = rng.uniform(1.8, 2.8), rng.uniform(1.3, 2.7)
    hue = rng.uniform([58, 88, 30], [112, 132, 58])
    offset = rng.uniform(0, 200, 2)

    def draw(scenery: Scenery) -> None:
        x_m, depth = place
        scale = scenery.camera.scale(depth)
        sideways = -0.8 * scenery.light.sun * radius
        scenery.ground_shadow(x_m + sideways, depth, radius * 1.1, radius * 0.9)
        bark = scenery.color(np.array([82.0, 66, 52]), depth)
        foot, fork = scenery.pixel(x_m, 0, depth), scenery.pixel(x_m, trunk + 0.4 * radius, depth)
        scenery.canvas.line(foot, fork, 0.24 * scale, bark, scenery.classes["tree"])
        center = scenery.pixel(x_m, trunk + 0.9 * radius, depth)
        radii = (radius * scale, 1.12 * radius * scale)
        _foliage(scenery, center, radii, hue, depth, offset)

    return draw


def _bush(place: Place, rng: np.random.Generator) -> Callable[[Scenery], None]:
    half, hue = rng.uniform(0.5, 0.9), rng.uniform([52, 84, 34], [92, 118, 50])
    offset = rng.uniform(0, 200, 2)

    def draw(scenery: Scenery) -> None:
        scale = scenery.camera.scale(place[1])
        center = scenery.pixel(place[0], 0.45, place[1])
        radii = (half * 1.4 * scale, half * 0.8 * scale)
        _foliage(scenery, center, radii, hue, place[1], offset)

    return draw


def _foliage(
    scenery: Scenery, center: np.ndarray, radii: tuple[float, float], hue: np.ndarray,
    depth: float, offset: np.ndarray,
) -> None:  # fmt: skip
    """A ragged, leafy blob, lit from above and from the sun's side, with holes near its rim."""
    canvas = scenery.canvas
    left, right = int(center[0] - 1.35 * radii[0]), int(center[0] + 1.35 * radii[0]) + 2
    top, bottom = int(center[1] - 1.35 * radii[1]), int(center[1] + 1.35 * radii[1]) + 2
    left, top = max(left, 0), max(top, 0)
    right, bottom = min(right, canvas.size[1]), min(bottom, canvas.size[0])
    if right <= left or bottom <= top or radii[1] < 1.5:
        return
    columns = ((np.arange(left, right) - center[0]) / radii[0])[None]
    rows = ((np.arange(top, bottom) - center[1]) / radii[1])[:, None]
    coarse = scenery.noise.smooth(rows * 22 + offset[0], columns * 22 + offset[1])
    leaves = scenery.noise.grain(
        rows * radii[1] * 0.45 + offset[1], columns * radii[0] * 0.45 + offset[0]
    )
    field = 1 - np.hypot(rows, columns) + 0.9 * (coarse - 0.5) + 0.3 * (leaves - 0.5)
    is_leaf = field > 0
    is_leaf &= ~((leaves < 0.13) & (field < 0.35))
    value = 0.52 + 0.5 * (coarse - 0.3) + 0.42 * (leaves - 0.5)
    value = value - 0.22 * rows + 0.2 * scenery.light.sun * columns
    warm = np.clip(leaves - 0.5, 0, 1)[..., None] * np.array([30.0, 24, 0])
    color = np.clip(value, 0.12, 1.35)[..., None] * hue * 1.15 + warm
    color = scenery.light.faded(color, np.full(field.shape, depth, np.float32))
    canvas.picture[top:bottom, left:right][is_leaf] = np.clip(color[is_leaf], 0, 255)
    canvas.mask[top:bottom, left:right][is_leaf] = scenery.classes["tree"]


def _car(
    place: Place, is_seen_from_behind: bool, rng: np.random.Generator
) -> Callable[[Scenery], None]:
    """A body of `profile` (z, y) stretched over the car's width, painted face by face."""
    paint = PAINTS[rng.integers(len(PAINTS))] + rng.normal(0, 6, 3)
    length, width, roof = rng.uniform(3.8, 4.7), rng.uniform(1.65, 1.85), rng.uniform(1.38, 1.62)
    if rng.random() < 0.12:
        length, width, roof = 5.2, 2.0, 2.3  # a van
    hatch = rng.uniform(0.1, 0.5) if roof < 2 else 0.06
    profile = np.array(
        [[0, 0.28], [0.0, 0.62], [0.06, 0.92], [hatch + 0.28, roof], [0.58 * length, roof],
         [0.74 * length, 0.96], [0.98 * length, 0.8], [length, 0.5], [length, 0.28]]
    )  # fmt: skip
    if not is_seen_from_behind:
        profile = np.array([[length, 0.0]]) + profile[::-1] * [-1, 1]

    def draw(scenery: Scenery) -> None:
        _paint_car(scenery, place, profile, width, paint, is_seen_from_behind)

    return draw


def _paint_car(
    scenery: Scenery, place: Place, profile: np.ndarray, width: float, paint: np.ndarray,
    is_seen_from_behind: bool,
) -> None:  # fmt: skip
    x_m, depth = place
    label, length = scenery.classes["car"], float(profile[:, 0].max())
    scenery.ground_shadow(
        x_m - 0.35 * scenery.light.sun, depth + length / 2, width * 0.62, length * 0.55
    )
    left, right = x_m - width / 2, x_m + width / 2
    glass = np.array([36.0, 44, 52])

    def at(x: float, points: np.ndarray) -> np.ndarray:
        return scenery.camera.project(
            np.stack([np.full(len(points), x), points[:, 1], points[:, 0] + depth], 1)
        )

    def paint_wheels(x: float) -> None:
        for axle in (0.19 * length, 0.8 * length):
            for radius, rim in ((0.32, 26.0), (0.19, 132.0)):
                angle = np.linspace(0, 2 * np.pi, 18, endpoint=False)
                ring = np.stack([axle + radius * np.cos(angle), 0.32 + radius * np.sin(angle)], 1)
                color = scenery.color(np.full(3, rim), depth)
                scenery.canvas.polygon(at(x, ring), color, label)

    near = left if left > 0 else right if right < 0 else None  # the flank that is seen
    far_to_near = sorted(range(len(profile) - 1), key=lambda i: -profile[i : i + 2, 0].mean())
    under = np.array([[0.05, 0.14], [0.05, 0.4], [length - 0.05, 0.4], [length - 0.05, 0.14]])
    rear = np.concatenate([at(left, under[:2]), at(right, under[:2])[::-1]])
    scenery.canvas.polygon(rear, scenery.color(np.full(3, 20.0), depth), label)
    for i in far_to_near:
        edge = profile[i : i + 2]
        rise, run = edge[1] - edge[0]
        quad = np.concatenate([at(left, edge), at(right, edge)[::-1]])
        steepness = abs(run) / max(np.hypot(rise, run), 1e-6)
        shade = 1.18 - 0.36 * steepness
        scenery.canvas.polygon(quad, scenery.color(paint, depth, shade), label)
        is_window = edge.min(0)[1] > 0.85 and edge.max(0)[1] > 1.3 and steepness > 0.2
        if is_window:
            inset = edge[0] + (edge[1] - edge[0]) * np.array([[0.12], [0.9]])
            pane = np.concatenate([at(left + 0.13, inset), at(right - 0.13, inset)[::-1]])
            scenery.canvas.polygon(pane, scenery.color(glass, depth, 1.5), label)
    if near is not None:
        scenery.canvas.polygon(at(near, profile), scenery.color(paint, depth, 0.86), label)
        cabin = _cabin(profile)
        scenery.canvas.polygon(at(near, cabin), scenery.color(glass, depth, 1.15), label)
        paint_wheels(near)
    _paint_lights(scenery, at, left, right, depth, is_seen_from_behind)


def _cabin(profile: np.ndarray) -> np.ndarray:
    """The side windows: the part of the profile above the waist, drawn in a little."""
    above = profile[profile[:, 1] > 0.9]
    middle = above.mean(0)
    return np.asarray(middle + (above - middle) * [0.86, 0.74] + [0, 0.06])


def _paint_lights(
    scenery: Scenery, at: Callable[[float, np.ndarray], np.ndarray], left: float, right: float,
    depth: float, is_seen_from_behind: bool,
) -> None:  # fmt: skip
    label = scenery.classes["car"]
    lamp = np.array([196.0, 26, 24]) if is_seen_from_behind else np.array([236.0, 236, 220])
    face = np.array([[-0.01, 0.62], [-0.01, 0.82]])
    for start, end in ((left + 0.06, left + 0.34), (right - 0.34, right - 0.06)):
        quad = np.concatenate([at(start, face), at(end, face)[::-1]])
        scenery.canvas.polygon(quad, scenery.color(lamp, depth), label)
    plate = np.array([[-0.02, 0.46], [-0.02, 0.57]])
    middle = (left + right) / 2
    quad = np.concatenate([at(middle - 0.26, plate), at(middle + 0.26, plate)[::-1]])
    scenery.canvas.polygon(quad, scenery.color(np.array([226.0, 216, 150]), depth), label)


def _pedestrian(place: Place, rng: np.random.Generator) -> Callable[[Scenery], None]:
    tall = rng.uniform(1.5, 1.9) if rng.random() < 0.9 else rng.uniform(1.0, 1.3)
    coat, trousers = CLOTHES[rng.integers(len(CLOTHES), size=2)]
    skin, stride = SKINS[rng.integers(len(SKINS))], rng.uniform(-0.25, 0.25)
    hair, has_bag = np.full(3, rng.uniform(25, 110)), rng.random() < 0.4

    def draw(scenery: Scenery) -> None:
        scenery.ground_shadow(place[0] - 0.3 * scenery.light.sun, place[1], 0.42, 0.25)
        _paint_person(
            scenery, place, tall, stride,
            {"coat": coat, "legs": trousers, "skin": skin, "hair": hair},
            scenery.classes["pedestrian"], 0.0,
        )  # fmt: skip
        if has_bag:
            x_m, depth = place
            scale = scenery.camera.scale(depth)
            scenery.canvas.ellipse(
                scenery.pixel(x_m + 0.3, 0.42 * tall, depth), (0.11 * scale, 0.15 * scale),
                scenery.color(trousers * 0.7, depth), scenery.classes["pedestrian"],
            )  # fmt: skip

    return draw


def _paint_person(
    scenery: Scenery, place: Place, tall: float, stride: float, colors: dict[str, np.ndarray],
    label: int, lift_m: float,
) -> None:  # fmt: skip
    x_m, depth = place
    scale, canvas = scenery.camera.scale(depth), scenery.canvas

    def at(x: float, y: float) -> np.ndarray:
        return scenery.pixel(x_m + x * tall, lift_m + y * tall, depth)

    def color(name: str, shade: float = 1.0) -> np.ndarray:
        return scenery.color(colors[name], depth, shade)

    thick = tall * scale
    canvas.line(at(0.04, 0.5), at(0.05 + stride * 0.5, 0.02), 0.095 * thick, color("legs"), label)
    canvas.line(
        at(-0.04, 0.5), at(-0.05 - stride * 0.5, 0.02), 0.095 * thick, color("legs", 0.8), label
    )
    for sign in (-1, 1):
        hand = at(sign * 0.15 + stride * 0.15, 0.45)
        canvas.line(at(sign * 0.11, 0.79), hand, 0.065 * thick, color("coat", 0.85), label)
    torso = np.stack(
        [
            at(-0.09, 0.45),
            at(-0.13, 0.8),
            at(-0.06, 0.84),
            at(0.06, 0.84),
            at(0.13, 0.8),
            at(0.09, 0.45),
        ]
    )
    canvas.polygon(torso, color("coat"), label)
    lit = np.stack([at(0.01, 0.45), at(0.01, 0.84), at(0.06, 0.84), at(0.13, 0.8), at(0.09, 0.45)])
    canvas.polygon(lit, color("coat", 1.12 if scenery.light.sun > 0 else 0.88), label)
    canvas.ellipse(at(0, 0.925), (0.062 * thick, 0.078 * thick), color("skin"), label)
    canvas.ellipse(at(0, 0.955), (0.063 * thick, 0.05 * thick), color("hair"), label)


def _cyclist(place: Place, rng: np.random.Generator) -> Callable[[Scenery], None]:
    coat, trousers = CLOTHES[rng.integers(len(CLOTHES), size=2)]
    frame, tall = PAINTS[rng.integers(len(PAINTS))], rng.uniform(1.6, 1.85)
    sideways = bool(rng.random() < 0.35)
    colors = {
        "coat": coat, "legs": trousers, "skin": SKINS[rng.integers(len(SKINS))],
        "hair": PAINTS[rng.integers(len(PAINTS))],
    }  # fmt: skip

    def draw(scenery: Scenery) -> None:
        label = scenery.classes["bicycle"]
        scenery.ground_shadow(place[0], place[1], 0.9 if sideways else 0.4, 0.35)
        _paint_bicycle(scenery, place, frame, sideways, label)
        _paint_person(scenery, place, tall * 0.88, 0.12, colors, label, 0.42)

    return draw


def _parked_bicycle(place: Place, rng: np.random.Generator) -> Callable[[Scenery], None]:
    frame = PAINTS[rng.integers(len(PAINTS))]

    def draw(scenery: Scenery) -> None:
        scenery.ground_shadow(place[0], place[1], 0.9, 0.2)
        _paint_bicycle(scenery, place, frame, True, scenery.classes["bicycle"])

    return draw


def _paint_bicycle(
    scenery: Scenery, place: Place, frame: np.ndarray, sideways: bool, label: int
) -> None:
    x_m, depth = place
    scale, canvas = scenery.camera.scale(depth), scenery.canvas
    black, metal = scenery.color(np.full(3, 26.0), depth), scenery.color(frame, depth)

    def at(x: float, y: float) -> np.ndarray:
        return scenery.pixel(x_m + x, y, depth)

    if not sideways:
        canvas.ellipse(at(0, 0.34), (max(0.05 * scale, 0.8), 0.34 * scale), black, label)
        canvas.line(at(0, 0.5), at(0, 1.0), 0.06 * scale, metal, label)
        canvas.line(at(-0.28, 1.02), at(0.28, 1.02), 0.05 * scale, black, label)
        return
    for hub in (-0.52, 0.52):
        angle = np.linspace(0, 2 * np.pi, 20, endpoint=False)
        ring = np.stack([at(hub + 0.33 * np.cos(a), 0.34 + 0.33 * np.sin(a)) for a in angle])
        for first, last in zip(ring, np.roll(ring, -1, 0), strict=True):
            canvas.line(first, last, 0.05 * scale, black, label)
    joints = {
        "rear": (-0.52, 0.34),
        "crank": (-0.08, 0.3),
        "seat": (-0.2, 0.85),
        "bar": (0.36, 0.92),
        "front": (0.52, 0.34),
    }
    for first, last in (
        ("rear", "crank"),
        ("crank", "seat"),
        ("seat", "rear"),
        ("crank", "bar"),
        ("seat", "bar"),
        ("bar", "front"),
    ):
        canvas.line(at(*joints[first]), at(*joints[last]), 0.045 * scale, metal, label)


def _lamp_post(place: Place, sign: int, rng: np.random.Generator) -> Callable[[Scenery], None]:
    height, arm = rng.uniform(5.5, 8.0), rng.uniform(0.6, 1.4)
    grey = np.full(3, rng.uniform(70, 130))

    def draw(scenery: Scenery) -> None:
        x_m, depth = place
        scale, label = scenery.camera.scale(depth), scenery.classes["pole"]
        metal = scenery.color(grey, depth)
        foot, top = scenery.pixel(x_m, 0, depth), scenery.pixel(x_m, height, depth)
        head = scenery.pixel(x_m - sign * arm, height + 0.15, depth)
        scenery.canvas.line(foot, top, 0.14 * scale, metal, label)
        scenery.canvas.line(foot, scenery.pixel(x_m, 1.1, depth), 0.2 * scale, metal * 0.9, label)
        scenery.canvas.line(top, head, 0.09 * scale, metal, label)
        scenery.canvas.ellipse(head, (0.34 * scale, 0.1 * scale), metal * 0.8, label)

    return draw


def _sign(place: Place, rng: np.random.Generator) -> Callable[[Scenery], None]:
    kind = rng.choice(["limit", "warning", "parking", "information"])
    height, half = rng.uniform(2.1, 2.7), rng.uniform(0.3, 0.42)

    def draw(scenery: Scenery) -> None:
        x_m, depth = place
        scale, label, canvas = scenery.camera.scale(depth), scenery.classes["sign"], scenery.canvas
        grey = scenery.color(np.full(3, 128.0), depth)
        foot, top = scenery.pixel(x_m, 0, depth), scenery.pixel(x_m, height, depth)
        canvas.line(foot, top, 0.07 * scale, grey, scenery.classes["pole"])
        radius, center = half * scale, scenery.pixel(x_m, height, depth)

        def beside(across: float, down: float) -> np.ndarray:
            return center + radius * np.array([across, down])

        red, white = (
            scenery.color(np.array([190.0, 24, 30]), depth),
            scenery.color(np.full(3, 236.0), depth),
        )
        blue = scenery.color(np.array([24.0, 74, 160]), depth)
        if kind == "limit":
            canvas.ellipse(center, (radius, radius), red, label)
            canvas.ellipse(center, (0.74 * radius, 0.74 * radius), white, label)
            canvas.line(
                beside(-0.3, 0),
                beside(0.3, 0),
                0.4 * radius,
                np.full(3, 40.0),
                label,
            )
        elif kind == "warning":
            triangle = np.array([[0, -1.15], [1.05, 0.7], [-1.05, 0.7]]) * radius + center
            canvas.polygon(triangle, red, label)
            canvas.polygon((triangle - center) * 0.62 + center + [0, 0.06 * radius], white, label)
        else:
            tall = 1.0 if kind == "parking" else 1.45
            square = (
                np.array([[-1, -tall], [1, -tall], [1, tall], [-1, tall]]) * radius * 0.9 + center
            )
            canvas.polygon(square, white, label)
            canvas.polygon((square - center) * 0.88 + center, blue, label)
            canvas.line(
                beside(-0.3, 0.5),
                beside(-0.3, -0.5),
                0.2 * radius,
                white,
                label,
            )
            canvas.ellipse(beside(0, -0.22), (0.3 * radius, 0.28 * radius), white, label)

    return draw


def _traffic_light(place: Place, rng: np.random.Generator) -> Callable[[Scenery], None]:
    lit = int(rng.integers(3))

    def draw(scenery: Scenery) -> None:
        x_m, depth = place
        scale, canvas = scenery.camera.scale(depth), scenery.canvas
        foot, top = scenery.pixel(x_m, 0, depth), scenery.pixel(x_m, 2.4, depth)
        black = scenery.color(np.full(3, 30.0), depth)
        canvas.line(
            foot, top, 0.12 * scale, scenery.color(np.full(3, 90.0), depth), scenery.classes["pole"]
        )
        box = np.array([[-0.2, -0.55], [0.2, -0.55], [0.2, 0.55], [-0.2, 0.55]]) * scale
        canvas.polygon(box + top, black, scenery.classes["sign"])
        lamps = np.array([[214.0, 40, 34], [232.0, 170, 40], [50.0, 200, 110]])
        for i in range(3):
            bright = scenery.color(lamps[i], depth, 1.0 if i == lit else 0.25)
            canvas.ellipse(
                top + np.array([0, (i - 1) * 0.34 * scale]),
                (0.12 * scale, 0.12 * scale),
                bright,
                scenery.classes["sign"],
            )

    return draw


def soften(picture: np.ndarray, light: Light, rng: np.random.Generator) -> np.ndarray:
    """A camera's view of the painted picture: optics, exposure, vignette and sensor noise."""
    height, width = picture.shape[:2]
    blurred = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.45, 0.75))
    seen: np.ndarray = blurred.astype(np.float32)
    rows = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    columns = np.linspace(-1, 1, width, dtype=np.float32)[None]
    vignette = 1 - 0.14 * (rows**2 + columns**2)
    seen *= vignette[..., None] * (light.tint * rng.uniform(0.94, 1.2)).astype(np.float32)
    seen = np.float32(255) * np.clip(seen / 255, 0, 1) ** np.float32(rng.uniform(0.9, 1.1))
    seen += rng.standard_normal(seen.shape, dtype=np.float32) * np.float32(rng.uniform(2, 5))
    softened: np.ndarray = np.clip(seen, 0, 255).astype(np.uint8)
    return softened
