import sys

import numpy as np
from PIL import Image

from benchmarks.contact_sheets import COLUMNS, SIDE, main
from tests.helpers.shard_sets import make_images, write_raw_set

HEADER = "split,index,other_split,other_index,distance,mirrored\n"


def test_sheets_show_the_pairs_of_each_band(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_raw_set(tmp_path / "data/raw", make_images(60), make_images(4, seed=1))
    pairs = [f"train,{index},train,{index - 1},0.0{index % 9},0\n" for index in range(1, 60)]
    (tmp_path / "before.csv").write_text("".join([HEADER, *pairs]))
    (tmp_path / "after.csv").write_text("".join([HEADER, *pairs[:2], "test,3,train,7,0.1001,1\n"]))
    monkeypatch.setattr(sys, "argv", ["contact_sheets", "after.csv", "before.csv"])
    main()
    sheets = {path.name: np.asarray(Image.open(path)) for path in (tmp_path / "build/contact_sheets").iterdir()}
    assert {*sheets} == {
        "all-train-train-0.1.png",
        "all-test-train-0.2.png",
        "new-test-train-0.2.png",
        "lost-train-train-0.1.png",
    }
    sheet = sheets["new-test-train-0.2.png"]
    for side, image in enumerate((make_images(4, seed=1)[3], make_images(60)[7])):
        drawn = sheet[:SIDE, side * SIDE : (side + 1) * SIDE]
        assert np.array_equal(drawn[1::3, 1::3], image.transpose(1, 2, 0))
    rows = [sheets[f"{name}-train-train-0.1.png"].shape[0] for name in ("all", "lost")]
    assert rows[1] == rows[0] * 48 // COLUMNS  # at most 48 pairs
