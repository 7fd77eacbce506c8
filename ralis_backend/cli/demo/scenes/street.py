"""The street itself: sky, far skyline, ground and facades, each pixel's ray cast onto its plane."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ralis_backend.cli.demo.scenes.camera import Camera
from ralis_backend.cli.demo.scenes.canvas import Canvas, Noise

FAR_M = 160.0


@dataclass(frozen=True)
class Light:
    """The weather: where the sun stands (-1 left, 1 right, 0 overcast), its colour and the haze."""

    sun: int
    tint: np.ndarray  # (3,)
    shadow: float  # how much light a shadow takes away, 0 to 1
    zenith: np.ndarray  # (3,) sky colours
    haze: np.ndarray
    cloudiness: float
    visibility_m: float

    @staticmethod
    def random(rng: np.random.Generator) -> Light:
        """Sunny, evening or overcast."""
        weather = rng.choice(["sunny", "evening", "overcast"], p=[0.5, 0.15, 0.35])
        sun = int(rng.choice([-1, 1]))
        if weather == "overcast":
            grey = rng.uniform(185, 225)
            return Light(
                0, np.array([0.93, 0.96, 1.0]), 0.12, np.array([grey - 22, grey - 14, grey - 4]),
                np.array([grey, grey + 2, grey + 6]), rng.uniform(0.5, 0.9), rng.uniform(70, 160),
            )  # fmt: skip
        if weather == "evening":
            return Light(
                sun, np.array([1.08, 0.95, 0.82]), 0.42, np.array([106.0, 138, 186]),
                np.array([246.0, 205, 160]), rng.uniform(0.1, 0.5), rng.uniform(120, 250),
            )  # fmt: skip
        return Light(
            sun, np.array([1.06, 1.02, 0.95]), 0.48, np.array([78.0, 134, 205]),
            np.array([205.0, 222, 236]), rng.uniform(0.0, 0.6), rng.uniform(150, 350),
        )  # fmt: skip

    def faded(self, color: np.ndarray, depth: np.ndarray) -> np.ndarray:
        """`color` (..., 3) seen through the haze at `depth` (...) metres."""
        kept = np.exp(-depth / self.visibility_m)[..., None].astype(np.float32)
        faded: np.ndarray = color * kept + self.haze.astype(np.float32) * (1 - kept)
        return faded


@dataclass(frozen=True)
class Facades:
    """One side's houses, one row of each array per house; a `height_m` of 0 is a gap."""

    starts: np.ndarray  # (B + 1,) depths where each begins
    height_m: np.ndarray
    floor_m: np.ndarray
    bay_m: np.ndarray  # distance of windows
    window: np.ndarray  # (B, 2) share of the bay and of the floor
    color: np.ndarray  # (B, 3)
    trim: np.ndarray  # (B, 3)
    sign: np.ndarray  # (B, 3) the shop's band
    is_brick: np.ndarray
    is_shop: np.ndarray


@dataclass(frozen=True)
class Side:
    """Distances from the middle of the road on one side; `sign` -1 left, 1 right."""

    sign: int
    kerb_m: float
    pavement_m: float  # outer edge of the pavement
    wall_m: float  # where the facades stand
    facades: Facades
    fence_height_m: float  # 0: no fence
    fence_is_wooden: bool
    fence_span_m: tuple[float, float]


@dataclass(frozen=True)
class Street:
    """Everything that stands still: both sides, the road's shift to the camera, its markings."""

    sides: tuple[Side, Side]
    shift_m: float  # x of the middle of the road
    crossing_m: float  # depth of a zebra crossing, 0: none
    end_m: float
    has_double_lines: bool

    @staticmethod
    def random(rng: np.random.Generator) -> Street:
        """A residential or a shopping street, now and then along a park."""
        kerb = rng.uniform(3.0, 5.2)
        park = rng.choice([-1, 0, 1], p=[0.15, 0.7, 0.15])
        return Street(
            sides=(_side(-1, kerb, park == -1, rng), _side(1, kerb, park == 1, rng)),
            shift_m=rng.uniform(-0.2, 0.55) * kerb,
            crossing_m=rng.uniform(7, 22) if rng.random() < 0.25 else 0.0,
            end_m=rng.uniform(70, FAR_M),
            has_double_lines=bool(rng.random() < 0.5),
        )


