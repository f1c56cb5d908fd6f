"""A server in a process of its own, where hooklab cannot be imported: what a request is deserialised and run by.

    python far_server.py MODEL_FOLDER ATTENTION REQUEST RESULT
"""

import importlib.util
import sys
from pathlib import Path

import torch


def main(folder: str, attention: str, request: str, result: str) -> None:
    sys.path[:] = [path for path in sys.path if not (Path(path or ".") / "hooklab").is_dir()]
    assert importlib.util.find_spec("hooklab") is None
    from nnsight.modeling.transformers import TransformersModel
    from nnsight.schema.request import RequestModel
    from nnsight.tracing.tracer import dec, inc

    torch.set_num_threads(1)
    there = TransformersModel(folder, task="text-generation", dispatch=True, attn_implementation=attention)
    blob = Path(request).read_bytes()
    tracer = RequestModel.deserialize(blob, there._remoteable_persistent_objects(), compress=True)
    frame = tracer.info.frame
    before = set(frame.f_locals)
    inc()
    try:
        tracer.execute(tracer.info.code)
    finally:
        dec()
    torch.save({name: frame.f_locals[name] for name in set(frame.f_locals) - before}, result)


if __name__ == "__main__":
    main(*sys.argv[1:])
