"""The letters of the fonts that matplotlib ships, as drawings in grey."""

import functools
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from pellucid.errors import DataError

LETTERS = "ABCDEFGHIJ"
SYMBOLS = ("cmex", "cmsy")  # TeX's symbol fonts: where capitals belong they have brackets and calligraphy
FINE, THICKER = 3, 2  # stamps are drawn at this many times their size, and that many pixels thicker on each side
MARGIN = 2  # transparent pixels around a stamp, so that it fades out where it is resampled


@functools.lru_cache(maxsize=1)
def families() -> dict[str, tuple[Path, ...]]:
    """Return the files of matplotlib's letter fonts by family, both sorted by name.

    A font counts if it draws ten different letters, none of them empty. The styles of a family (bold, italic)
    stay together, and all that Knuth made are the one family Computer Modern.
    Raises DataError if there are no such fonts.
    """
    import matplotlib  # slow to import, and needed for its fonts alone

    folder = Path(matplotlib.get_data_path(), "fonts", "ttf")
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.ttf")):
        if not path.stem.startswith(SYMBOLS) and draws_letters(path):
            found.setdefault(family(path), []).append(path)
    if not found:
        raise DataError(f"matplotlib has no letter fonts in {folder}: reinstall it with its fonts")
    return {name: tuple(found[name]) for name in sorted(found)}


def draws_letters(path: Path) -> bool:
    """Say whether a font file draws ten different letters, none of them empty."""
    try:
        font = _font(path, 32)
    except OSError:
        return False
    drawn = {bytes(font.getmask(letter)) for letter in LETTERS}
    return len(drawn) == len(LETTERS) and all(any(pixels) for pixels in drawn)


def family(path: Path) -> str:
    """Return the family a font file belongs to."""
    return "Computer Modern" if path.stem.startswith("cm") else str(_font(path, 32).getname()[0])


def stamp(path: Path, letter: str, em: int) -> Image.Image:
    """Return the ink of a letter, `em` pixels to the em: 255 where it covers a pixel, with a thin empty margin.

    Its outline is moved outwards by 2/3 of a pixel, so that hairlines survive being made small.
    """
    size = FINE * em
    canvas = Image.new("L", (3 * size, 3 * size))
    place = (size, 2 * size)
    ImageDraw.Draw(canvas).text(place, letter, fill=255, font=_font(path, size), anchor="ls", stroke_width=THICKER)
    canvas = canvas.reduce(FINE)
    left, top, right, bottom = canvas.getbbox() or (0, 0, 1, 1)
    return canvas.crop((left - MARGIN, top - MARGIN, right + MARGIN, bottom + MARGIN))


def _font(path: Path, em: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(str(path), em, layout_engine=ImageFont.Layout.BASIC)  # the engine all builds have
