// What both echo servers of KServe v2 ModelInfer do, and how they start and end. There is nothing behind them:
// what they cost is the least that a gRPC server of any model costs.
//
//   server [HOST:PORT]     default 127.0.0.1:0, any free port
//
// Writes {"address":"HOST:PORT"} to stdout when it listens, and ends when its stdin closes.

#ifndef TENSORWIRE_BENCH_ECHO_H
#define TENSORWIRE_BENCH_ECHO_H

#include <grpcpp/grpcpp.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>

#include "inference.grpc.pb.h"

// The model of this name gives the first bytes of its input, any other one all of it.
inline constexpr char kHead[] = "head";
inline constexpr size_t kHeadBytes = 16;

inline grpc::Status Answer(const inference::ModelInferRequest& request, inference::ModelInferResponse* response) {
  if (request.inputs_size() != 1 || request.raw_input_contents_size() != 1) {
    return {grpc::StatusCode::INVALID_ARGUMENT, "expected one input, in raw_input_contents"};
  }
  const auto& input = request.inputs(0);
  const std::string& content = request.raw_input_contents(0);
  response->set_model_name(request.model_name());
  response->set_model_version("1");
  auto* output = response->add_outputs();
  output->set_name("y");
  output->set_datatype(input.datatype());
  if (request.model_name() == kHead) {
    output->add_shape(1);
    output->add_shape(kHeadBytes / 4);
    response->add_raw_output_contents(content.data(), std::min(content.size(), kHeadBytes));
  } else {
    *output->mutable_shape() = input.shape();
    response->add_raw_output_contents(content);
  }
  return grpc::Status::OK;
}

// No limits on the size of messages; no health service, no reflection, no compression, no credentials.
// SO_REUSEPORT is off so that a port in use is an error.
inline void Configure(grpc::ServerBuilder* builder, const std::string& bind, int* port) {
  builder->SetMaxReceiveMessageSize(-1);
  builder->SetMaxSendMessageSize(-1);
  builder->AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  builder->AddListeningPort(bind, grpc::InsecureServerCredentials(), port);
}

inline int CannotListen(const std::string& bind) {
  std::fprintf(stderr, "cannot listen on %s\n", bind.c_str());
  return 1;
}

// Says where it listens, and returns when stdin closes.
inline void Announce(const std::string& bind, int port) {
  const std::string host = bind.substr(0, bind.rfind(':'));
  std::printf("{\"address\":\"%s:%d\"}\n", host.c_str(), port);
  std::fflush(stdout);
  char ignored[4096];
  while (read(STDIN_FILENO, ignored, sizeof ignored) > 0) {
  }
}

inline std::chrono::system_clock::time_point Soon() {
  return std::chrono::system_clock::now() + std::chrono::milliseconds(200);
}

#endif
