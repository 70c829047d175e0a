// SPDX-License-Identifier: Apache-2.0
#include "controlplane/agent/cri_client.h"

#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include "containerd_events.grpc.pb.h"
#include "controlplane/agent/cri_convert.h"
#include "cri.grpc.pb.h"
#include "lib/base/clock.h"

namespace hawser::agent {
namespace {

namespace pb = runtime::v1;
namespace events = containerd::services::events::v1;

constexpr std::chrono::seconds kCallTimeout{120};
constexpr std::chrono::seconds kSandboxTimeout{240};  // includes the network plugin and a pull of the pause image
constexpr std::chrono::seconds kStateTimeout{10};
constexpr int kMaxMessageBytes = 16 << 20;

std::string target_of(const std::string& endpoint) {
  constexpr std::string_view kScheme = "unix://";
  return "unix:" + (endpoint.starts_with(kScheme) ? endpoint.substr(kScheme.size()) : endpoint);
}

grpc::ChannelArguments channel_args() {
  grpc::ChannelArguments a;
  a.SetMaxReceiveMessageSize(kMaxMessageBytes);
  a.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, 100);
  a.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, 100);
  a.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 2000);
  a.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // A private pool: no channel of another part of the process shares its sockets.
  a.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return a;
}

int code_of(grpc::StatusCode c) {
  switch (c) {
    case grpc::StatusCode::NOT_FOUND:
      return ENOENT;
    case grpc::StatusCode::UNAVAILABLE:
      return ECONNREFUSED;
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return ETIMEDOUT;
    case grpc::StatusCode::INVALID_ARGUMENT:
      return EINVAL;
    case grpc::StatusCode::ALREADY_EXISTS:
      return EEXIST;
    default:
      return 0;
  }
}
std::unexpected<Error> failed(const grpc::Status& s) {
  return std::unexpected(Error{code_of(s.error_code()), s.error_message(), {}});
}
bool gone(const grpc::Status& s) {
  return s.error_code() == grpc::StatusCode::NOT_FOUND;
}

// One unary call with a deadline; `method` is a pointer to the stub's member.
template <class Stub, class Req, class Resp>
grpc::Status call(Stub& stub, grpc::Status (Stub::*method)(grpc::ClientContext*, const Req&, Resp*), const Req& req,
                  Resp* resp, std::chrono::seconds timeout = kCallTimeout) {
  grpc::ClientContext ctx;
  ctx.set_deadline(system_clock().wall() + timeout);
  return (stub.*method)(&ctx, req, resp);
}

}  // namespace

struct CriClient::Impl {
  using Runtime = pb::RuntimeService::Stub;
  using Images = pb::ImageService::Stub;

  explicit Impl(const std::string& endpoint)
      : channel(grpc::CreateCustomChannel(target_of(endpoint), grpc::InsecureChannelCredentials(), channel_args())),
        runtime(pb::RuntimeService::NewStub(channel)),
        images(pb::ImageService::NewStub(channel)),
        events(events::Events::NewStub(channel)) {}

  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<Runtime> runtime;
  std::unique_ptr<Images> images;
  std::unique_ptr<events::Events::Stub> events;
};

CriClient::CriClient(const std::string& endpoint) : impl_(std::make_unique<Impl>(endpoint)) {}
CriClient::~CriClient() = default;

Result<RuntimeState> CriClient::state() {
  RuntimeState out;
  pb::VersionResponse version;
  if (auto s = call(*impl_->runtime, &Impl::Runtime::Version, pb::VersionRequest(), &version, kStateTimeout); !s.ok())
    return failed(s);
  out.name = version.runtime_name();
  out.version = version.runtime_version();
  pb::StatusResponse status;
  if (auto s = call(*impl_->runtime, &Impl::Runtime::Status, pb::StatusRequest(), &status, kStateTimeout); !s.ok())
    return failed(s);
  for (const auto& c : status.status().conditions()) {
    if (c.type() == "RuntimeReady") out.runtime_ready = c.status();
    if (c.type() == "NetworkReady") out.network_ready = c.status();
    if (!c.status() && !c.message().empty()) out.message = c.reason() + ": " + c.message();
  }
  return out;
}