def _side(sign: int, kerb_m: float, is_park: bool, rng: np.random.Generator) -> Side:
    pavement = kerb_m + rng.uniform(1.6, 3.4)
    has_garden = is_park or rng.random() < 0.4
    wall = pavement + (rng.uniform(2.5, 6.0) if has_garden else 0.0)
    has_fence = has_garden and rng.random() < 0.75
    start = rng.uniform(4, 12)
    return Side(
        sign=sign,
        kerb_m=kerb_m,
        pavement_m=pavement,
        wall_m=wall + (8.0 if is_park else 0.0),
        facades=_facades(is_park, rng),
        fence_height_m=rng.uniform(0.9, 1.5) if has_fence else 0.0,
        fence_is_wooden=bool(rng.random() < 0.45),
        fence_span_m=(start, start + rng.uniform(12, 45)),
    )


def _facades(is_park: bool, rng: np.random.Generator) -> Facades:
    lengths = rng.uniform(6, 18, size=26)
    starts = np.concatenate([[0.0], np.cumsum(lengths)]) - rng.uniform(0, 6)
    num = len(lengths)
    floor = rng.uniform(2.7, 3.5, num)
    storeys = rng.integers(2, 6, num) if rng.random() < 0.5 else rng.integers(2, 4, num)
    height = floor * storeys + rng.uniform(0.4, 1.6, num)
    height[rng.random(num) < (0.75 if is_park else 0.14)] = 0.0
    palette = np.array(
        [[150, 82, 62], [168, 104, 78], [196, 170, 132], [206, 198, 184], [134, 122, 112],
         [176, 148, 120], [120, 74, 60], [214, 206, 178], [142, 150, 156]], np.float32,
    )  # fmt: skip
    shops = np.array(
        [[176, 38, 40], [30, 84, 140], [24, 112, 84], [220, 166, 40], [60, 48, 84], [34, 36, 40]],
        np.float32,
    )
    return Facades(
        starts=starts.astype(np.float32),
        height_m=height.astype(np.float32),
        floor_m=floor.astype(np.float32),
        bay_m=rng.uniform(1.7, 3.2, num).astype(np.float32),
        window=rng.uniform([0.36, 0.46], [0.68, 0.66], (num, 2)).astype(np.float32),
        color=palette[rng.integers(len(palette), size=num)]
        + rng.normal(0, 9, (num, 3)).astype(np.float32),
        trim=rng.choice([232, 214, 96, 60], num).astype(np.float32)[:, None].repeat(3, 1),
        sign=shops[rng.integers(len(shops), size=num)],
        is_brick=rng.random(num) < 0.6,
        is_shop=rng.random(num) < (0.1 if is_park else rng.choice([0.15, 0.7])),
    )


def paint_sky(canvas: Canvas, camera: Camera, light: Light, noise: Noise, sky: int) -> None:
    """A gradient towards the horizon's haze, with clouds that lie flat in the distance."""
    up = np.clip(-camera.down, 0.0, None)  # (H, 1)
    blend = np.clip(up / 0.55, 0, 1) ** 0.6
    color = light.haze * (1 - blend[..., None]) + light.zenith * blend[..., None]
    clouds = noise.smooth(28 / (up + 0.12), camera.right / (up + 0.25) * 26)
    cover = np.clip((clouds - 0.75 + 0.6 * light.cloudiness) * 2.2, 0, 1) * np.clip(up * 9, 0, 1)
    white = np.minimum(light.haze * 1.12, 252)
    shaded = white * (1 - 0.22 * np.clip(clouds - 0.5, 0, 1)[..., None])
    painted = color * (1 - cover[..., None]) + shaded * cover[..., None]
    canvas.fill(np.ones(canvas.size, bool), np.broadcast_to(painted, (*canvas.size, 3)), sky)


