# SPDX-License-Identifier: Apache-2.0
"""A small reader and writer of safetensors files, written for the oracle alone.

The library's own reader is what the oracle helps to test, so it is not used here. A file is an unsigned 64-bit
little-endian header length, a JSON header `{name: {dtype, shape, data_offsets}}`, then the tensors' bytes.
"""

import json
import struct

import numpy as np

_PLAIN = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2"), "I32": np.dtype("<i4")}
_WIDTH = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I32": 4}


def round_to_bfloat16_bits(values):
    """The upper 16 bits of each float32, rounded to nearest even; NaN stays NaN."""
    values = np.ascontiguousarray(values, dtype=np.float32)
    bits = values.view(np.uint32).astype(np.uint64)
    rounded = ((bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)).astype("<u2")
    return np.where(np.isnan(values), np.uint16(0x7FC0), rounded).astype("<u2")


def round_to(values, dtype):
    """`values` (float64) after a round trip through the storage type `dtype` ("F32", "BF16", "F16", "F64")."""
    if dtype == "BF16":
        return _expand_bfloat16(round_to_bfloat16_bits(values).tobytes()).reshape(np.shape(values))
    return np.asarray(values).astype(_PLAIN[dtype]).astype(np.float64)


def _expand_bfloat16(raw):
    return (np.frombuffer(raw, dtype="<u2").astype(np.uint32) << np.uint32(16)).view(np.float32).astype(np.float64)


def write(path, tensors, dtype=None):
    """Writes `{name: array}`. Without `dtype` an array keeps its own type (float64, float32, float16 or int32)."""
    natural = {np.dtype(t): name for name, t in _PLAIN.items()}
    header, blobs, offset = {}, [], 0
    for name, array in tensors.items():
        array = np.asarray(array)
        kind = dtype or natural[array.dtype]
        blob = (round_to_bfloat16_bits(array) if kind == "BF16" else array.astype(_PLAIN[kind])).tobytes()
        header[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        file.write(b"".join(blobs))


def read(path):
    """Returns `{name: array}`: float64 for every floating type, int32 for I32. Raises ValueError on a bad file."""
    with open(path, "rb") as file:
        content = file.read()
    if len(content) < 8:
        raise ValueError(f"{path}: {len(content)} bytes, expected at least 8")
    (length,) = struct.unpack("<Q", content[:8])
    if length > len(content) - 8:
        raise ValueError(f"{path}: header of {length} bytes in a file of {len(content)}")
    header = json.loads(content[8 : 8 + length].decode("utf-8"))
    data = content[8 + length :]
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        kind, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
        if kind not in _WIDTH:
            raise ValueError(f"{path}: tensor {name} has dtype {kind}, known are {sorted(_WIDTH)}")
        size = int(np.prod(shape, dtype=np.int64)) * _WIDTH[kind]
        if not 0 <= begin <= end <= len(data) or end - begin != size:
            raise ValueError(f"{path}: tensor {name} spans [{begin}, {end}), expected {size} bytes of {len(data)}")
        raw = data[begin:end]
        if kind == "BF16":
            array = _expand_bfloat16(raw)
        else:
            array = np.frombuffer(raw, dtype=_PLAIN[kind])
            array = array.astype(np.int32) if kind == "I32" else array.astype(np.float64)
        tensors[name] = array.reshape(shape)
    return tensors
