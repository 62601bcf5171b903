"""What the notebooks show with."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg

from keras_matting.notebook import bars, figure_of, show, table

GREY = np.full((4, 6), 128, np.uint8)
TRANSPARENT = np.zeros((4, 6, 4), np.uint8)


def pixels_of(figure):
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def test_rows_of_pictures_have_titles_labels_and_empty_places():
    figure = figure_of({"a": GREY, "b": GREY}, [GREY], labels=["first", "second"], title="all")
    first, second, third, empty = figure.axes
    assert [axis.get_title() for axis in figure.axes] == ["a", "b", "", ""]
    assert (first.get_ylabel(), second.get_ylabel(), third.get_ylabel()) == ("first", "", "second")
    assert third.images and not empty.images and not empty.axison
    assert figure.get_suptitle() == "all"


@pytest.mark.parametrize("grey", [GREY, GREY / 255], ids=["uint8", "float"])
def test_grey_is_the_same_grey_in_bytes_and_in_floats(grey):
    pixels = pixels_of(figure_of([grey])).reshape(-1, 3)
    assert (np.abs(pixels.astype(int) - 128).max(axis=1) <= 1).mean() > 0.3


@pytest.mark.parametrize("picture", [TRANSPARENT, np.full((4, 6), np.nan)], ids=["transparent", "NaN"])
def test_what_is_not_there_looks_light_blue(picture):
    light_blue = (pixels_of(figure_of([picture])) == [173, 216, 230]).all(axis=-1)
    assert light_blue.mean() > 0.3


def test_a_label_too_few_is_an_error():
    with pytest.raises(ValueError):
        figure_of([GREY], [GREY], labels=["one"])


def test_figures_are_closed_once_they_are_shown(capsys):
    before = plt.get_fignums()
    show([GREY])
    assert plt.get_fignums() == before
    assert "Figure" in capsys.readouterr().out


def test_bars_stand_in_order_with_their_values_within_the_frame():
    figure, axis = plt.subplots()
    bars(axis, {"quick": 1.26, "slow": 30, "middle": 4}, colours={"slow": "red"}, digits=1)
    figure.canvas.draw()
    assert [label.get_text() for label in axis.get_yticklabels()] == ["slow", "middle", "quick"]
    assert [text.get_text() for text in axis.texts] == ["30.0", "4.0", "1.3"]
    assert axis.patches[0].get_facecolor() == (1, 0, 0, 1)
    frame = axis.get_window_extent()
    assert all(text.get_window_extent().x1 <= frame.x1 for text in axis.texts)
    plt.close(figure)


def test_a_table_keeps_its_columns_apart():
    assert table(["a", "b"], [(1, "x|y")]).data == "| a | b |\n| --- | --- |\n| 1 | x\\|y |"
