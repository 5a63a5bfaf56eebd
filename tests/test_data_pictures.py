"""chaos.data.pictures: a picture is seen as a person sees it, or refused."""

import warnings

import numpy as np
import pytest

from chaos.data.pictures import read_picture
from chaos.errors import DataError

Image = pytest.importorskip("PIL.Image", reason="pictures need pillow")

RAMP = np.tile(np.arange(0, 252, 9, dtype=np.uint8), (20, 1))  # 20 rows, 28 columns
SIXTEEN = RAMP.astype(np.uint16) * 257


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def grey(path, size=None):
    found = read_picture(path, 1, size)
    assert found.dtype == np.uint8 and found.ndim == 4 and found.shape[:2] == (1, 1)
    return found[0, 0]


@pytest.mark.parametrize("ending", ["png", "bmp", "gif", "tif", "pgm"])
def test_eight_bits(ending):
    Image.fromarray(RAMP).save(f"a.{ending}")
    assert np.array_equal(grey(f"a.{ending}"), RAMP)
    colour = read_picture(f"a.{ending}", 3)
    assert colour.shape == (1, 3, 20, 28) and np.array_equal(colour, np.broadcast_to(RAMP, colour.shape))


def test_colours():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 28, 3), dtype=np.uint8)
    Image.fromarray(pixels).save("a.png")
    assert np.array_equal(read_picture("a.png", 3)[0], pixels.transpose(2, 0, 1))
    assert np.array_equal(grey("a.png"), np.asarray(Image.fromarray(pixels).convert("L")))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "mode, ending, most",
    [
        ("1", "png", 0),
        ("1", "tif", 0),
        ("1", "pgm", 0),
        ("LA", "png", 0),
        ("LA", "tif", 0),
        ("P", "png", 0),
        ("P", "tif", 0),
        ("PA", "tif", 0),
        ("RGB", "tif", 0),
        ("RGB", "jpg", 2),
        ("RGB", "webp", 2),
        ("RGBA", "png", 0),
        ("RGBA", "webp", 2),
        ("RGBX", "tif", 0),
        ("CMYK", "tif", 0),
        ("CMYK", "jpg", 2),
        ("YCbCr", "tif", 1),
        ("YCbCr", "jpg", 2),
    ],
)
def test_every_mode(mode, ending, most, channels):
    """A grey picture is the same whatever its pixels are written as."""
    pixels = (RAMP > 99) * np.uint8(255) if mode == "1" else RAMP
    picture = Image.fromarray(pixels)
    picture = picture.convert("P").convert(mode) if mode in ("P", "PA") else picture.convert("RGB").convert(mode)
    picture.save(f"a.{ending}", **({"quality": 100} if ending in ("jpg", "webp") else {}))
    found = read_picture(f"a.{ending}", channels)[0].astype(int)
    assert found.shape == (channels, *RAMP.shape) and np.abs(found - pixels).max() <= most


def test_colours_of_another_kind_are_refused():
    Image.frombytes("LAB", (28, 20), np.dstack([RAMP] * 3).tobytes()).save("lab.tif")
    for channels in (1, 3):
        with pytest.raises(DataError, match=r"^lab.tif: its pixels \(mode LAB\) are neither grey nor .*; save it as RGB$"):
            read_picture("lab.tif", channels)


@pytest.mark.parametrize("ending", ["gif", "png", "webp", "tif"])
def test_of_several_frames_the_first_is_taken(tmp_path, ending):
    frames = [Image.fromarray(RAMP), Image.fromarray(255 - RAMP), Image.fromarray(RAMP.T.copy()).resize((28, 20))]
    options = {"lossless": True} if ending == "webp" else {}
    frames[0].save(f"a.{ending}", save_all=True, append_images=frames[1:], **options)
    told = []
    found = read_picture(f"a.{ending}", 1, (10, 28), tell=lambda *seen: told.append(seen))
    assert found.shape == (1, 1, 10, 28) and told == [(3, (20, 28))]
    assert np.abs(grey(f"a.{ending}").astype(int) - RAMP).max() <= (0 if ending != "webp" else 1)


@pytest.mark.parametrize("ending", ["jpg", "gif", "tif", "webp", "bmp", "pgm"])
def test_truncated(tmp_path, ending):
    """At any place: refused in one line, never filled up with grey."""
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), np.uint8)).save(f"a.{ending}")
    whole = (tmp_path / f"a.{ending}").read_bytes()
    for share in (0.05, 0.3, 0.6, 0.9):
        (tmp_path / f"a.{ending}").write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(DataError, match=rf"^a\.{ending}: not a readable picture: ") as caught:
            read_picture(f"a.{ending}", 1)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("ending", ["png", "tif", "pgm"])
def test_sixteen_bits_do_not_saturate(ending):
    Image.fromarray(SIXTEEN).save(f"a.{ending}")
    assert np.array_equal(grey(f"a.{ending}"), RAMP)
    assert np.array_equal(read_picture(f"a.{ending}", 3)[0, 2], RAMP)


def test_a_transparent_grey_of_sixteen_bits_is_refused():
    Image.fromarray(SIXTEEN).save("a.png", transparency=0)
    with pytest.raises(DataError, match="^a.png: one of its 16-bit greys is transparent"):
        read_picture("a.png", 1)


