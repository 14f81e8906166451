"""Reads requests that the Java client's tests have written, and answers each with its own inputs.

One message a line on stdin and stdout, its frames as hexadecimal digits between blanks.
"""

import sys

from tensorwire.rpc.wire.header import Interner, ReplyHeader, Signature, encode_header
from tensorwire.rpc.wire.message import build, payload_of, read_prefix, read_rows, read_tensors
from tensorwire.rpc.wire.prefix import PREFIX_SIZE, Kind

known: Interner[Signature] = Interner(Signature)
for line in sys.stdin:
    # Two blanks in a row stand around an empty frame.
    head, *frames = (bytes.fromhex(frame) for frame in line.rstrip("\n").split(" "))
    prefix = read_prefix(head)
    signature = known.get(head[PREFIX_SIZE : PREFIX_SIZE + prefix.header_len])
    layout, request = signature.layout, signature.header
    rows, total, start = read_rows(head, prefix, layout)
    tensors = read_tensors(head, frames, layout, total, start, prefix.inline_limit)
    reply = build(
        Kind.REPLY,
        first_id=prefix.id,
        count=prefix.count,
        layout=layout,
        header=encode_header(ReplyHeader(request.model, 1, request.inputs, request.rows)),
        rows=rows,
        payloads=[payload_of(tensor) for tensor in tensors],
        inline_limit=prefix.inline_limit,
    )
    print(*(bytes(frame).hex() for frame in reply), flush=True)
