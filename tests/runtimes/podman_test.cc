// SPDX-License-Identifier: Apache-2.0
// podman 4 with its network back end "cni": containers on the network whose configuration overlayd wrote. All of
// podman's folders are the test's own, and netavark is not involved.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include "lib/base/atomic_file.h"
#include "tests/runtimes/runtime_node.h"

namespace hawser::testing {
namespace {

using agent::testing::eventually;
using std::chrono::seconds;
using ::testing::HasSubstr;

class PodmanTest : public RuntimeTest {
 protected:
  void SetUp() override {
    if (access("/usr/bin/podman", X_OK) != 0) GTEST_SKIP() << "/usr/bin/podman is missing";
    RuntimeTest::SetUp();
    if (!node_) return;
    ASSERT_TRUE(write_file(folder_.file("containers.conf"),
                           fmt::format("[network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = [\"{}\"]\n"
                                       "network_config_dir = \"{}\"\ndefault_network = \"hawser\"\n"
                                       "[engine]\nevents_logger = \"none\"\nlock_type = \"file\"\n",
                                       node_->plugins(), node_->networks())));
    ASSERT_TRUE(make_folders(folder_.file("tmp")));
    ASSERT_EQ(podman("info --format '{{.Host.NetworkBackend}}'"), "cni\n");
    ASSERT_THAT(podman("load -q -i " HAWSER_TEST_IMAGE), HasSubstr("localhost/hawser-test:1"));
    before_ = node_->state();
  }
  void TearDown() override {
    if (IsSkipped()) return;
    podman("rm --all --force --time 0");
    RuntimeTest::TearDown();
    podman("system reset --force");
  }
  std::string podman(const std::string& args, int* status = nullptr) const {
    const auto& f = folder_.path();
    return shell(
        fmt::format(
            "CONTAINERS_CONF={0}/containers.conf HOME={0} TMPDIR={0}/tmp podman --root {0}/root --runroot {0}/run "
            "--tmpdir {0}/libpod --storage-driver vfs --cgroup-manager cgroupfs --runtime /usr/sbin/runc {1}",
            f, args),
        status);
  }
  // The container's id; what fails is reported.
  std::string run(const std::string& name, const std::string& options, const std::string& command) const {
    int status = 0;
    auto out =
        podman(fmt::format("run -d --name {0} --network hawser --cgroup-parent {1}/{0} {2} localhost/hawser-test:1 {3}",
                           name, node_->cgroup(), options, command),
               &status);
    EXPECT_EQ(status, 0) << out;
    return out;
  }
  std::string address(const std::string& name) const {
    auto out = podman("inspect --format '{{.NetworkSettings.Networks.hawser.IPAddress}}' " + name);
    return out.substr(0, out.find('\n'));
  }

  TempDir folder_;
};

TEST_F(PodmanTest, ContainersReachEachOtherAndLeaveNothing) {
  EXPECT_THAT(podman("network ls"), HasSubstr("hawser"));
  run("server", "-p 8081:8080", "serve 8080");
  run("client", "", "pause");
  EXPECT_THAT(address("server"), ::testing::StartsWith("10.244."));
  EXPECT_NE(address("server"), address("client"));
  EXPECT_EQ(node_->held().size(), 4u) << "one of each family for each";
  int status = -1;
  std::string out;
  EXPECT_TRUE(eventually(
      [&] {
        out = podman(fmt::format("exec client /bin/test-pod fetch {} 8080", address("server")), &status);
        return status == 0;
      },
      seconds(30)))
      << out;
  EXPECT_THAT(out, HasSubstr("200 OK"));
  // By the published port as well, from another container and so through the node.
  out = podman("exec client /bin/test-pod fetch 192.0.2.11 8081", &status);
  EXPECT_THAT(out, HasSubstr("200 OK"));

  // A container that ends by itself gives everything back when it ends, before it is removed.
  podman("stop --time 0 client");
  EXPECT_TRUE(eventually([&] { return node_->held().size() == 2; }, seconds(30)));
  // Started again it has a network again.
  EXPECT_EQ(podman("start client", &status), "client\n");
  EXPECT_EQ(node_->held().size(), 4u);
}

TEST_F(PodmanTest, RequestedAddressAndMacAreGiven) {
  run("fixed", "--ip 10.244.1.77 --mac-address 02:00:00:00:00:77", "pause");
  EXPECT_EQ(address("fixed"), "10.244.1.77");
  EXPECT_THAT(podman("inspect fixed"), HasSubstr("02:00:00:00:00:77"));
  // A second one is refused, by podman or by the plugin, and the first keeps it.
  int status = 0;
  podman(fmt::format("run -d --name second --network hawser --ip 10.244.1.77 --cgroup-parent {}/second "
                     "localhost/hawser-test:1 pause",
                     node_->cgroup()),
         &status);
  EXPECT_NE(status, 0);
  EXPECT_TRUE(node_->held().contains("10.244.1.77"));
}

}  // namespace
}  // namespace hawser::testing