Result<RuntimeSnapshot> CriClient::list(const std::string& pod_uid) {
  RuntimeSnapshot out;
  pb::ListPodSandboxRequest sandboxes;
  pb::ListContainersRequest containers;
  if (!pod_uid.empty()) {
    (*sandboxes.mutable_filter()->mutable_label_selector())[kLabelPodUid] = pod_uid;
    (*containers.mutable_filter()->mutable_label_selector())[kLabelPodUid] = pod_uid;
  }
  pb::ListPodSandboxResponse sandbox_list;
  if (auto s = call(*impl_->runtime, &Impl::Runtime::ListPodSandbox, sandboxes, &sandbox_list); !s.ok())
    return failed(s);
  pb::ListContainersResponse container_list;
  if (auto s = call(*impl_->runtime, &Impl::Runtime::ListContainers, containers, &container_list); !s.ok())
    return failed(s);
  for (const auto& s : sandbox_list.items()) {
    if (s.labels().contains(kLabelPodUid)) out.sandboxes.push_back(from_proto(s));
  }
  for (const auto& c : container_list.containers()) {
    if (c.labels().contains(kLabelPodUid)) out.containers.push_back(from_proto(c));
  }
  return out;
}

Result<std::string> CriClient::run_sandbox(const SandboxConfig& config) {
  pb::RunPodSandboxRequest req;
  to_proto(config, req.mutable_config());
  pb::RunPodSandboxResponse resp;
  if (auto s = call(*impl_->runtime, &Impl::Runtime::RunPodSandbox, req, &resp, kSandboxTimeout); !s.ok())
    return failed(s);
  return resp.pod_sandbox_id();
}

Result<> CriClient::stop_sandbox(const std::string& id) {
  pb::StopPodSandboxRequest req;
  req.set_pod_sandbox_id(id);
  pb::StopPodSandboxResponse resp;
  if (auto s = call(*impl_->runtime, &Impl::Runtime::StopPodSandbox, req, &resp); !s.ok() && !gone(s)) return failed(s);
  return {};
}

Result<> CriClient::remove_sandbox(const std::string& id) {
  pb::RemovePodSandboxRequest req;
  req.set_pod_sandbox_id(id);
  pb::RemovePodSandboxResponse resp;
  if (auto s = call(*impl_->runtime, &Impl::Runtime::RemovePodSandbox, req, &resp); !s.ok() && !gone(s))
    return failed(s);
  return {};
}

Result<Sandbox> CriClient::sandbox_status(const std::string& id) {
  pb::PodSandboxStatusRequest req;
  req.set_pod_sandbox_id(id);
  pb::PodSandboxStatusResponse resp;
  if (auto s = call(*impl_->runtime, &Impl::Runtime::PodSandboxStatus, req, &resp); !s.ok()) return failed(s);
  return from_proto(resp.status());
}

Result<std::string> CriClient::create_container(const std::string& sandbox_id, const ContainerConfig& config,
                                                const SandboxConfig& sandbox) {
  pb::CreateContainerRequest req;
  req.set_pod_sandbox_id(sandbox_id);
  to_proto(config, req.mutable_config());
  to_proto(sandbox, req.mutable_sandbox_config());
  pb::CreateContainerResponse resp;
  if (auto s = call(*impl_->runtime, &Impl::Runtime::CreateContainer, req, &resp); !s.ok()) return failed(s);
  return resp.container_id();
}

Result<> CriClient::start_container(const std::string& id) {
  pb::StartContainerRequest req;
  req.set_container_id(id);
  pb::StartContainerResponse resp;
  if (auto s = call(*impl_->runtime, &Impl::Runtime::StartContainer, req, &resp); !s.ok()) return failed(s);
  return {};
}

Result<> CriClient::stop_container(const std::string& id, std::chrono::seconds grace) {
  pb::StopContainerRequest req;
  req.set_container_id(id);
  req.set_timeout(grace.count());
  pb::StopContainerResponse resp;
  auto s = call(*impl_->runtime, &Impl::Runtime::StopContainer, req, &resp, grace + kCallTimeout);
  if (!s.ok() && !gone(s)) return failed(s);
  return {};
}

