// SPDX-License-Identifier: Apache-2.0
#include "cni-plugin/capabilities.h"

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <gtest/gtest.h>
#include <netinet/in.h>

namespace hawser::cni {
namespace {

Outcome<Capabilities> parse(const char* runtime_config) {
  boost::json::object conf{{"runtimeConfig", boost::json::parse(runtime_config)}};
  return parse_capabilities(conf, {});
}

// What CNI's conventions and podman write, and what containerd's library does: a Go struct without names for JSON.
TEST(Capabilities, KeysAreTakenInEitherSpelling) {
  for (const char* text :
       {R"({"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"udp","hostIP":"192.0.2.1"}],
            "bandwidth":{"ingressRate":8000,"ingressBurst":16000,"egressRate":24000,"egressBurst":32000},
            "dns":{"servers":["10.96.0.10"],"searches":["cluster.local"],"options":["ndots:5"]}})",
        R"({"portMappings":[{"HostPort":8080,"ContainerPort":80,"Protocol":"UDP","HostIP":"192.0.2.1"}],
            "bandwidth":{"IngressRate":8000,"IngressBurst":16000,"EgressRate":24000,"EgressBurst":32000},
            "dns":{"Servers":["10.96.0.10"],"Searches":["cluster.local"],"Options":["ndots:5"]}})"}) {
    SCOPED_TRACE(text);
    auto c = parse(text);
    ASSERT_TRUE(c) << c.error().msg;
    ASSERT_EQ(c->ports.size(), 1u);
    EXPECT_EQ(c->ports[0], (PortMapping{8080, 80, IPPROTO_UDP, *IpAddr::parse("192.0.2.1")}));
    EXPECT_EQ(c->bandwidth, (Bandwidth{{8000, 16000}, {24000, 32000}}));
    EXPECT_EQ(boost::json::serialize(c->dns),
              R"({"nameservers":["10.96.0.10"],"search":["cluster.local"],"options":["ndots:5"]})");
  }
}

TEST(Capabilities, ExactKeyWinsAndNullIsNothing) {
  auto c = parse(R"({"portMappings":[{"HostPort":1,"hostPort":2,"containerPort":3}],
                     "dns":{"Servers":null,"Searches":null,"Options":null}})");
  ASSERT_TRUE(c) << c.error().msg;
  EXPECT_EQ(c->ports.at(0).host_port, 2);
  EXPECT_TRUE(c->dns.empty());
}

TEST(Capabilities, EverySpellingOfZeroIsEveryAddress) {
  for (const char* ip : {"", "0.0.0.0", "::", "0::", "0:0::0"}) {
    auto c = parse(fmt::format(R"({{"portMappings":[{{"hostPort":1,"containerPort":2,"hostIP":"{}"}}]}})", ip).c_str());
    ASSERT_TRUE(c) << ip;
    EXPECT_FALSE(c->ports.at(0).host_ip) << ip;
  }
}

}  // namespace
}  // namespace hawser::cni
