// The echo of echo.h with gRPC's asynchronous C++ API: a completion queue and a thread for each core, as the
// performance guide of gRPC advises, and on each queue some calls that wait for a request at any time.

#include "echo.h"

#include <algorithm>
#include <memory>
#include <thread>
#include <vector>

namespace {

using Service = inference::GRPCInferenceService::AsyncService;

constexpr int kWaiting = 64;

// One call: waits for a request, answers it, and is gone.
class Call {
 public:
  Call(Service* service, grpc::ServerCompletionQueue* queue)
      : service_(service), queue_(queue), responder_(&context_) {
    service->RequestModelInfer(&context_, &request_, &responder_, queue, queue, this);
  }

  void Proceed(bool ok) {
    if (answered_ || !ok) {
      delete this;
      return;
    }
    new Call(service_, queue_);
    answered_ = true;
    inference::ModelInferResponse response;
    const grpc::Status status = Answer(request_, &response);
    if (status.ok()) {
      responder_.Finish(response, status, this);
    } else {
      responder_.FinishWithError(status, this);
    }
  }

 private:
  Service* service_;
  grpc::ServerCompletionQueue* queue_;
  grpc::ServerContext context_;
  inference::ModelInferRequest request_;
  grpc::ServerAsyncResponseWriter<inference::ModelInferResponse> responder_;
  bool answered_ = false;
};

void Work(grpc::ServerCompletionQueue* queue) {
  void* call = nullptr;
  bool ok = false;
  while (queue->Next(&call, &ok)) static_cast<Call*>(call)->Proceed(ok);
}

}  // namespace

int main(int argc, char** argv) {
  const std::string bind = argc > 1 ? argv[1] : "127.0.0.1:0";
  Service service;
  int port = 0;
  grpc::ServerBuilder builder;
  Configure(&builder, bind, &port);
  builder.RegisterService(&service);
  std::vector<std::unique_ptr<grpc::ServerCompletionQueue>> queues(
      std::max(1u, std::thread::hardware_concurrency()));
  for (auto& queue : queues) queue = builder.AddCompletionQueue();
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (!server || port == 0) return CannotListen(bind);
  std::vector<std::thread> threads;
  for (const auto& queue : queues) {
    // Before its thread runs: calls are only asked for by who works on the queue.
    for (int i = 0; i < kWaiting; ++i) new Call(&service, queue.get());
    threads.emplace_back(Work, queue.get());
  }
  Announce(bind, port);
  server->Shutdown(Soon());
  // No new call may be asked for on a queue that is shut down: the threads see its end only after that.
  for (const auto& queue : queues) queue->Shutdown();
  for (auto& thread : threads) thread.join();
}