def paint_skyline(
    canvas: Canvas, camera: Camera, street: Street, light: Light, noise: Noise,
    building: int, tree: int,
) -> None:  # fmt: skip
    """What closes the street: distant houses with trees before them."""
    depth = street.end_m
    x_m = camera.right * depth  # (1, W)
    y_m = camera.eye_m - camera.down * depth  # (H, 1)
    block = np.floor(x_m / 9)
    roof = 5 + 16 * noise.cell(np.zeros_like(block), block)
    houses = (y_m > -1) & (y_m < roof)
    wall = 95 + 80 * noise.cell(np.ones_like(block), block)[..., None] * np.array([1.0, 0.92, 0.84])
    lit = (np.mod(x_m, 2.6) < 1.3) & (np.mod(y_m, 3.1) < 1.6)
    color = np.where(lit[..., None], wall * 0.72, wall)
    canvas.fill(houses, light.faded(color, np.full(canvas.size, depth, np.float32)), building)
    crown = 3 + 9 * noise.smooth(np.full_like(x_m, 7.0), x_m * 0.9 + 31)
    trees = (y_m > -1) & (y_m < crown * (noise.smooth(np.full_like(x_m, 90.0), x_m * 0.2) > 0.4))
    leaf = (0.6 + 0.7 * noise.smooth(y_m * 9, x_m * 9))[..., None] * np.array([62.0, 86, 44])
    canvas.fill(trees, light.faded(leaf, np.full(canvas.size, depth, np.float32)), tree)


def paint_ground(
    canvas: Canvas, camera: Camera, street: Street, light: Light, noise: Noise,
    road: int, pavement: int, grass: int,
) -> None:  # fmt: skip
    """Asphalt with markings, kerbs, paved footways and verges, and the shadows of the houses."""
    x_m, depth = camera.ground()
    x_m = x_m - np.float32(street.shift_m)
    visible = np.broadcast_to(depth < street.end_m, canvas.size)
    detail = np.clip(1.4 - depth / 30, 0, 1)  # textures blur out in the distance
    asphalt = _asphalt(x_m, depth, street, light, noise, detail)
    slabs = _slabs(x_m, depth, noise, detail)
    turf = _turf(x_m, depth, noise, detail)
    kerb_m = street.sides[0].kerb_m
    color, labels = asphalt, np.full(canvas.size, road, np.uint8)
    for side in street.sides:
        out = x_m * side.sign
        is_side_street = _height_at(side.facades, depth) == 0
        is_gap = is_side_street & (side.fence_height_m == 0) & (depth > 14) & (depth < 60)
        is_paved = (out > kerb_m) & (out <= side.pavement_m) & ~is_gap
        is_kerb = (out > kerb_m) & (out < kerb_m + 0.16) & ~is_gap
        is_verge = (out > side.pavement_m) & ~is_gap
        color = np.where(is_paved[..., None], slabs, color)
        color = np.where(is_kerb[..., None], slabs * 0.6 + 80, color)
        color = np.where(is_verge[..., None], turf, color)
        labels[is_paved] = pavement
        labels[is_verge] = grass
    color = color * (1 - light.shadow * _house_shadow(x_m, depth, street, light))[..., None]
    seen = light.faded(color, np.broadcast_to(depth, canvas.size))
    for class_index in (road, pavement, grass):
        canvas.fill(visible & (labels == class_index), seen, class_index)


def _asphalt(
    x_m: np.ndarray, depth: np.ndarray, street: Street, light: Light, noise: Noise,
    detail: np.ndarray,
) -> np.ndarray:  # fmt: skip
    patches = noise.smooth(depth * 1.5, x_m * 4)
    grain = noise.grain(depth * 31, x_m * 37)
    tracks = np.exp(-((np.abs(np.abs(x_m) % 3.2 - 1.6) - 0.75) ** 2) / 0.08)
    value = 92 + 30 * (patches - 0.5) + 34 * (grain - 0.5) * detail - 9 * tracks
    color = value[..., None] * np.array([0.98, 0.99, 1.03], np.float32)
    dashes = (np.abs(x_m) < 0.07) & (np.mod(depth, 7.5) < 3.2)
    edges = np.abs(np.abs(x_m) - street.sides[0].kerb_m + 0.3) < 0.05
    if street.has_double_lines:
        edges |= np.abs(np.abs(x_m) - street.sides[0].kerb_m + 0.5) < 0.05
    worn = 0.55 + 0.45 * noise.smooth(depth * 9, x_m * 9)
    color += (dashes * worn * 96)[..., None]
    color += (edges * worn)[..., None] * np.array([98.0, 78, -10], np.float32)
    if street.crossing_m:
        stripes = (np.abs(depth - street.crossing_m) < 1.6) & (np.mod(x_m, 1.0) < 0.5)
        stripes &= np.abs(x_m) < street.sides[0].kerb_m - 0.2
        color += (stripes * worn * 105)[..., None]
    wetness = 0.25 * (1 - light.shadow / 0.5)
    wet: np.ndarray = color * (1 - wetness * np.clip(patches - 0.3, 0, 1)[..., None])
    return wet


