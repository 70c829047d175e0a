// SPDX-License-Identifier: Apache-2.0
// The daemon as a DaemonSet starts it: in a pod's file system, with a service account, against an API server that knows
// pods, nodes and the patch of a node's status and refuses the rest. flannel's stock manifest with nothing changed but
// the program, and ours.
#include <csignal>
#include <utility>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <spawn.h>
#include <sys/wait.h>

#include "lib/base/atomic_file.h"
#include "lib/http/server.h"
#include "lib/http/tls.h"
#include "tests/netns/overlay_net.h"

namespace hawser::overlay {
namespace {

using ::testing::HasSubstr;

class ManifestTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto h = Host::make();
    if (!h) GTEST_SKIP() << "needs the right to make network namespaces: " << h.error().text;
    host_.emplace(std::move(*h));
    ASSERT_TRUE(
        host_->ok("ip link add eth0 type veth peer name wire; ip link set wire up; ip link set eth0 up; ip addr add "
                  "192.0.2.11/24 dev eth0; ip route add default via 192.0.2.1; sysctl -qw net.ipv4.ip_forward=1"));
    auto ca = http::make_ca("cluster");
    ASSERT_TRUE(ca);
    auto own = http::issue(*ca, {.common_name = "apiserver", .ip_addresses = {"127.0.0.1"}, .server = true});
    ASSERT_TRUE(own);
    auto tls = http::TlsContext::server(*own, "");
    ASSERT_TRUE(tls);
    api_ = std::make_unique<http::Server>(http::ServerOptions{.worker_threads = 2}, *tls,
                                          [this](const auto& q, auto& r) { answer(q, r); });
    host_->run([&] { port_ = api_->listen("127.0.0.1", 0).value_or(0); });
    ASSERT_NE(port_, 0);
    ASSERT_TRUE(write_file(dir_.file("ca.crt"), ca->cert) && write_file(dir_.file("token"), "service-account"));
    ASSERT_TRUE(write_file(dir_.file("net-conf.json"),
                           R"({"Network":"10.244.0.0/16","EnableNFTables":false,"Backend":{"Type":"vxlan"}})"));
  }
  void TearDown() override {
    if (pid_ > 0) kill(pid_, SIGTERM), waitpid(pid_, nullptr, 0);
    std::lock_guard l(mu_);
    watches_.clear();
  }

  void answer(const http::Request& q, http::Responder& r) {
    static const std::string kPeer =
        R"({"metadata":{"name":"node-2","annotations":{"flannel.alpha.coreos.com/backend-type":"vxlan",)"
        R"("flannel.alpha.coreos.com/public-ip":"192.0.2.12","flannel.alpha.coreos.com/backend-data":)"
        R"("{\"VNI\":1,\"VtepMAC\":\"02:00:00:00:00:12\"}"}},"spec":{"podCIDR":"10.244.2.0/24"}})";
    static const std::string kOwn =
        R"({"metadata":{"name":"node-1"},"spec":{"podCIDR":"10.244.1.0/24","podCIDRs":["10.244.1.0/24"]},)"
        R"("status":{"addresses":[{"type":"InternalIP","address":"192.0.2.11"}],"conditions":)"
        R"([{"type":"PeersUnreachable","status":"True"}]}})";
    http::Response out{.status = 200};
    out.headers.set("Content-Type", "application/json");
    std::lock_guard l(mu_);
    const bool known = q.headers.get("Authorization") == "Bearer service-account";
    if (known && q.method == "GET" && q.path() == "/api/v1/namespaces/kube-flannel/pods/kube-flannel-ds-x") {
      out.body = R"({"metadata":{"name":"kube-flannel-ds-x"},"spec":{"nodeName":"node-1"}})";
    } else if (known && q.method == "GET" && q.path() == "/api/v1/nodes" && q.target.contains("watch")) {
      watches_.push_back(r.stream(out));
      return;
    } else if (known && q.method == "GET" && q.path() == "/api/v1/nodes") {
      out.body = R"({"kind":"NodeList","apiVersion":"v1","metadata":{"resourceVersion":"5"},"items":[)" + kOwn + "," +
                 kPeer + "]}";
    } else if (known && q.method == "GET" && q.path() == "/api/v1/nodes/node-1") {
      out.body = kOwn;
    } else if (known && q.method == "PATCH" && q.path() == "/api/v1/nodes/node-1/status") {
      patches_ += q.body;
      auto node = boost::json::parse(kOwn);
      const auto patch = boost::json::parse(q.body);
      for (const auto& [key, value] : kube::obj(patch.as_object(), {"metadata", "annotations"}))
        kube::ensure(node.as_object(), {"metadata", "annotations"})[key] = value;
      out.body = boost::json::serialize(node);
    } else {
      out.status = 403;
      out.body = R"({"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403})";
      refused_.push_back(q.method + " " + q.target);
    }
    r.send(std::move(out));
  }

  // As the runtime does it: /etc and /run are the pod's, with what the manifest mounts there.
  void start(const std::string& environment, const std::string& configuration, const std::string& args) {
    const auto script = fmt::format(
        "mount --make-rprivate / && mount -t tmpfs tmpfs /etc && mount -t tmpfs tmpfs /run && "
        "mkdir -p {2} /run/secrets/kubernetes.io/serviceaccount && cp {0}/net-conf.json {2}/ && "
        "cp {0}/ca.crt {0}/token /run/secrets/kubernetes.io/serviceaccount/ && "
        "exec env KUBERNETES_SERVICE_HOST=127.0.0.1 KUBERNETES_SERVICE_PORT={1} {3} {4} {5}",
        dir_.path(), port_, configuration, environment, HAWSER_OVERLAYD, args);
    std::vector<std::string> argv_text{"unshare", "-m", "sh", "-c", script};
    std::vector<char*> argv;
    for (auto& a : argv_text) argv.push_back(a.data());
    argv.push_back(nullptr);
    host_->run([&] { ASSERT_EQ(posix_spawnp(&pid_, argv[0], nullptr, nullptr, argv.data(), environ), 0); });
  }
  // A file of the pod's.
  [[nodiscard]] std::string file(const std::string& path) const {
    return read_file(fmt::format("/proc/{}/root{}", pid_, path)).value_or("");
  }
  std::string patches() {
    std::lock_guard l(mu_);
    return patches_;
  }
  void expect_a_node_of_flannels() {
    EXPECT_TRUE(eventually([&] { return patches().contains("backend-data"); })) << patches();
    EXPECT_THAT(patches(), HasSubstr(R"("flannel.alpha.coreos.com/public-ip":"192.0.2.11")"));
    EXPECT_THAT(patches(), HasSubstr("NetworkUnavailable"));
    EXPECT_THAT(host_->sh("bridge fdb show dev flannel.1"), HasSubstr("02:00:00:00:00:12 dst 192.0.2.12"));
    EXPECT_THAT(host_->sh("nft list ruleset"), HasSubstr("masquerade"));
    EXPECT_EQ(file("/run/flannel/subnet.env"),
              "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n");
    std::lock_guard l(mu_);
    EXPECT_THAT(refused_, ::testing::IsEmpty()) << "what flannel's role does not allow";
  }

  hawser::testing::TempDir dir_;
  std::optional<Host> host_;
  std::uint16_t port_ = 0;
  pid_t pid_ = 0;
  std::mutex mu_;
  std::string patches_;                                 // guarded by mu_
  std::vector<std::string> refused_;                    // guarded by mu_
  std::vector<std::shared_ptr<http::Stream>> watches_;  // guarded by mu_
  std::unique_ptr<http::Server> api_;
};

