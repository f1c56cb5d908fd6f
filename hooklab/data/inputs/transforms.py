"""What is done to a picture between the file and the model's processor: functions of the user's, and `fit_image`.

In: a picture that was opened, and functions in the order in which they act, each of which gets what the one before it gave.
Out: a picture or an array, for the processor.

    hl.extract(model, "pictures", "L*.resid_post", "acts", template="{image}", transforms=[hl.data.fit_image(512), turned])
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from ...errors import PromptError

Transform = Callable[[Any], Any]
NAMES = ("image", "url", "image_url", "path")
"""Under which a part of a turn brings a picture."""


def checked(given: Any) -> tuple[Transform, ...]:
    """Transforms, as a tuple. Raises PromptError where one is no function."""
    found = () if given is None else tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else (given,)
    if odd := [one for one in found if not callable(one)]:
        raise PromptError(f"transforms={odd[0]!r}: each is a function that takes a picture and gives a picture or an array")
    return found


def name_of(transform: Any) -> str:
    """What a store says of a transform; what the function does is not compared.

    >>> name_of(fit_image(64)), name_of(partial(int, base=2))
    ('fit_image((64, 64), fill=0, enlarge=True)', 'int(base=2)')
    """
    if isinstance(transform, partial):
        given = [*map(repr, transform.args), *(f"{name}={value!r}" for name, value in transform.keywords.items())]
        return f"{name_of(transform.func)}({', '.join(given)})"
    found = getattr(transform, "__qualname__", None) or repr(transform)
    return re.sub(r" at 0x[0-9a-fA-F]+", "", " ".join(str(found).split()))


def transformed(image: Any, transforms: Sequence[Transform], which: str) -> Any:
    """A picture after all transforms; an array of bytes [height width channel] comes to the first as a picture.

    Raises:
        PromptError: one fails, or gives no picture; it names the transform, and the picture by `which`.
    """
    image = _picture(image) if transforms else image
    for transform in transforms:
        try:
            image = transform(image)
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
            raise PromptError(f"the transform {name_of(transform)} fails on {which}: {said}") from error
        if not (hasattr(image, "convert") or getattr(image, "ndim", 0) in (2, 3)):
            raise PromptError(f"the transform {name_of(transform)} makes {type(image).__name__} of {which}: it is to give a "
                              "picture, or an array of one")
    return image


def inline(messages: Sequence[Mapping[str, Any]] | None) -> bool:
    """Whether turns of a chat bring pictures of their own, which the processor opens."""
    pieces = [piece for turn in messages or () if isinstance(turn.get("content"), list) for piece in turn["content"]]
    return any(isinstance(piece, Mapping) and piece.get(name) is not None for piece in pieces for name in NAMES)


@dataclass(frozen=True, repr=False)
class Fit:
    """Resizes pictures within a size: see `fit_image`."""

    width: int
    height: int
    fill: Any = 0
    enlarge: bool = True

    def __repr__(self) -> str:
        return f"fit_image(({self.width}, {self.height}), fill={self.fill!r}, enlarge={self.enlarge})"

    def __call__(self, image: Any) -> Any:
        """The picture, in the middle of one of that size. Raises PromptError for what is no picture."""
        from PIL import Image

        image = _picture(image)
        if not hasattr(image, "convert"):
            raise PromptError(f"fit_image takes a picture, or an array of bytes [height width channel], not "
                              f"{type(image).__name__}")
        if image.mode in ("1", "P", "PA"):  # colours by number have nothing between them
            image = image.convert("L" if image.mode == "1" else "RGBA" if "transparency" in image.info or image.mode == "PA"
                                  else "RGB")
        scale = min(self.width / image.width, self.height / image.height, *(() if self.enlarge else (1.0,)))
        size = min(self.width, max(1, round(image.width * scale))), min(self.height, max(1, round(image.height * scale)))
        found = Image.new(image.mode, (self.width, self.height), self._filled(image))
        found.paste(image.resize(size, Image.Resampling.BICUBIC) if size != image.size else image,
                    ((self.width - size[0]) // 2, (self.height - size[1]) // 2))
        return found

    def _filled(self, image: Any) -> Any:
        """The colour of the padding; a number is the same for every colour, and opaque."""
        bands = image.getbands()
        if not isinstance(self.fill, int) or len(bands) == 1:
            return self.fill
        return tuple(255 if band == "A" else self.fill for band in bands)


def fit_image(image_or_size: Any, size: int | tuple[int, int] | None = None, *, fill: Any = 0, enlarge: bool = True) -> Any:
    """A picture resized within a size, its proportions kept, with padding around it; or a transform that does so.

    >>> from PIL import Image
    >>> fit_image(Image.new("RGB", (40, 20)), (30, 30)).size, fit_image(224)
    ((30, 30), fit_image((224, 224), fill=0, enlarge=True))

    Args:
        image_or_size: A picture, or an array of bytes [height width channel]; or a size, for a transform.
        size: Of the result, (width, height), or one number for both.
        fill: The colour of the padding: a number from 0 to 255, a tuple, or a name.
        enlarge: Whether what is smaller is made larger; it is only padded otherwise.

    Raises:
        PromptError: the size is none, or it is no picture.
    """
    if size is None:
        return Fit(*_size(image_or_size), fill, enlarge)
    return Fit(*_size(size), fill, enlarge)(image_or_size)


def _size(given: Any) -> tuple[int, int]:
    both = (given, given) if isinstance(given, int) else given
    if not (isinstance(both, list | tuple) and len(both) == 2
            and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in both)):
        raise PromptError(f"a size is (width, height) in whole numbers from 1, or one number for both, not {given!r}")
    return both[0], both[1]


def _picture(image: Any) -> Any:
    """An array of bytes as a picture; anything else as it is."""
    if hasattr(image, "convert") or str(getattr(image, "dtype", "")) != "uint8" or getattr(image, "ndim", 0) not in (2, 3):
        return image
    from PIL import Image

    try:
        return Image.fromarray(image)
    except (TypeError, AttributeError, ValueError):
        return image