def _slabs(x_m: np.ndarray, depth: np.ndarray, noise: Noise, detail: np.ndarray) -> np.ndarray:
    row, col = depth / 0.75, x_m / 0.55
    joint = (np.mod(row, 1) < 0.06) | (np.mod(col, 1) < 0.07)
    value = 150 + 26 * (noise.cell(row, col) - 0.5) * detail
    value = value + 22 * (noise.smooth(depth * 5, x_m * 7) - 0.5) - 40 * joint * detail
    value = value + 20 * (noise.grain(depth * 40, x_m * 40) - 0.5) * detail
    paved: np.ndarray = value[..., None] * np.array([1.0, 0.965, 0.91], np.float32)
    return paved


def _turf(x_m: np.ndarray, depth: np.ndarray, noise: Noise, detail: np.ndarray) -> np.ndarray:
    value = 0.62 + 0.35 * noise.smooth(depth * 3, x_m * 5)
    value = value + 0.5 * (noise.grain(depth * 12, x_m * 40) - 0.5) * detail
    dry = noise.smooth(depth * 0.7 + 77, x_m)[..., None]
    fresh, parched = np.array([92.0, 132, 52]), np.array([146.0, 140, 74])
    grown: np.ndarray = value[..., None] * (fresh * (1 - dry * 0.6) + parched * dry * 0.6)
    return grown


def _house_shadow(x_m: np.ndarray, depth: np.ndarray, street: Street, light: Light) -> np.ndarray:
    """1 where a house keeps the sun from the ground, else 0."""
    shade = np.zeros(x_m.shape, np.float32)
    for side in street.sides:
        if side.sign == light.sun:
            reach = 0.55 * _height_at(side.facades, depth + 0.3 * x_m)
            shade = np.clip((reach - (side.wall_m - x_m * side.sign)) / 0.35, 0, 1)
    return shade


def _height_at(facades: Facades, depth: np.ndarray) -> np.ndarray:
    house = _house_at(facades, depth)
    height: np.ndarray = facades.height_m[house]
    return height


def _house_at(facades: Facades, depth: np.ndarray) -> np.ndarray:
    house = np.searchsorted(facades.starts, depth, side="right") - 1
    return np.clip(house, 0, len(facades.height_m) - 1)


def paint_facades(
    canvas: Canvas, camera: Camera, street: Street, light: Light, noise: Noise, building: int
) -> None:
    """Brick or plaster walls with rows of windows, shop fronts, cornices and eaves."""
    for side in street.sides:
        depth, y_m = camera.wall(side.sign * side.wall_m + street.shift_m)
        house = _house_at(side.facades, depth)  # (1, W)
        is_wall = (y_m >= 0) & (y_m < side.facades.height_m[house]) & (depth < street.end_m)
        columns = np.flatnonzero(is_wall.any(axis=0))
        if not len(columns):
            continue
        window = slice(columns[0], columns[-1] + 1)
        color = _wall_color(side.facades, house[:, window], depth[:, window], y_m[:, window], noise)
        facing = 1.08 if light.sun == -side.sign else 0.94 if light.sun == 0 else 0.7
        seen = np.zeros((*canvas.size, 3), np.float32)
        hazy = np.broadcast_to(depth[:, window], color.shape[:2])
        seen[:, window] = light.faded(color * np.float32(facing), hazy)
        canvas.fill(is_wall, seen, building)