Result<> CriClient::remove_container(const std::string& id) {
  pb::RemoveContainerRequest req;
  req.set_container_id(id);
  pb::RemoveContainerResponse resp;
  if (auto s = call(*impl_->runtime, &Impl::Runtime::RemoveContainer, req, &resp); !s.ok() && !gone(s))
    return failed(s);
  return {};
}

Result<Container> CriClient::container_status(const std::string& id) {
  pb::ContainerStatusRequest req;
  req.set_container_id(id);
  pb::ContainerStatusResponse resp;
  if (auto s = call(*impl_->runtime, &Impl::Runtime::ContainerStatus, req, &resp); !s.ok()) return failed(s);
  return from_proto(resp.status());
}

Result<ExecOutcome> CriClient::exec(const std::string& id, const std::vector<std::string>& command,
                                    std::chrono::seconds timeout) {
  pb::ExecSyncRequest req;
  req.set_container_id(id);
  for (const auto& c : command) req.add_cmd(c);
  req.set_timeout(timeout.count());
  pb::ExecSyncResponse resp;
  // The runtime ends the command at `timeout` itself; the call's own deadline only catches a runtime that hangs.
  if (auto s = call(*impl_->runtime, &Impl::Runtime::ExecSync, req, &resp, timeout + std::chrono::seconds(5)); !s.ok())
    return failed(s);
  return ExecOutcome{resp.exit_code(), resp.stdout() + resp.stderr()};
}

Result<std::optional<Image>> CriClient::image_status(const std::string& ref) {
  pb::ImageStatusRequest req;
  req.mutable_image()->set_image(ref);
  pb::ImageStatusResponse resp;
  if (auto s = call(*impl_->images, &Impl::Images::ImageStatus, req, &resp); !s.ok()) return failed(s);
  if (!resp.has_image()) return std::optional<Image>();
  return std::optional<Image>(from_proto(resp.image()));
}

Result<std::string> CriClient::pull_image(const std::string& ref) {
  pb::PullImageRequest req;
  req.mutable_image()->set_image(ref);
  pb::PullImageResponse resp;
  if (auto s = call(*impl_->images, &Impl::Images::PullImage, req, &resp, std::chrono::hours(1)); !s.ok())
    return failed(s);
  return resp.image_ref();
}

Result<std::vector<Image>> CriClient::list_images() {
  pb::ListImagesResponse resp;
  if (auto s = call(*impl_->images, &Impl::Images::ListImages, pb::ListImagesRequest(), &resp); !s.ok())
    return failed(s);
  std::vector<Image> out;
  for (const auto& i : resp.images()) out.push_back(from_proto(i));
  return out;
}

Result<> CriClient::reopen_log(const std::string& container_id) {
  pb::ReopenContainerLogRequest req;
  req.set_container_id(container_id);
  pb::ReopenContainerLogResponse resp;
  if (auto s = call(*impl_->runtime, &Impl::Runtime::ReopenContainerLog, req, &resp); !s.ok()) return failed(s);
  return {};
}

Result<> CriClient::watch_exits(const std::function<void(const std::string& id)>& on_exit, std::stop_token stop) {
  grpc::ClientContext ctx;
  std::stop_callback cancel(stop, [&ctx] { ctx.TryCancel(); });
  events::SubscribeRequest req;
  req.add_filters("topic==\"/tasks/exit\",namespace==\"k8s.io\"");
  auto reader = impl_->events->Subscribe(&ctx, req);
  events::Envelope e;
  while (reader->Read(&e)) {
    events::TaskExit exit;
    // An exec'd process ends with an exit of its own id inside the same container.
    if (exit.ParseFromString(e.event().value()) && exit.id() == exit.container_id()) on_exit(exit.container_id());
  }
  if (auto s = reader->Finish(); !s.ok() && !stop.stop_requested()) return failed(s);
  return {};
}

}  // namespace hawser::agent