def test_sixteen_bits_are_rounded():
    Image.fromarray(np.array([[0, 128, 129, 65406, 65407, 65535]], np.uint16)).save("a.png")
    assert grey("a.png").tolist() == [[0, 0, 1, 254, 255, 255]]


def test_pixels_whose_white_is_not_known_are_refused():
    Image.fromarray((RAMP / 255).astype(np.float32)).save("float.tif")
    Image.fromarray(RAMP.astype(np.int32) * 1000).save("long.tif")
    Image.fromarray(SIXTEEN).save("inverted.tif", tiffinfo={262: 0})
    for name in ("float.tif", "long.tif", "inverted.tif"):
        for channels in (1, 3):
            with pytest.raises(DataError, match=rf"^{name}: its pixels \(mode .*\) have no agreed white; save it with"):
                read_picture(name, channels)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "tif"])
def test_orientation(orientation, ending):
    """What the EXIF standard says of the first row and column, spelt out."""
    stored = {
        1: RAMP, 2: RAMP[:, ::-1], 3: RAMP[::-1, ::-1], 4: RAMP[::-1],
        5: RAMP.T, 6: RAMP[:, ::-1].T, 7: RAMP[::-1, ::-1].T, 8: RAMP[::-1].T,
    }[orientation]  # fmt: skip
    picture = Image.fromarray(np.ascontiguousarray(stored))
    exif = picture.getexif()
    exif[0x0112] = orientation
    picture.save(f"a.{ending}", exif=exif, **({"quality": 100} if ending == "jpg" else {}))
    found = grey(f"a.{ending}").astype(int)
    assert found.shape == RAMP.shape and np.abs(found - RAMP).max() <= (2 if ending == "jpg" else 0)


def test_orientation_of_sixteen_bits():
    picture = Image.fromarray(SIXTEEN)
    exif = picture.getexif()
    exif[0x0112] = 3
    picture.save("a.png", exif=exif)
    assert np.array_equal(grey("a.png"), RAMP[::-1, ::-1])


def ink(colour, ground):
    """RGBA: a square of ink, around it transparent pixels of another colour."""
    pixels = np.zeros((28, 28, 4), np.uint8)
    pixels[..., :3] = ground
    pixels[10:18, 10:18] = (*colour, 255)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("ground", [(0, 0, 0), (255, 255, 255), (9, 99, 200)])
def test_ink_on_transparency(ground):
    wanted = np.full((28, 28), 255, np.uint8)
    wanted[10:18, 10:18] = 0
    picture = ink((0, 0, 0), ground)
    picture.save("rgba.png")
    picture.save("rgba.webp", lossless=True, exact=True)
    picture.convert("LA").save("la.png")
    picture.quantize(4).save("palette.png")
    for name in ("rgba.png", "rgba.webp", "la.png", "palette.png"):
        assert np.array_equal(grey(name), wanted), name
    assert np.array_equal(read_picture("rgba.png", 3)[0, 1], wanted)


def test_half_transparent_ink():
    picture = ink((0, 0, 0), (0, 0, 0))
    picture.putpixel((12, 12), (0, 0, 0, 51))
    picture.save("a.png")
    assert grey("a.png")[12, 12] == 204


def test_an_opaque_alpha_changes_nothing():
    picture = Image.fromarray(RAMP).convert("RGBA")
    picture.save("a.png")
    assert np.array_equal(grey("a.png"), RAMP)
    Image.fromarray(np.full((5, 5, 4), 255, np.uint8)).save("white.png")
    assert (grey("white.png") == 255).all()


def test_white_ink_on_transparency_is_refused():
    ink((255, 255, 255), (0, 0, 0)).save("a.png")
    with pytest.raises(DataError, match="^a.png: white on transparent ground; put it on"):
        read_picture("a.png", 1)


def test_thin_strokes_survive_reduction():
    """One line of 300 must not fall between the rows that are looked at."""
    for row in range(0, 300, 7):
        pixels = np.zeros((300, 20), np.uint8)
        pixels[row] = 255
        Image.fromarray(pixels).save("a.png")
        found = grey("a.png", (28, 28))
        assert found.shape == (28, 20) and found.max() >= 10
    assert grey("a.png").shape == grey("a.png", (300, 20)).shape == (300, 20)


def test_damage(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 90), dtype=np.uint8)).save("good.png")
    good = (tmp_path / "good.png").read_bytes()
    for name, content in {"void.png": b"", "text.jpg": b"no picture", "cut.png": good[: len(good) // 2]}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"^{name}: not a readable picture: ") as caught:
            read_picture(name, 1)
        assert "\n" not in str(caught.value)
    with pytest.raises(OSError, match="No such file"):
        read_picture("absent.png", 1)
    with pytest.raises(DataError, match="good.png: pictures have 1 or 3 channels, the network wants 2"):
        read_picture("good.png", 2)


def test_a_picture_too_large_is_refused(monkeypatch):
    Image.fromarray(RAMP).save("a.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with warnings.catch_warnings(), pytest.raises(DataError, match="a.png: not a readable picture: Image size"):
        warnings.simplefilter("ignore")
        read_picture("a.png", 1)
