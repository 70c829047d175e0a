// SPDX-License-Identifier: Apache-2.0
// CniFixture: the plugin's binary run as a runtime runs it, on a throw-away node; `ip`, `nft`, `tc` and `ping` are the
// oracles. HAWSER_CNI names the binary.
#pragma once

#include <optional>
#include <string>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <gtest/gtest.h>

#include "lib/base/atomic_file.h"
#include "lib/testing/temp_dir.h"
#include "tests/netns/host.h"

namespace hawser::testing {

struct Ran {
  int status = 0;
  std::string out;
};

class CniFixture : public ::testing::Test {
 protected:
  void SetUp() override {
    auto h = Host::make();
    if (!h) GTEST_SKIP() << "needs the right to make network namespaces: " << h.error().text;
    node_.emplace(std::move(*h));
    ASSERT_TRUE(
        write_file(dir_.file("node.json"), R"({"node":"n","podCIDRs":["10.244.1.0/24","fd00:1::/64"],"mtu":1450})"));
  }
  static Host pod() { return std::move(*Host::make()); }
  [[nodiscard]] std::string conf(const std::string& extra = "", const std::string& version = "1.1.0") const {
    return fmt::format(R"({{"cniVersion":"{}","name":"net","type":"hawser","nodeFile":"{}"{}}})", version,
                       dir_.file("node.json"), extra);
  }
  // The same with "runtimeConfig" of these members.
  [[nodiscard]] std::string conf_with(const std::string& runtime_config, const std::string& extra = "") const {
    return conf(fmt::format(R"(,"runtimeConfig":{{{}}}{})", runtime_config, extra));
  }
  // As a runtime would: variables, input, the answer from standard output. Any thread.
  Ran run(const std::string& verb, const std::string& container, const std::string& netns, const std::string& input,
          const std::string& ifname = "eth0") const {
    const auto in = dir_.file(verb + container + ifname + ".in");
    EXPECT_TRUE(write_file(in, input));
    Ran r;
    r.out = node_->sh(
        fmt::format(
            "CNI_COMMAND={} CNI_CONTAINERID={} CNI_NETNS={} CNI_IFNAME={} CNI_PATH={}:/usr/lib/cni {} <{} 2>/dev/null",
            verb, container, netns, ifname, dir_.path(), HAWSER_CNI, in),
        &r.status);
    return r;
  }
  static std::string address(const Ran& r) {
    auto v = boost::json::parse(r.out);
    return std::string(v.at("ips").at(0).at("address").as_string());
  }
  static std::string with_prev(const std::string& conf, const std::string& prev) {
    auto o = boost::json::parse(conf).get_object();
    o["prevResult"] = boost::json::parse(prev);
    return boost::json::serialize(o);
  }

  TempDir dir_;
  std::optional<Host> node_;
};

}  // namespace hawser::testing
