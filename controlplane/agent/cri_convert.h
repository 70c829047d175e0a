// SPDX-License-Identifier: Apache-2.0
// Between our plain CRI structs and the protobuf messages. Pure. Included only by cri_client.cc and its test.
#pragma once

#include "controlplane/agent/cri.h"
#include "cri.pb.h"

namespace hawser::agent {

void to_proto(const SandboxConfig& in, runtime::v1::PodSandboxConfig* out);
void to_proto(const ContainerConfig& in, runtime::v1::ContainerConfig* out);
Sandbox from_proto(const runtime::v1::PodSandbox& in);
Sandbox from_proto(const runtime::v1::PodSandboxStatus& in);
Container from_proto(const runtime::v1::Container& in);
Container from_proto(const runtime::v1::ContainerStatus& in);
Image from_proto(const runtime::v1::Image& in);

}  // namespace hawser::agent
