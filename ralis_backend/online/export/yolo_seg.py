"""`yolo-seg`: a text file with polygons beside each image, and `data.yaml`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from ralis_backend.online.export.areas import connected_areas, outline
from ralis_backend.online.export.folder import write_file
from ralis_backend.online.export.labelled_images import ExportedClass, ExportedImage, looked_for


def write_yolo_seg(
    images: Iterable[ExportedImage], classes: Sequence[ExportedClass], out: Path
) -> None:
    """`labels/<split>/<name>.txt`, a polygon per connected area, and `data.yaml`.

    A polygon has no hole: holes are joined to the outline by a seam. YOLO has no VOID either, so
    what was not labelled counts as background there. A background of our own is no class: the
    others are numbered anew, without a gap, as `data.yaml` says. That names no `path`: trainers
    then begin at its own folder, wherever they are started.
    """
    number = {index: place for place, index in enumerate(looked_for(classes))}
    seen = set()
    for image in images:
        seen.add(image.split)
        write_file(out / "images" / image.split / image.file_name, image.content)
        height, width = image.mask.shape
        lines = []
        for class_index, area in connected_areas(image.mask, number):
            polygon = outline(area) / [width, height]
            lines.append(
                " ".join([str(number[class_index]), *(f"{v:.6f}" for v in polygon.ravel())])
            )
        text = "".join(f"{line}\n" for line in lines)
        write_file(out / "labels" / image.split / f"{image.name}.txt", text.encode())
    val = "val" if "val" in seen else "train"
    train = "train" if "train" in seen else val
    names = "".join(f"  {i}: {yaml_text(classes[index].name)}\n" for index, i in number.items())
    data = f"train: images/{train}\nval: images/{val}\nnames:\n{names}"
    write_file(out / "data.yaml", data.encode())
    write_file(out / "README.md", _GUIDE.encode())


def yaml_text(text: str) -> str:
    """Text as a YAML scalar in double quotes, whatever is in it.

    JSON is no YAML here: it leaves DEL as it is, and writes an emoji as two halves.
    """
    return f'"{"".join(map(_yaml_character, text))}"'


def _yaml_character(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    return character if character.isprintable() else f"\\U{ord(character):08x}"


_GUIDE = """\
## How to load it

With ultralytics, from any folder (`data.yaml` names no `path`, so that its own folder counts):

```sh
yolo segment train model=yolo11n-seg.pt data=/path/to/this/folder/data.yaml
```

YOLOv5 and YOLOv7 look below the folder they are started in: add a line `path:
/path/to/this/folder` for them. By hand, in this folder:

```python
from pathlib import Path

import numpy as np
import yaml

data = yaml.safe_load(Path("data.yaml").read_text(encoding="utf-8"))
for picture in sorted(Path(data["train"]).iterdir()):
    labels = Path("labels", *picture.parts[1:]).with_suffix(".txt")
    for line in labels.read_text().splitlines():
        class_index, *numbers = line.split()
        polygon = np.array(numbers, float).reshape(-1, 2)  # (N, 2): x and y, from 0 to 1
        print(picture, data["names"][int(class_index)], len(polygon))
```

Each line is a connected area of a class, not one object. Polygons have no holes: a hole is joined
to the outline by a seam.

A background is no class here: the others are numbered without a gap, as `data.yaml` says, which may
differ from the values below. YOLO does not know VOID: what was not labelled counts as background
there, and is learned as such.
Where regions are labelled rather than whole images, that teaches it to miss things: prefer `png`,
`hf` or `coco`.
"""