def _wall_color(
    facades: Facades, house: np.ndarray, depth: np.ndarray, y_m: np.ndarray, noise: Noise
) -> np.ndarray:
    along = depth - facades.starts[house]  # (1, W) metres from the house's corner
    length = facades.starts[house + 1] - facades.starts[house]
    height, floor, bay = facades.height_m[house], facades.floor_m[house], facades.bay_m[house]
    detail = np.clip(1.3 - depth / 26, 0, 1)
    value = 1 + 0.22 * (noise.smooth(y_m * 6, depth * 6 + house * 37) - 0.5)
    joints = (np.mod(y_m, 0.15) < 0.03) | (
        np.mod(depth + 0.11 * np.mod(np.floor(y_m / 0.15), 2), 0.3) < 0.03
    )
    bricks = noise.cell(y_m / 0.15, depth / 0.3) - 0.5
    value = value + facades.is_brick[house] * detail * (0.2 * joints + 0.25 * bricks)
    color = facades.color[house] * value[..., None]
    is_cornice = np.mod(y_m, floor) < 0.14
    is_eave = y_m > height - 0.45
    color = np.where(is_cornice[..., None], facades.trim[house] * 0.85, color)
    color = np.where(is_eave[..., None], facades.color[house] * 0.55, color)

    is_shop = facades.is_shop[house]
    storey, column = np.floor(y_m / floor), np.floor(along / bay)
    wide, tall = facades.window[house][..., 0], facades.window[house][..., 1]
    across = np.abs(np.mod(along / bay, 1) - 0.5) * bay
    upward = np.abs(np.mod(y_m / floor, 1) - 0.53) * floor
    inside = (along > 0.4) & (along < length - 0.4) & (y_m < height - 0.6)
    opening = (across < wide * bay / 2) & (upward < tall * floor / 2) & inside
    frame = (across < wide * bay / 2 + 0.09) & (upward < tall * floor / 2 + 0.1) & inside
    bars = opening & ((across < 0.035) | (np.abs(upward - 0.2) < 0.035))
    luck = noise.cell(storey + house * 11, column + house * 5)
    reflection = np.clip(0.3 + 0.09 * y_m + 0.5 * (luck - 0.5), 0, 1)[..., None]
    glass = np.array([40.0, 46, 54]) * (1 - reflection) + np.array([136.0, 158, 180]) * reflection
    glass = np.where((luck > 0.86)[..., None], np.array([206.0, 184, 140]), glass)

    is_upper = ~(is_shop & (y_m < floor))
    color = np.where((frame & is_upper)[..., None], facades.trim[house], color)
    color = np.where((opening & is_upper)[..., None], glass, color)
    color = np.where((bars & is_upper)[..., None], facades.trim[house] * 0.9, color)
    door = (np.mod(column, 3) == 1) & (across < 0.5) & (y_m < 2.15) & ~is_shop
    color = np.where(door[..., None], facades.sign[house] * 0.75, color)

    band = is_shop & (y_m > floor - 0.75) & (y_m < floor - 0.12)
    lettering = band & (np.abs(y_m - floor + 0.44) < 0.16)
    lettering &= (noise.cell(storey, along * 3.1) > 0.45) & (np.mod(along, 6) > 2)
    display = is_shop & (y_m > 0.5) & (y_m < floor - 0.85) & (np.mod(along, 2.4) > 0.14)
    goods = noise.smooth(y_m * 11, depth * 11 + house * 53)[..., None]
    window_color = 44 + goods * np.array([120.0, 104, 88]) + 20 * reflection
    color = np.where((is_shop & (y_m < floor))[..., None], facades.sign[house] * 0.6, color)
    color = np.where(display[..., None], window_color, color)
    color = np.where(band[..., None], facades.sign[house], color)
    color = np.where(lettering[..., None], 238.0, color)
    painted: np.ndarray = color.astype(np.float32)
    return painted


def paint_fences(
    canvas: Canvas, camera: Camera, street: Street, light: Light, noise: Noise, fence: int
) -> None:
    """Railings or planks along the gardens; the mask takes a railing as one surface."""
    for side in street.sides:
        if not side.fence_height_m:
            continue
        depth, y_m = camera.wall(side.sign * side.pavement_m + street.shift_m)
        start, end = side.fence_span_m
        is_fence = (y_m >= 0) & (y_m < side.fence_height_m) & (depth > start) & (depth < end)
        depth = np.broadcast_to(depth, canvas.size)
        if side.fence_is_wooden:
            planks = noise.cell(np.zeros_like(depth), depth / 0.14)
            value = 0.8 + 0.3 * planks + 0.2 * (noise.smooth(y_m * 8, depth * 60) - 0.5)
            value = value - 0.35 * (np.mod(depth, 0.14) < 0.016)
            color = value[..., None] * np.array([138.0, 108, 76])
        else:
            top = side.fence_height_m
            is_bar = (np.mod(depth, 0.15) < 0.045) | (y_m > top - 0.07)
            is_bar |= np.abs(y_m - 0.16) < 0.03
            color = np.where(is_bar[..., None], np.array([44.0, 50, 52]), canvas.picture * 0.9)
        facing = 0.75 if light.sun == side.sign else 1.0
        canvas.fill(is_fence, light.faded(color * facing, depth), fence)
