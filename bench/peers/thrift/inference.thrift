// Inference with raw tensors, as close to ModelInfer of KServe v2 as Thrift allows.

struct Tensor {
  1: string name,
  2: string datatype,
  3: list<i64> shape,
  4: binary content,
}

struct InferRequest {
  1: string model_name,
  2: string model_version,
  3: list<Tensor> inputs,
}

struct InferResponse {
  1: string model_name,
  2: string model_version,
  3: list<Tensor> outputs,
}

// code: one of gRPC's canonical status codes.
exception InferError {
  1: i32 code,
  2: string message,
}

service Inference {
  InferResponse infer(1: InferRequest request) throws (1: InferError error),
}
