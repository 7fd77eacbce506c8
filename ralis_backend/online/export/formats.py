"""The file formats of an export: each writes images and masks into a folder, one at a time.

A format may begin the folder's `README.md` with how to load it; the rest is added to it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ralis_backend.core.palette import palette_png
from ralis_backend.core.registry import Registry
from ralis_backend.online.export.coco import write_coco
from ralis_backend.online.export.folder import write_file
from ralis_backend.online.export.labelled_images import SPLITS, ExportedClass, ExportedImage
from ralis_backend.online.export.yolo_seg import write_yolo_seg

Writer = Callable[[Iterable[ExportedImage], Sequence[ExportedClass], Path], None]


def write_png(images: Iterable[ExportedImage], classes: Sequence[ExportedClass], out: Path) -> None:
    """Our datasets' layout: index masks with a palette, and `splits.json`."""
    splits: dict[str, list[str]] = {name: [] for name in SPLITS}
    colors = [label.color for label in classes]
    for image in images:
        write_file(out / "images" / image.split / image.file_name, image.content)
        mask = palette_png(image.mask, colors)
        write_file(out / "masks" / image.split / f"{image.name}.png", mask)
        splits[image.split].append(f"{image.split}/{image.name}")
    content = json.dumps(splits, indent=1, ensure_ascii=False) + "\n"
    write_file(out / "splits.json", content.encode())
    write_file(out / "README.md", _PNG_GUIDE.encode())


def write_hf(images: Iterable[ExportedImage], classes: Sequence[ExportedClass], out: Path) -> None:
    """Parquet files of a Hugging Face dataset: `load_dataset("<folder>")` reads them offline.

    Columns: `image` and `mask` (pictures, the mask's values are class indices), `name`.
    """
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]
    from datasets import Features, Image, Value

    features = Features({"image": Image(), "mask": Image(), "name": Value("string")})
    schema, colors = features.arrow_schema, [label.color for label in classes]
    files = {"train": "train", "val": "validation"}
    writers: dict[str, Any] = {}
    (out / "data").mkdir()
    try:
        for image in images:
            if image.split not in writers:
                path = out / "data" / f"{files[image.split]}-00000-of-00001.parquet"
                writers[image.split] = pq.ParquetWriter(path, schema)
            row = {
                "image": {"bytes": image.content, "path": image.file_name},
                "mask": {"bytes": palette_png(image.mask, colors), "path": f"{image.name}.png"},
                "name": image.name,
            }
            writers[image.split].write_table(pa.Table.from_pylist([row], schema=schema))
    finally:
        for writer in writers.values():
            writer.close()
    lines = "".join(
        f"  - split: {files[split]}\n    path: data/{files[split]}-*.parquet\n" for split in writers
    )
    front = f"---\nconfigs:\n- config_name: default\n  data_files:\n{lines}---\n\n"
    write_file(out / "README.md", (front + _HF_GUIDE).encode())


_PNG_GUIDE = """\
## How to load it

In this folder:

```python
import json
from pathlib import Path

import numpy as np
from PIL import Image

splits = json.loads(Path("splits.json").read_text(encoding="utf-8"))
pictures = {f"{path.parent.name}/{path.stem}": path for path in Path("images").glob("*/*")}
for key in splits["train"]:
    picture = np.array(Image.open(pictures[key]).convert("RGB"))  # (H, W, 3)
    mask = np.array(Image.open(f"masks/{key}.png"))  # (H, W): values of the classes, 255 is VOID
    print(key, picture.shape, np.unique(mask))
```

Masks are palette PNGs: viewers show them in the classes' colours, their pixels are the classes'
values. `ralis import --dataset FOLDER --project N` takes this folder back, with the same masks,
and `ralis benchmark --dataset FOLDER` compares strategies on it. These read `train` as `d_v` (the
pool) and `val` as `d_r` (the reward set).
"""

_HF_GUIDE = """\
## How to load it

In this folder:

```python
from pathlib import Path

import numpy as np
from datasets import load_dataset

dataset = load_dataset(str(Path.cwd()))  # this folder's whole path: "." alone is refused
for split, rows in dataset.items():
    for row in rows:
        picture = np.array(row["image"])  # (H, W, 3)
        mask = np.array(row["mask"])  # (H, W): values of the classes, 255 is VOID
        print(split, row["name"], picture.shape, np.unique(mask))
```

The split `val` is called `validation` here.
"""

FORMATS: Registry[Writer] = Registry("format", "ralis_backend.export_formats")
"""What `ralis export --format` offers; a format of one's own is one function and one entry."""
FORMATS.register("png", write_png)
FORMATS.register("coco", write_coco)
FORMATS.register("yolo-seg", write_yolo_seg)
FORMATS.register("hf", write_hf)
FORMATS.register("coco-polygon", partial(write_coco, segmentation="polygon"))
