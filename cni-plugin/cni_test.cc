// SPDX-License-Identifier: Apache-2.0
// The plugin's contract without a kernel: environment, configuration, result conversion, links on the fake, failing at
// each step.
#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cni-plugin/attachment.h"
#include "cni-plugin/attachment_result.h"
#include "cni-plugin/config.h"
#include "cni-plugin/node_file.h"
#include "cni-plugin/verbs.h"
#include "lib/netlink/rtnl_fake.h"

namespace hawser::cni {
namespace {

namespace json = boost::json;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using Vars = std::map<std::string, std::string>;

GetEnv env_of(const Vars& v) {
  return [v](const char* k) {
    auto it = v.find(k);
    return it == v.end() ? std::string() : it->second;
  };
}
Vars vars(const char* command) {
  return {{"CNI_COMMAND", command},
          {"CNI_CONTAINERID", "abc"},
          {"CNI_NETNS", "/x"},
          {"CNI_IFNAME", "eth0"},
          {"CNI_PATH", "/p"}};
}
Vars with(Vars v, const std::string& key, const std::string& value) {
  v[key] = value;
  return v;
}
json::object error_of(const Answer& a) {
  EXPECT_EQ(a.exit_status, 1);
  EXPECT_TRUE(a.out.ends_with("\n"));
  return json::parse(a.out).get_object();
}
int code_of(const Answer& a) {
  return static_cast<int>(error_of(a).at("code").as_int64());
}
std::string msg_of(const Answer& a) {
  return std::string(error_of(a).at("msg").as_string());
}

constexpr const char* kGood = R"({"cniVersion":"1.1.0","name":"net","type":"hawser"})";

TEST(Contract, NoCommandExplainsItself) {
  auto a = run_plugin({env_of({}), ""});
  EXPECT_EQ(a.exit_status, 0);
  EXPECT_THAT(a.out, IsEmpty());
  EXPECT_THAT(a.err, HasSubstr("1.1.0"));
}

TEST(Contract, VersionNeedsNothingElse) {
  for (const char* input : {"", "{}", R"({"cniVersion":"0.4.0"})", "garbage"}) {
    auto a = run_plugin({env_of({{"CNI_COMMAND", "VERSION"}}), input});
    EXPECT_EQ(a.exit_status, 0);
    auto o = json::parse(a.out).get_object();
    EXPECT_EQ(json::serialize(o.at("supportedVersions")),
              R"(["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0","1.1.0"])");
  }
}

TEST(Contract, EachVerbNamesItsMissingVariables) {
  struct Case {
    const char* verb;
    std::vector<const char*> required;
  };
  for (const Case& c : {Case{"ADD", {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"}},
                        Case{"CHECK", {"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"}},
                        Case{"DEL", {"CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"}}, Case{"GC", {"CNI_PATH"}},
                        Case{"STATUS", {"CNI_PATH"}}}) {
    for (const char* name : c.required) {
      auto v = vars(c.verb);
      v.erase(name);
      auto a = run_plugin({env_of(v), kGood});
      EXPECT_EQ(code_of(a), 4);
      EXPECT_THAT(msg_of(a), HasSubstr(name)) << c.verb;
    }
    auto none = run_plugin({env_of({{"CNI_COMMAND", c.verb}}), kGood});
    for (const char* name : c.required) EXPECT_THAT(msg_of(none), HasSubstr(name));
  }
}

TEST(Contract, ErrorCodes) {
  struct Case {
    int line;
    Vars env;
    const char* input;
    int code;
    const char* msg;
  };
  for (const Case& c : {
           Case{__LINE__, vars("FROB"), kGood, 4, "unknown CNI_COMMAND: FROB"},
           Case{__LINE__, with(vars("ADD"), "CNI_CONTAINERID", "../x"), kGood, 4, "CNI_CONTAINERID"},
           Case{__LINE__, with(vars("ADD"), "CNI_CONTAINERID", std::string(300, 'a')), kGood, 4, "longer than 200"},
           Case{__LINE__, with(vars("ADD"), "CNI_IFNAME", "sixteen-chars-xx"), kGood, 4, "15 characters"},
           Case{__LINE__, with(vars("ADD"), "CNI_IFNAME", ".."), kGood, 4, "reserved"},
           Case{__LINE__, with(vars("ADD"), "CNI_IFNAME", "a/b"), kGood, 4, "CNI_IFNAME"},
           Case{__LINE__, with(vars("ADD"), "CNI_IFNAME", "a b"), kGood, 4, "white space"},
           Case{__LINE__, with(vars("ADD"), "CNI_ARGS", "nonsense"), kGood, 4, "CNI_ARGS"},
           Case{__LINE__, with(vars("ADD"), "CNI_ARGS", "IgnoreUnknown=0;FOO=1"), kGood, 4, "unknown key \"FOO\""},
           Case{__LINE__, with(vars("ADD"), "CNI_ARGS", "IgnoreUnknown=1;FOO=1"), kGood, 8, "/x"},
           Case{__LINE__, vars("ADD"), "{", 6, "network configuration"},
           Case{__LINE__, vars("ADD"), "[]", 6, "not a JSON object"},
           Case{__LINE__, vars("ADD"), R"({"cniVersion":"9.0.0","name":"net"})", 1, "\"9.0.0\" is not supported"},
           Case{__LINE__, vars("ADD"), R"({"cniVersion":"1.0.0"})", 7, "name"},
           Case{__LINE__, vars("ADD"), R"({"cniVersion":"1.0.0","name":"../n"})", 7, "name"},
           Case{__LINE__, vars("ADD"), R"({"name":"n","mode":"macvlan"})", 2, "mode: \"macvlan\""},
           Case{__LINE__, vars("ADD"), R"({"name":"n","mtu":12})", 7, "mtu: 12"},
           Case{__LINE__, vars("ADD"), R"({"name":"n","mtu":"big"})", 7, "mtu"},
           Case{__LINE__, vars("ADD"), R"({"name":"n","ipam":7})", 7, "ipam"},
           Case{__LINE__, vars("ADD"), R"({"name":"n","ipam":{"type":"../../bin/sh"}})", 7, "ipam.type"},
           Case{__LINE__, vars("ADD"), R"({"name":"n","ipam":{"ranges":[[{"subnet":"10.0.0.0/31"}]]}})", 7,
                "ipam.ranges"},
           Case{__LINE__, vars("ADD"), R"({"name":"n","ipam":{"exclude":["x"]}})", 7, "ipam.exclude"},
           Case{__LINE__, vars("ADD"), R"({"name":"n","ipam":{"subnet":"10.0.0.0/24","exclude":["10.1.0.0"]}})", 7,
                "ipam.exclude: 10.1.0.0/32 is not in subnet"},
           Case{__LINE__, vars("ADD"), R"({"name":"n","ipam":{"exclude":[],"ranges":[[{"subnet":"10.0.0.0/24"}]]}})", 7,
                "ipam.exclude"},
           Case{__LINE__, vars("ADD"), R"({"name":"n","ipam":{"importHostLocal":"x"}})", 7, "ipam.importHostLocal"},
           Case{__LINE__, vars("ADD"), R"({"name":"n","nodeFile":"x"})", 7, "nodeFile"},
           Case{__LINE__, vars("ADD"), R"({"name":"n","runtimeConfig":{"ips":["x"]}})", 7, "runtimeConfig.ips"},
           Case{__LINE__, vars("ADD"), R"({"name":"n","prevResult":7})", 6, "prevResult"},
           Case{__LINE__, vars("CHECK"), R"({"cniVersion":"0.3.1","name":"n"})", 1, "since 0.4.0"},
           Case{__LINE__, vars("GC"), R"({"cniVersion":"1.0.0","name":"n","cni.dev/valid-attachments":[]})", 1,
                "since 1.1.0"},
           Case{__LINE__, vars("STATUS"), R"({"cniVersion":"1.0.0","name":"n"})", 1, "since 1.1.0"},
           Case{__LINE__, vars("STATUS"), R"({"cniVersion":"1.1.0","name":"n","nodeFile":"/nonexistent/node.json"})",
                50, "/nonexistent/node.json"},
           Case{__LINE__, vars("GC"), R"({"cniVersion":"1.1.0","name":"n"})", 7, "cni.dev/valid-attachments"},
           Case{__LINE__, vars("CHECK"), R"({"cniVersion":"1.0.0","name":"n"})", 7, "prevResult"},
           Case{__LINE__, with(vars("ADD"), "CNI_NETNS", "/nonexistent/ns"), kGood, 8, "/nonexistent/ns"},
           Case{__LINE__, with(vars("ADD"), "CNI_NETNS", "/proc/self/ns/net"), kGood, 8, "own network namespace"},
           Case{__LINE__, with(vars("DEL"), "CNI_NETNS", "/proc/self/ns/net"), kGood, 8, "own network namespace"},
       }) {
    SCOPED_TRACE(c.line);
    auto a = run_plugin({env_of(c.env), c.input});
    EXPECT_EQ(code_of(a), c.code) << a.out;
    EXPECT_THAT(msg_of(a), HasSubstr(c.msg));
  }
}

TEST(Config, WhereHostLocalKeepsItsReservations) {
  auto from = [&](const char* value) {
    return parse_config(fmt::format(R"({{"name":"n","ipam":{{"importHostLocal":{}}}}})", value), {})->host_local;
  };
  EXPECT_EQ(from("false"), "");
  EXPECT_EQ(from("true"), "/var/lib/cni/networks/n");
  EXPECT_EQ(from(R"("/var/lib/cni/networks/cbr0")"), "/var/lib/cni/networks/cbr0");
}

TEST(Config, RequestedAddressPrecedence) {
  Environment env;
  env.args = {{"IP", "10.0.0.1"}};
  auto from = [&](const char* text) { return parse_config(text, env)->requested.at(0).text(); };
  EXPECT_EQ(from(R"({"name":"n"})"), "10.0.0.1");
  EXPECT_EQ(from(R"({"name":"n","args":{"cni":{"ips":["10.0.0.2/24"]}}})"), "10.0.0.2");
  EXPECT_EQ(from(R"({"name":"n","args":{"cni":{"ips":["10.0.0.2"]}},"runtimeConfig":{"ips":["10.0.0.3"]}})"),
            "10.0.0.3");
}

TEST(Config, UnknownKeysAreIgnored) {
  EXPECT_TRUE(parse_config(R"({"name":"n","x":{"y":[1,{}]},"ipam":{"z":1},"capabilities":{"q":true}})", {}));
}

TEST(Result, EveryVersionAndBack) {
  auto full =
      json::parse(R"({"interfaces":[{"name":"h"},{"name":"eth0","mac":"0a:58:0a:00:00:02","sandbox":"/ns","mtu":1450}],
      "ips":[{"address":"10.0.0.2/32","gateway":"169.254.1.1","interface":1},{"address":"fd00::2/128","gateway":"fe80::1","interface":1}],
      "routes":[{"dst":"0.0.0.0/0","gw":"169.254.1.1"},{"dst":"::/0","gw":"fe80::1"}],"dns":{}})")
          .get_object();
  auto text = [&](const char* v) { return json::serialize(to_version(full, v)); };
  EXPECT_THAT(text("1.1.0"), HasSubstr(R"("mtu":1450)"));
  EXPECT_THAT(text("1.0.0"), ::testing::Not(HasSubstr("mtu")));
  EXPECT_THAT(text("1.0.0"), ::testing::Not(HasSubstr("version")));
  EXPECT_THAT(text("0.4.0"), HasSubstr(R"("interface":1,"version":"4"})"));
  EXPECT_THAT(text("0.3.1"), HasSubstr(R"("version":"6"})"));
  EXPECT_EQ(
      text("0.2.0"),
      R"({"cniVersion":"0.2.0","ip4":{"ip":"10.0.0.2/32","gateway":"169.254.1.1","routes":[{"dst":"0.0.0.0/0","gw":"169.254.1.1"}]},)"
      R"("ip6":{"ip":"fd00::2/128","gateway":"fe80::1","routes":[{"dst":"::/0","gw":"fe80::1"}]},"dns":{}})");
  for (const char* v : {"0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"}) {
    auto back = from_version(to_version(full, v), v);
    ASSERT_TRUE(back) << v;
    auto ips = result_ips(*back);
    ASSERT_TRUE(ips);
    ASSERT_EQ(ips->size(), 2u) << v;
    EXPECT_EQ((*ips)[1].address.text(), "fd00::2/128");
  }
  EXPECT_FALSE(from_version(json::parse(R"({"ips":[{"address":"x"}]})").get_object(), "1.0.0"));
  EXPECT_FALSE(from_version(json::parse(R"({"ips":{}})").get_object(), "1.0.0"));
}

TEST(NodeFile, RoundTripAndErrors) {
  NodeFile n{.node = "node-1",
             .pod_cidrs = {*Cidr::parse("10.244.1.0/24")},
             .cluster_cidrs = {*Cidr::parse("10.244.0.0/16")},
             .mtu = 1450};
  EXPECT_EQ(*NodeFile::parse(n.text()), n);
  n.devices = {"flannel.1", "flannel-v6.1"};
  EXPECT_EQ(*NodeFile::parse(n.text()), n);
  for (const char* bad :
       {"", "[]", "{}", R"({"podCIDRs":["x"],"mtu":1450})", R"({"podCIDRs":["10.0.0.0/24"]})",
        R"({"podCIDRs":["10.0.0.0/24"],"mtu":1})", R"({"podCIDRs":["10.0.0.0/24"],"mtu":1450,"devices":["a/b"]})",
        R"({"podCIDRs":["10.0.0.0/24"],"mtu":1450,"devices":[7]})"})
    EXPECT_FALSE(NodeFile::parse(bad)) << bad;
}

AttachmentSpec spec() {
  return {.host_name = host_link_name("net", {"abc", "eth0"}),
          .ifname = "eth0",
          .netns_fd = 0,
          .mtu = 1450,
          .addresses = {*IpAddr::parse("10.244.1.5"), *IpAddr::parse("fd00:1::5")}};
}

TEST(Attachment, NamesFitAndDiffer) {
  EXPECT_EQ(host_link_name("net", {"abc", "eth0"}).size(), 15u);
  EXPECT_NE(host_link_name("net", {"abc", "eth0"}), host_link_name("net", {"abc", "eth1"}));
  EXPECT_NE(host_link_name("net", {"abc", "eth0"}), host_link_name("other", {"abc", "eth0"}));
  EXPECT_TRUE(host_link_name("net", {"abc", "eth0"}).starts_with(host_link_prefix("net")));
}

struct FakePair {
  FakePair() {
    node.set_peer_namespace(pod);
    pod.set_peer_namespace(node);
  }
  [[nodiscard]] bool untouched() {
    return node.list_links()->size() == 1 && pod.list_links()->size() == 1 && node.list_routes(0)->empty() &&
           pod.list_routes(0)->empty() && pod.list_addresses(0)->empty();
  }
  netlink::FakeRtnl node, pod;
};

TEST(Attachment, StandsAndIsChecked) {
  FakePair f;
  auto s = spec();
  ASSERT_TRUE(attach(f.node, f.pod, s));
  EXPECT_EQ(*attachment_fault(f.node, f.pod, s), "");
  int eth = f.pod.get_link("eth0")->index;
  EXPECT_TRUE(f.pod.get_link("eth0")->up && f.pod.get_link("lo")->up);
  ASSERT_TRUE(f.pod.change_link(eth, {.up = false}));
  EXPECT_EQ(*attachment_fault(f.node, f.pod, s), "pod: interface eth0 is down");
  ASSERT_TRUE(f.pod.change_link(eth, {.up = true}));
  auto address = f.pod.list_addresses(eth)->at(0);
  ASSERT_TRUE(f.pod.change_address(netlink::Verb::kDelete, address));
  EXPECT_EQ(*attachment_fault(f.node, f.pod, s), "pod: address 10.244.1.5/32 is missing on eth0");
  auto again = attach(f.node, f.pod, s);
  ASSERT_FALSE(again);
  EXPECT_TRUE(is_exists(again.error()));
  EXPECT_TRUE(f.node.get_link(s.host_name)) << "the first attachment stays";
  ASSERT_TRUE(detach(f.node, s.host_name));
  EXPECT_EQ(f.pod.list_links()->size(), 1u);
}

TEST(Attachment, FailingAtAnyStepLeavesBothSidesAsTheyWere) {
  for (bool on_node : {true, false}) {
    for (int k = 1;; k++) {
      SCOPED_TRACE(fmt::format("{} write {}", on_node ? "node" : "pod", k));
      FakePair f;
      (on_node ? f.node : f.pod).fail_write(k);
      if (attach(f.node, f.pod, spec())) {
        EXPECT_GT(k, 5);
        break;
      }
      EXPECT_TRUE(f.untouched());
      ASSERT_LT(k, 30);
    }
  }
}

TEST(Attachment, FailingPreparationLeavesNothing) {
  FakePair f;
  auto s = spec();
  s.before_up = [] { return Result<>(fail(EACCES, "sysctl")); };
  EXPECT_FALSE(attach(f.node, f.pod, s));
  EXPECT_TRUE(f.untouched());
}

TEST(Attachment, DetachOfNothingSucceeds) {
  FakePair f;
  EXPECT_TRUE(detach(f.node, "hwabcdefghijklm"));
  EXPECT_EQ(f.node.writes(), 0);
}

}  // namespace
}  // namespace hawser::cni
