"""Enlarge arrays and files in the caller's own process; `sr_engine.upscale` says how it is used."""

import functools
import os

import cv2
import numpy as np

from sr_engine import loading
from sr_engine.errors import EnvironmentFault
from sr_engine.files import Source
from sr_engine.formats.decoding import decode
from sr_engine.headers import Kind
from sr_engine.limits import check
from sr_engine.pictures import Picture, Plane
from sr_engine.protocol import Code, Limits, Output
from sr_engine.runtimes import OutOfDeviceMemory
from sr_engine.tiles import Enlargement


def upscale(image: "Plane | str | os.PathLike[str]", choice: loading.Choice) -> Plane:
    """See `sr_engine.upscale`."""
    network, cutting, *_ = _load(choice)
    picture = _from_array(image) if isinstance(image, np.ndarray) else _from_file(image, network.model.scale)
    enlargement = Enlargement(picture, network.model.scale, cutting)
    try:
        for job in enlargement.jobs:
            job.finish(network([job.piece()])[0])
    except OutOfDeviceMemory as error:
        message = f"the memory of {network.runtime.device} does not suffice: free some, or take another device"
        raise EnvironmentFault(Code.OUT_OF_MEMORY, message) from error
    return _to_array(enlargement.finish())


_load = functools.lru_cache(maxsize=2)(loading.load)


def _from_array(image: Plane) -> Picture:
    if image.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"an array of uint8 or uint16 is needed, not of {image.dtype}")
    if image.size == 0 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (3, 4)):
        raise ValueError(f"an array HxW, HxWx3 or HxWx4 is needed, not {'x'.join(map(str, image.shape)) or 'a number'}")
    bits = 8 * image.itemsize
    if image.ndim == 2:
        return Picture(Kind.PNG, np.ascontiguousarray(image), bits=bits)
    alpha = np.ascontiguousarray(image[:, :, 3]) if image.shape[2] == 4 else None
    return Picture(Kind.PNG, np.ascontiguousarray(image[:, :, 2::-1]), alpha, bits=bits)


def _from_file(path: "str | os.PathLike[str]", scale: int) -> Picture:
    with Source(os.path.realpath(path)) as source:
        check(source.header(), source.size, Limits(), Output(format="png"), scale=scale)
        return decode(source.read())[0]


def _to_array(picture: Picture) -> Plane:
    if picture.alpha is None:
        return picture.colour if picture.colour.ndim == 2 else np.ascontiguousarray(picture.colour[:, :, ::-1])
    colour = picture.colour
    planes = [colour] * 3 if colour.ndim == 2 else [colour[:, :, 2], colour[:, :, 1], colour[:, :, 0]]
    merged: Plane = cv2.merge([*(np.ascontiguousarray(plane) for plane in planes), picture.alpha])
    return merged