TEST_F(ManifestTest, FlannelsStockManifestWithAnotherProgram) {
  start("POD_NAME=kube-flannel-ds-x POD_NAMESPACE=kube-flannel EVENT_QUEUE_DEPTH=5000 CONT_WHEN_CACHE_NOT_READY=false",
        "/etc/kube-flannel", "--ip-masq --kube-subnet-mgr");
  expect_a_node_of_flannels();
  EXPECT_EQ(host_->sh("ip route show type unreachable"), "") << "flanneld makes none unless told";
}

TEST_F(ManifestTest, OurManifest) {
  std::string args;
  const auto text = read_file(HAWSER_MANIFEST);
  ASSERT_TRUE(text) << text.error().text;
  for (auto at = text->find("- --"); at != std::string::npos; at = text->find("- --", at + 1))
    args += text->substr(at + 2, text->find('\n', at) - at - 2) + " ";
  ASSERT_THAT(args, HasSubstr("--cni-conf-dir=/etc/cni/net.d"));
  start("NODE_NAME=node-1", "/etc/hawser", args);
  expect_a_node_of_flannels();
  EXPECT_THAT(file("/etc/cni/net.d/10-hawser.conflist"), HasSubstr("portMappings"));
  EXPECT_TRUE(eventually([&] { return host_->sh("curl -s http://127.0.0.1:8285/readyz").starts_with("ok"); }))
      << host_->sh("curl -s http://127.0.0.1:8285/readyz");
}

TEST_F(ManifestTest, ANodeThatIsLeftKeepsNoConditionOfOurs) {
  start("NODE_NAME=node-1", "/etc/hawser", "--cleanup");
  int status = -1;
  ASSERT_EQ(waitpid(std::exchange(pid_, 0), &status, 0) > 0 && WIFEXITED(status), true);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(patches(), R"({"status":{"conditions":[{"type":"PeersUnreachable","$patch":"delete"}]}})");
  std::lock_guard l(mu_);
  EXPECT_THAT(refused_, ::testing::IsEmpty());
}

// The API server's absence keeps nobody from leaving.
TEST_F(ManifestTest, CleanUpWorksWithoutTheApiServer) {
  start("NODE_NAME=node-1", "/etc/hawser", "--cleanup --kube-api-url=https://127.0.0.1:1");
  int status = -1;
  ASSERT_EQ(waitpid(std::exchange(pid_, 0), &status, 0) > 0 && WIFEXITED(status), true);
  EXPECT_EQ(WEXITSTATUS(status), 0);
}

}  // namespace
}  // namespace hawser::overlay
