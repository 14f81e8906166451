"""The KServe v2 (Open Inference Protocol) messages of ``ModelInfer``, built at run time.

The same names and field numbers as the public ``inference.GRPCInferenceService`` specification, without
the parts that a raw-bytes inference does not use (parameters, typed contents), so a client generated from the
full specification talks to this server. Descriptors built here need no code generator and no generated file
that has to match the installed protobuf.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol, cast

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

PACKAGE: Final = "inference"
SERVICE: Final = "inference.GRPCInferenceService"
METHOD: Final = "ModelInfer"
PATH: Final = f"/{SERVICE}/{METHOD}"

_Field = descriptor_pb2.FieldDescriptorProto


class InferTensor(Protocol):
    """``InferInputTensor`` and ``InferOutputTensor``."""

    name: str
    datatype: str
    shape: Any


class ModelInferRequest(Protocol):
    """``inference.ModelInferRequest``."""

    model_name: str
    model_version: str
    id: str
    inputs: Any
    outputs: Any
    raw_input_contents: Any

    def SerializeToString(self) -> bytes: ...
    def CopyFrom(self, other: Any) -> None: ...


class ModelInferResponse(Protocol):
    """``inference.ModelInferResponse``."""

    model_name: str
    model_version: str
    id: str
    outputs: Any
    raw_output_contents: Any

    def SerializeToString(self) -> bytes: ...
    def CopyFrom(self, other: Any) -> None: ...


def _field(message: Any, name: str, number: int, kind: int, *, repeated: bool = False, of: str = "") -> None:
    label = _Field.LABEL_REPEATED if repeated else _Field.LABEL_OPTIONAL
    field = message.field.add(name=name, number=number, type=kind, label=label)
    if of:
        field.type_name = of


def _tensor(message: Any, name: str) -> None:
    nested = message.nested_type.add(name=name)
    _field(nested, "name", 1, _Field.TYPE_STRING)
    _field(nested, "datatype", 2, _Field.TYPE_STRING)
    _field(nested, "shape", 3, _Field.TYPE_INT64, repeated=True)


def _describe() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(
        name="tensorwire/bench/inference.proto", package=PACKAGE, syntax="proto3"
    )
    request = file.message_type.add(name="ModelInferRequest")
    _tensor(request, "InferInputTensor")
    wanted = request.nested_type.add(name="InferRequestedOutputTensor")
    _field(wanted, "name", 1, _Field.TYPE_STRING)
    response = file.message_type.add(name="ModelInferResponse")
    _tensor(response, "InferOutputTensor")
    for message in (request, response):
        _field(message, "model_name", 1, _Field.TYPE_STRING)
        _field(message, "model_version", 2, _Field.TYPE_STRING)
        _field(message, "id", 3, _Field.TYPE_STRING)
    scope = f".{PACKAGE}"
    nested = _Field.TYPE_MESSAGE
    _field(request, "inputs", 5, nested, repeated=True, of=f"{scope}.ModelInferRequest.InferInputTensor")
    _field(
        request,
        "outputs",
        6,
        nested,
        repeated=True,
        of=f"{scope}.ModelInferRequest.InferRequestedOutputTensor",
    )
    _field(request, "raw_input_contents", 7, _Field.TYPE_BYTES, repeated=True)
    _field(response, "outputs", 5, nested, repeated=True, of=f"{scope}.ModelInferResponse.InferOutputTensor")
    _field(response, "raw_output_contents", 6, _Field.TYPE_BYTES, repeated=True)
    return file


# A pool of its own: another copy of the same specification in the process does not clash.
_POOL = descriptor_pool.DescriptorPool()
_POOL.AddSerializedFile(_describe().SerializeToString())


def _message_class(name: str) -> Any:
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


_REQUEST: Final = _message_class("ModelInferRequest")
_RESPONSE: Final = _message_class("ModelInferResponse")

parse_request = _REQUEST.FromString
parse_response = _RESPONSE.FromString
serialize_request = _REQUEST.SerializeToString
serialize_response = _RESPONSE.SerializeToString


def new_request(model: str, name: str, datatype: str, shape: Sequence[int]) -> ModelInferRequest:
    """A request for one input tensor, still without its bytes."""
    request = cast(ModelInferRequest, _REQUEST(model_name=model))
    request.inputs.add(name=name, datatype=datatype, shape=shape)
    return request


def new_response(model: str, version: str) -> ModelInferResponse:
    """An answer without outputs."""
    return cast(ModelInferResponse, _RESPONSE(model_name=model, model_version=version))
