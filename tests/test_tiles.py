"""Tiles of an image: their means, and blanking them."""

import numpy as np

from reid_done_right.images.tiles import blanked, tile_means


def test_tile_means_by_hand() -> None:
    values = np.array([[1, 3, 0, 0, 6], [5, 7, 2, 2, 2], [0, 0, 8, 8, 8]], np.float32)
    # rows of 2 and 1 (1.5 is rounded to even), columns of 2 and 3 (2.5 likewise)
    assert tile_means(values, (2, 2)).tolist() == [[4, 2], [0, 8]]
    assert tile_means(values, (3, 5)).tolist() == values.tolist()
    assert tile_means(values, (1, 1))[0, 0] == values.astype(float).mean()


def test_blanked_tiles_have_the_mean_colour_and_others_stay() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (16, 8, 3), dtype=np.uint8)
    before, filled = picture.copy(), blanked(picture, (4, 2), np.array([0, 5]))
    colour = np.rint(picture.reshape(-1, 3).mean(0)).astype(np.uint8)
    where = np.zeros((16, 8), bool)
    where[:4, :4] = where[8:12, 4:] = True
    assert (filled[where] == colour).all() and (filled[~where] == picture[~where]).all()
    assert (picture == before).all()
    assert (blanked(picture, (4, 2), np.arange(8)) == colour).all()
    assert (blanked(picture, (4, 2), np.array([], int)) == picture).all()
